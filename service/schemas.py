"""What goes in and out, as types: options, responses, errors."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.bundle import ImageSpec, Latent
from service.context import ContextEstimator, Estimator, Source
from service.images import Resize
from service.scoring import DEFAULT_ESTIMATOR


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScoreOptions(_Record):
    """How to score; every option may be left out."""

    estimator: Estimator = Field(default=DEFAULT_ESTIMATOR, description="how the context's moments are estimated")
    threshold: float = Field(
        default=0.5, ge=0, le=1, description="an image whose outlier_probability is above it is flagged"
    )
    fdr: float | None = Field(
        default=None, gt=0, le=1, description="flag by false discovery rate instead: the expected share of wrong flags"
    )
    resize: Resize = Field(
        default="fit", description='"fit" resizes other sizes to the model\'s, "reject" refuses them'
    )

    @model_validator(mode="after")
    def _one_rule_flags(self) -> Self:
        if self.fdr is not None and "threshold" in self.model_fields_set:
            raise ValueError("threshold and fdr are two rules for flagging: give one of them")
        return self


class ErrorDetail(_Record):
    """A stable code, what came and what was expected, and how to mend it."""

    code: str
    message: str
    hint: str


class ErrorResponse(_Record):
    """The body of every answer with status 400 or above."""

    error: ErrorDetail
    request_id: str


class ScoredContext(_Record):
    """What the images were compared with."""

    source: Source = Field(description="batch: the request's own images; reference: the reference set")
    size: int = Field(description="images that the context was estimated from")
    estimator: ContextEstimator
    contamination: float | None = Field(description="estimated share of outliers in the context")
    reliability: Literal["high", "low"]
    warnings: list[str]


class ScoredItem(_Record):
    """One image, in the order of the request. An image that could not be used has an error and no scores."""

    index: int
    id: str = Field(description="the file's name, or else its position")
    status: Literal["ok", "error"]
    outlier_score: float | None = Field(description="larger is stranger; ranks the images")
    mahalanobis_squared: float | None
    outlier_probability: float | None
    is_outlier: bool | None
    rank: int | None = Field(description="1 is the most outlying image")
    error: ErrorDetail | None = Field(default=None, description="only where status is error")


class ScoreResponse(_Record):
    bundle_id: str
    model: str
    context: ScoredContext
    items: list[ScoredItem]


class Limits(_Record):
    """The settings that bound one request, and all of them together."""

    max_images: int
    max_body_bytes: int
    max_image_pixels: int
    max_rows_in_flight: int
    max_bytes_in_flight: int
    timeout_seconds: float


class Description(_Record):
    bundle_id: str
    model: str
    image: ImageSpec
    latent_dim: int
    latents: list[Latent]
    metrics: dict[str, object]
    estimators: list[Estimator]
    default_estimator: Estimator
    provider: str = Field(description="the ONNX Runtime execution provider that runs the networks")
    limits: Limits
