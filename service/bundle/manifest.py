"""manifest.json as types: what the model is, and the hash of every other file of the bundle."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, JsonValue, model_validator

from service.core.latent import Latent
from service.core.types import DEFAULT_ESTIMATOR, EstimatorName
from service.frozen_model import FrozenModel

FORMAT_VERSION = 1

# What a kind of model is: a VAE, or a pretrained encoder with a projection to few latents.
Kind = Literal["vae", "backbone"]

ENCODER = "encoder.onnx"
ENCODER_INT8 = "encoder.int8.onnx"  # optional: the same with most convolutions in int8, for MISFIT_PRECISION=int8
DECODER = "decoder.onnx"  # optional: without it the service draws no pictures and checks nothing by reconstruction
# What the data sets are called in sentences.
KNOWN_DATA = {
    "shapes3d": "3D Shapes",
    "dsprites": "dSprites",
    "mnist": "the handwritten digits of MNIST",
    "folder": "one folder of its owner's images",
}
# What an int8 encoder may lose: a share of flags, the mean AUROC, and that of the worst tenth of the contexts.
MOST_FLAGS_CHANGED, MOST_AUROC_LOST, MOST_WORST_AUROC_LOST = 0.005, 0.0005, 0.002
SALIENCY = "saliency.onnx"  # optional: without it the service draws no heat maps
SCREEN = "screen.onnx"  # optional: without it the foreign check decodes every image


FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]  # never a path
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Version(BaseModel):
    """The only field that is read of a manifest of another version."""

    format_version: int


class ImageSpec(FrozenModel):
    """The images that the encoder takes. The service converts and resizes other images to it."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: Literal[1, 3]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


class Parity(FrozenModel):
    """The largest differences between PyTorch and ONNX Runtime that export measured. Export refuses larger ones."""

    batch_sizes: tuple[int, ...]
    latents_relative: float = Field(ge=0)  # relative to the scale of the mean or logvar tensor
    pixels_grey_levels: int = Field(ge=0)
    # Relative to the scale of the maps of all latents. Absent in a bundle without saliency.onnx.
    saliency_relative: float | None = Field(default=None, ge=0, exclude_if=lambda value: value is None)


class Screen(FrozenModel):
    """The graph that decides which images the foreign check need not decode.

    cutoff  images whose coarse error is at most this are not decoded: they are not out of distribution
    """

    sha256: Sha256
    cutoff: float = Field(gt=0)


class Int8Loss(FrozenModel):
    """What the int8 encoder loses beside the float32 one, on contexts with misfits one level off.

    contexts       so many were rendered
    flags_changed  share of their images that are flagged otherwise
    auroc          loss of the mean AUROC; `worst_auroc` that of the worst tenth
    """

    contexts: int = Field(gt=0)
    flags_changed: float = Field(ge=0, le=1)
    auroc: float
    worst_auroc: float

    @property
    def is_nothing(self) -> bool:
        """Return whether it is within the goals."""
        is_ranking_kept = self.auroc <= MOST_AUROC_LOST and self.worst_auroc <= MOST_WORST_AUROC_LOST
        return is_ranking_kept and self.flags_changed <= MOST_FLAGS_CHANGED


class Int8(FrozenModel):
    """The encoder in int8, and what its export measured.

    difference  of the latents' means from float32's, over images that the decoder draws: root mean square, in standard
                deviations of the population
    loss        None where no contexts can be rendered
    """

    sha256: Sha256
    difference: float = Field(gt=0)
    loss: Int8Loss | None = None

    @property
    def loses_nothing(self) -> bool:
        """Return whether the export found that it loses nothing: only then MISFIT_PRECISION=auto takes it."""
        return self.loss is not None and self.loss.is_nothing


class Capabilities(FrozenModel):
    """What a model can do, beside encoding images."""

    can_decode: bool = Field(description="draw images from latents: edits, traversals, samples, the foreign check")
    has_saliency: bool = Field(description="draw heat maps")
    has_uncertainty: bool = Field(description="say how exactly it knows each latent: logvar is the model's own")


class Manifest(FrozenModel):
    """What the model is, how it was trained and exported, and the hash of every other file."""

    format_version: int
    bundle_id: str = (
        ""  # sha256 of this manifest without this field, `screen` and `int8`; it holds every other file's hash
    )
    model: str
    kind: Kind = Field(default="vae", exclude_if=lambda value: value == "vae")
    image: ImageSpec
    latent_dim: int = Field(gt=0)
    latents: tuple[Latent, ...]
    # The estimator for requests that name none. Absent where it is None, which stands for DEFAULT_ESTIMATOR.
    estimator: EstimatorName | None = Field(default=None, exclude_if=lambda value: value is None)
    files: dict[FileName, Sha256] = Field(default={})  # sha256 by name; `store.write` fills it in
    # No answer depends on it, and so neither does `bundle_id`.
    screen: Screen | None = Field(default=None, exclude_if=lambda value: value is None)
    # Where it runs, `bundle_id` is another one: see `in_int8`.
    int8: Int8 | None = Field(default=None, exclude_if=lambda value: value is None)
    parity: Parity
    metrics: dict[str, JsonValue]
    training: dict[str, JsonValue]
    data: dict[str, JsonValue]
    licence: str

    @model_validator(mode="after")
    def _latents_are_complete(self) -> Self:
        if [latent.index for latent in self.latents] != list(range(self.latent_dim)):
            raise ValueError(f"latents must describe the dimensions 0..{self.latent_dim - 1} in order")
        if len({latent.name for latent in self.latents}) != self.latent_dim:
            raise ValueError("latent names must differ from each other")
        return self

    @property
    def default_estimator(self) -> EstimatorName:
        return self.estimator or DEFAULT_ESTIMATOR

    @property
    def dead_dims(self) -> tuple[int, ...]:
        return tuple(latent.index for latent in self.latents if latent.dead)

    @property
    def can_check(self) -> bool:
        """Return whether the model can tell how far an image is from everything that it knows."""
        return DECODER in self.files or self.kind == "backbone"

    @property
    def trained_on(self) -> str:
        """Return what the model was trained on, in words that follow "knows" and "was trained on"."""
        name = str(self.data.get("name", self.model))
        if self.kind == "backbone":
            return f"the photographs of {name}"
        return KNOWN_DATA.get(name, f"the images of {name}")

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            can_decode=DECODER in self.files,
            has_saliency=SALIENCY in self.files or self.kind == "backbone",
            has_uncertainty=self.kind == "vae",
        )

    def in_int8(self) -> Self:
        """Return the manifest of the same bundle with its int8 encoder, which has an id of its own."""
        assert self.int8 is not None, "only bundles with such an encoder run it"
        identity = f"{self.bundle_id}{self.int8.sha256}"
        return self.model_copy(update={"bundle_id": hashlib.sha256(identity.encode()).hexdigest()})

    def content_hash(self) -> str:
        """Return the sha256 of the manifest without `bundle_id`, `screen` and `int8`, as canonical JSON."""
        content = self.model_dump(mode="json", exclude={"bundle_id", "screen", "int8"})
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()
