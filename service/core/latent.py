"""One latent dimension of a model: its name, and the factor that it follows."""

from __future__ import annotations

from pydantic import Field

from service.frozen_model import FrozenModel


class Latent(FrozenModel):
    """One latent dimension. It is named after the generative factor that it follows, where that is known."""

    index: int = Field(ge=0)
    name: str
    factor: str | None = None
    mutual_information: float | None = None  # nats, with `factor`
    dead: bool
