"""The model of a context as JSON, which a client keeps and sends back."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from service.core.types import LARGEST_OOD_LIMIT, ContextEstimatorName, Reliability

# Images of one context, or of several merged: what an int32 of the proto holds.
MOST_CONTEXT_IMAGES = 2**31 - 1
# A fitted radius is at most the 99% quantile of chi-square, less than 2 d + 20 for d latents.
LARGEST_RADIUS_SQUARED = 1e6
# A log ratio is at most the logarithm of the density of few images in a narrow context: some hundreds of nats.
LARGEST_DIVERGENCE = 1e6


class _Portable(BaseModel):
    """What a client sends back: JSON's 1e999 and protobuf's doubles may be infinite, or no number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PortableMoments(_Portable):
    """Count, mean and scatter (the sum of outer products about the mean) of encoder means."""

    size: int = Field(ge=1, le=MOST_CONTEXT_IMAGES)
    mean: list[float]
    scatter: list[list[float]]


class PortableKernel(_Portable):
    """A context's images, as far as others are compared with them, over the latents that the model uses."""

    points: list[list[float]] = Field(description="their latents, in standard deviations of the population")
    weights: list[float] = Field(description="the probability that each is no outlier")
    bandwidth: list[float | None] = Field(description="of every latent, how near is near; null where it is free")


class PortableFit(_Portable):
    """Moments in standard deviations of the population, over the latents that the model uses."""

    location: list[float]
    covariance: list[list[float]]


class PortableDivergence(_Portable):
    """How much likelier a context's images are in it than in the population."""

    nats: float = Field(ge=-LARGEST_DIVERGENCE, le=LARGEST_DIVERGENCE)
    error: float = Field(ge=0, le=LARGEST_DIVERGENCE, description="its standard error")


class PortableCalibration(_Portable):
    """What a score says: between its knots, in a straight line."""

    scores: list[float] = Field(description="knots, in rising order")
    evidence: list[float] = Field(description="log ratio of the densities of outliers and normal images there")
    share: float = Field(gt=0, lt=1, description="estimated share of outliers among the images of the context")


class PortableContext(_Portable):
    """What /fit makes of images, and every other endpoint compares images with; it belongs to one bundle."""

    bundle_id: str
    estimator: ContextEstimatorName = Field(description='how it was fitted; "moments" once merged')
    size: int = Field(ge=1, le=MOST_CONTEXT_IMAGES, description="images that it was fitted to")
    location: list[float] = Field(description="centre of the normal images' latents")
    covariance: list[list[float]] = Field(description="of the normal images' latents, noise floor included")
    moments: PortableMoments = Field(description="of all its images: merges exactly with other contexts'")
    posterior_variance: list[float] = Field(description="how exactly the encoder knew each latent, on average")
    radius_squared: float = Field(
        ge=0,
        le=LARGEST_RADIUS_SQUARED,
        description="squared distance within which 99% of the normal images lie; 0 where all images are alike",
    )
    contamination: float | None = Field(default=None, ge=0, le=1, description="estimated share of outliers in it")
    reliability: Reliability
    warnings: list[str]
    kernel: PortableKernel | None = Field(
        default=None, description="of density_ratio and ensemble: some of the images themselves"
    )
    robust: PortableFit | None = Field(
        default=None,
        description="of ensemble: the moments of the nearest 75%; of density_ratio on photographs, of the nearest half",
    )
    divergence: PortableDivergence | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="of ensemble: how far its images lie from the population",
    )
    calibration: PortableCalibration | None = Field(default=None, description="null where too few images came to tell")
    foreign_limit: float = Field(
        default=1.0,
        ge=1,
        le=LARGEST_OOD_LIMIT,
        exclude_if=lambda value: value == 1,
        description="the limit of the foreign check in it, in units of the model's own; absent where it is 1",
    )
