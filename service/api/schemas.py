"""The models of answers and errors. `service.api.contexts.portable` has that of a context."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.contexts.portable import PortableContext
from service.api.notebook import ScoredItems, ShownPictures
from service.bundle.manifest import Capabilities, ImageSpec
from service.core.latent import Latent
from service.core.types import ContextEstimatorName, EstimatorName, Reliability, Source

ERRORS = (
    "by id, the images that could not be used; where several have one id, the second is told as `id (2)`, "
    "the third as `id (3)`, in the order of the request"
)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ErrorDetail(_Record):
    """A stable code, what came and what was expected, and how to mend it."""

    code: str
    message: str
    hint: str

    def __str__(self) -> str:
        """Return what came, what was expected, and how to mend it, for people."""
        return f"{self.message} {self.hint}".strip()


class ErrorResponse(_Record):
    """The body of every answer with status 400 or above."""

    error: ErrorDetail
    request_id: str


class FitResponse(_Record):
    model: str
    context: PortableContext
    errors: dict[str, ErrorDetail] = Field(description=ERRORS)


class ScoredContext(_Record):
    """What the images were compared with."""

    source: Source = Field(
        description="batch: the request's own images; reference: a reference set, sent along or fitted before; "
        "population: the model's own, where a single image came"
    )
    size: int = Field(description="images that the context was estimated from")
    estimator: ContextEstimatorName
    contamination: float | None = Field(description="estimated share of outliers in the context")
    reliability: Reliability
    warnings: list[str]


class LatentAttribution(_Record):
    """What one latent has to do with an image's score."""

    latent: str
    index: int
    value: float = Field(description="the encoder's mean")
    shapley: float = Field(description="its share of mahalanobis_squared (Shapley value): they sum to it")
    shapley_odds: float = Field(description="its share of the log odds of being an outlier (Shapley value)")
    conditional_z: float = Field(description="sd from what the image's other latents lead one to expect")
    marginal_z: float = Field(description="sd from the context's middle")
    dead: bool = Field(description="the model does not use this latent: it never counts")


class FactorAttribution(_Record):
    """The same, summed over the latents that follow one factor."""

    factor: str
    shapley: float
    shapley_odds: float


class Interaction(_Record):
    """What two latents, or one by itself, add to mahalanobis_squared beyond what their parts do."""

    latents: tuple[str, str]
    value: float


class HeatMap(_Record):
    latent: str
    image: str = Field(description="base64 of a PNG: the image, with what its latent's value rests on in colour")


class Neighbour(_Record):
    """Another image of the batch, and how near it is."""

    id: str
    index: int
    distance: float = Field(
        description="between the two images' latents, in standard deviations of the population; 0 for exact copies"
    )


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
    is_foreign: bool | None = Field(default=None, description="unlike anything that the model has seen")
    reason: str | None = Field(default=None, description="one sentence on why it does or does not fit, where asked for")
    attributions: list[LatentAttribution] | None = Field(
        default=None, description="where asked for: the latents, those that speak most for an outlier first"
    )
    minimal_set: list[str] | None = Field(
        default=None, description="the fewest latents whose repair makes the image fit (/explain)"
    )
    factors: list[FactorAttribution] | None = Field(default=None, description="by factor (/explain)")
    interactions: list[Interaction] | None = Field(default=None, description="by pair, where asked for (/explain)")
    heat_maps: list[HeatMap] | None = Field(
        default=None, description="of the latents of its minimal set, then of its top latents (/explain)"
    )
    nearest: list[Neighbour] | None = Field(
        default=None, description="where asked for: the nearest other images of the batch, the nearest first"
    )
    error: ErrorDetail | None = Field(default=None, description="only where status is error")


class ImageGroup(_Record):
    """Images of a batch that are alike, and apart from the rest of it."""

    members: list[int] = Field(description="their `index`, rising")
    share: float = Field(description="of the images that were compared")
    latents: list[str] = Field(description="what tells them from the rest, the most telling first")
    misfit_probability: float = Field(
        description="that they are misfits, by their number, rather than one of several kinds that are equally common"
    )


class ScoreResponse(ScoredItems, _Record):
    bundle_id: str
    model: str
    context: ScoredContext
    groups: list[ImageGroup] = Field(default=[], description="images that are alike and apart from the rest")
    duplicates: list[list[int]] | None = Field(
        default=None,
        description="where asked for: sets of images that the encoder cannot tell apart, by their `index`, rising",
    )
    items: list[ScoredItem]


class Distances(_Record):
    """Squared Mahalanobis distances to the context."""

    before: float | None = Field(description="of the image that was begun with; null where there was none")
    after: float = Field(description="of the edited latents")
    reencoded: float = Field(description="of the latents that the encoder finds in the decoded picture")


class Picture(_Record):
    """One decoded picture, with what it was decoded from."""

    id: str
    index: int | None = Field(description="the request's image that it was made from; null where there is none")
    changed: list[str] = Field(description="latents that differ from the image that was begun with")
    latents: list[float] = Field(description="what was decoded")
    mahalanobis_squared: Distances | None = Field(description="null for /decode, which has no context")
    inside: bool | None = Field(description="whether the re-encoded picture fits the context")
    exemplar: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="the image of the batch that is shown, where the model cannot draw",
    )
    image: str | None = Field(default=None, description="base64 of a PNG")


class PicturesResponse(ShownPictures, _Record):
    bundle_id: str
    model: str
    context: ScoredContext | None
    latents: list[str] = Field(description="the latents' names, in the order of `pictures[].latents`")
    pictures: list[Picture]
    errors: dict[str, ErrorDetail] = Field(description=ERRORS)


class EncodedItem(_Record):
    index: int
    id: str
    status: Literal["ok", "error"]
    mean: list[float] | None
    logvar: list[float] | None
    error: ErrorDetail | None = None


class EncodeResponse(_Record):
    bundle_id: str
    model: str
    latents: list[str]
    warnings: list[str] = Field(default=[], description="of how the images were read")
    items: list[EncodedItem]


class Limits(_Record):
    """The settings that bound one request, and all of them together."""

    max_images: int
    max_body_bytes: int
    max_image_pixels: int
    max_rows_in_flight: int
    max_bytes_in_flight: int
    timeout_seconds: float
    max_stream_images: int = Field(description="in one gRPC stream")


class Description(_Record):
    bundle_id: str
    model: str
    image: ImageSpec
    latent_dim: int
    latents: list[Latent]
    metrics: dict[str, object]
    estimators: list[EstimatorName]
    default_estimator: EstimatorName
    provider: str = Field(description="the ONNX Runtime execution provider that runs the networks")
    limits: Limits
    capabilities: Capabilities = Field(description="what the model can do, beside encoding images")
    trained_on: str = Field(description="the images that the model knows")
    drawing: str = Field(description="how well it draws images that it was not trained on")
    remarks: list[str] = Field(description="what is wrong with the model, as sentences")
