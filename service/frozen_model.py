"""The base of records that are read from JSON and never changed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    # Only finite numbers: JSON has no nan, so that a nan would come back as another value.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
