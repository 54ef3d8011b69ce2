"""The base of records that are read from JSON and never changed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    # Finite numbers only: JSON has no nan, so one would come back as something else.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
