"""One latent dimension of a model: its name, and the factor that it follows."""

from __future__ import annotations

from pydantic import Field

from service.frozen_model import FrozenModel

CONTENT = "content"


class Latent(FrozenModel):
    """One latent dimension. It is named after the generative factor that it follows, where that is known.

    A latent with a `unit` is measured: more of it means more of what its name says. Latents of the factor CONTENT tell
    what a picture shows, and mean nothing one by one.
    """

    index: int = Field(ge=0)
    name: str
    factor: str | None = None
    mutual_information: float | None = None  # nats, with `factor`
    dead: bool
    unit: str | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def is_named(self) -> bool:
        """Return whether this is a content latent to which the bundle's owner has given a name."""
        return self.factor == CONTENT and self.name != content_name(self.index)


def content_name(index: int) -> str:
    """Return the name of the content latent number `index`, unless its owner gives it one."""
    return f"{CONTENT} {index + 1}"
