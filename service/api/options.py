"""The options of each endpoint. Every option has a default, a range and a description."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, model_validator
from pydantic_core import from_json

from service.bundle.manifest import ImageSpec
from service.bundle.store import Bundle
from service.core.types import EstimatorName
from service.images.spec import Pages, RangeChoice, Resize

# Pictures and heat maps that one answer may hold, and how many pixels all of them: 1000 of up to 126 x 126.
MOST_PICTURES, MOST_PICTURE_PIXELS = 1000, 16_000_000
# The most neighbours that an answer names of each image.
MOST_NEAREST = 10
# Images on one page of the contact sheet of /score.
SHEET_IMAGES = 200
# What an endpoint can do without images: nothing; whatever a context allows.
ImagesNeeded = Literal["always", "unless context"]


def _split_list(value: Any) -> Any:
    """Split a query's text: "floor hue, scale" is a list of two, and so is its JSON. A number is a list of one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    if not isinstance(value, str):
        return value
    if value.startswith("["):
        with suppress(ValueError):
            return from_json(value)
    return [word.strip() for word in value.split(",")]


def _parse_object(text: Any) -> Any:
    """Parse a query's text: {"scale": 1.5} is an object."""
    return from_json(text) if isinstance(text, str) else text


def most_pictures(image: ImageSpec) -> int:
    """Return how many pictures, or heat maps, one answer may hold, given the size of the bundle's images."""
    return max(1, min(MOST_PICTURES, MOST_PICTURE_PIXELS // (image.height * image.width)))


# Far more latents than a model has: each one that is named is looked up.
LatentChoice = Annotated[int | str, Field(union_mode="left_to_right")]
LatentChoices = Annotated[list[LatentChoice], Field(max_length=MOST_PICTURES), BeforeValidator(_split_list)]
LatentValues = Annotated[dict[str, float], Field(max_length=MOST_PICTURES), BeforeValidator(_parse_object)]
# "0015" stays a text: ids are texts, and so are places (`service.api.image_names`).
ImageChoice = Annotated[StrictInt | str, Field(description="an image's id, or its place as index:15")]
ImageChoices = Annotated[list[ImageChoice], Field(max_length=MOST_PICTURES), BeforeValidator(_split_list)]


class Options(BaseModel):
    """What every endpoint that takes images knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    images_needed: ClassVar[ImagesNeeded] = "always"
    takes_reference: ClassVar[bool] = False

    resize: Resize = Field(
        default="fit", description='"fit" resizes other sizes to the model\'s, "reject" refuses them'
    )
    range: RangeChoice = Field(
        default="file",
        description="which samples are black and white in images of other than 8 bits, the same in all images of the "
        'request: "file" what the files state, or else the range that the images seem to be made for; "batch" the '
        'lowest and the highest of all; "full" what their type can hold, of floats 0 to 1',
    )
    pages: Pages = Field(
        default="first", description='of files of several pages or frames "first" reads one, "all" each as an image'
    )

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_no_truth_values(cls, values: Any) -> Any:
        """Refuse true as a number: pydantic would take it for 1."""
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields and cls.model_fields[name].annotation is not bool:
                raise ValueError(f"{name} is {str(value).lower()}, expected a number or a word")
        return values

    @property
    def pictures(self) -> int:
        """Return how many pictures to decode beside the request's own images."""
        return 0


class EncodeOptions(Options):
    """How to encode."""


class FitOptions(Options):
    """How to fit a context; every option may be left out."""

    images_needed: ClassVar[ImagesNeeded] = "unless context"

    estimator: EstimatorName | None = Field(
        default=None, description="how the context is estimated; by default the bundle's `default_estimator`"
    )
    foreign: Literal["flag", "off"] = Field(
        default="flag",
        description='"flag" checks each image against its reconstruction, and keeps out of the context what the model '
        'has seen nothing like; "off" skips the check',
    )


class ScoringOptions(FitOptions):
    """How to score."""

    images_needed: ClassVar[ImagesNeeded] = "always"
    takes_reference: ClassVar[bool] = True

    threshold: float = Field(
        default=0.5, ge=0, le=1, description="an image whose outlier_probability is above it is flagged"
    )
    fdr: float | None = Field(
        default=None, gt=0, le=1, description="flag by false discovery rate instead: the expected share of wrong flags"
    )

    @model_validator(mode="after")
    def _one_rule_flags(self) -> Self:
        # A client may send every default along with what its user has set.
        if self.fdr is not None and self.threshold != type(self).model_fields["threshold"].default:
            raise ValueError("threshold and fdr are two rules for flagging: give one of them")
        return self


class ComparingOptions(ScoringOptions):
    """How to score, and whether to say which images of the batch are near each other."""

    nearest: int = Field(
        default=0, ge=0, le=MOST_NEAREST, description="how many of the batch's nearest other images each item names"
    )
    duplicates: Literal["off", "groups"] = Field(
        default="off", description='"groups" lists the sets of images that the encoder cannot tell apart'
    )

    @property
    def has_reasons(self) -> bool:
        """Return whether the answer gives reasons."""
        return True


class ScoreOptions(ComparingOptions):
    """How to score; every option may be left out."""

    attributions: Literal["none", "top", "all"] = Field(
        default="none", description="which latents each score is shared out to: none, the `top` ones, or all"
    )
    top: int = Field(default=3, ge=1, description="how many latents count as top")

    @property
    def has_reasons(self) -> bool:
        return self.attributions != "none"


class ScoreSheetOptions(ScoreOptions):
    """How to score where the answer is a contact sheet."""

    page: int = Field(
        default=1,
        ge=1,
        description=f"of the contact sheet (Accept: image/png): which {SHEET_IMAGES} images, the most outlying first",
    )


class ExplainOptions(ComparingOptions):
    """How to explain; every option may be left out."""

    attributions: Literal["top", "all"] = Field(default="all", description="the `top` latents of each image, or all")
    top: int = Field(default=3, ge=1, description="how many latents count as top, and get a heat map")
    heat_maps: Literal["none", "flagged", "all"] = Field(
        default="flagged",
        description="for which images to show where the top latents look: of all, if that makes at most "
        f"{MOST_PICTURES} maps, or of the most outlying of those that are flagged, as far as that number reaches",
    )
    interactions: bool = Field(default=False, description="also share each squared distance out to pairs of latents")


def maps_of_image(options: ExplainOptions, bundle: Bundle) -> int:
    """Return how many heat maps an image gets, where it gets any: one for each of its top latents that are live."""
    return min(options.top, len(bundle.population.live_dims))


class EditOptions(ScoringOptions):
    """What to edit, and how."""

    edit: Literal["counterfactual", "project", "set", "shift"] = Field(
        default="counterfactual",
        description="counterfactual: put `latents` (by default the fewest that make the image fit) where the image's "
        "others lead one to expect them; project: the nearest latents within the context; set: latents to `values`; "
        "shift: latents by `values`",
    )
    which: Literal["flagged", "all"] | ImageChoices = Field(
        default="flagged",
        description="the images to edit: the flagged ones, all, or a list of ids, or of places as index:15",
    )
    latents: LatentChoices | None = Field(default=None, description="for counterfactual: the latents to change")
    values: LatentValues = Field(
        default={}, description="for set and shift: a number for each latent, by name or index"
    )
    unit: Literal["latent", "sd", "quantile"] = Field(
        default="sd", description="what `values` are: the latent's own units, the context's sd, or its quantiles"
    )

    @model_validator(mode="after")
    def _the_edit_has_what_it_needs(self) -> Self:
        moves = self.edit in ("set", "shift")
        if moves != bool(self.values):
            raise ValueError('set and shift need values, as in {"scale": 1.5}, and the other edits take none')
        if self.latents is not None and (self.edit != "counterfactual" or not self.latents):
            raise ValueError("latents is a list of at least one latent, and for counterfactual only")
        return self


class TraverseOptions(ScoringOptions):
    """Which latents to vary, and over what range."""

    images_needed: ClassVar[ImagesNeeded] = "unless context"

    latents: LatentChoices | None = Field(
        default=None,
        min_length=1,
        description="each gets a row of pictures, or with `plane` two of them a grid; by default every live latent",
    )
    plane: bool = Field(default=False, description="vary two latents at once, the first downwards, the second across")
    steps: int = Field(default=7, ge=2, le=MOST_PICTURES, description="pictures in a row")
    span: float = Field(default=2, gt=0, le=1000, description="sd on each side of the middle")
    span_of: Literal["context", "population"] = Field(
        default="context", description="whose middle and sd the span is measured in"
    )
    start: ImageChoice | None = Field(
        default=None,
        description="the image to begin from, by id or place (index:15); by default the most typical, or without "
        "images the context's middle",
    )

    @model_validator(mode="before")
    @classmethod
    def _former_name(cls, values: Any) -> Any:
        """Read the words of `span_of` under the name that it once had."""
        if isinstance(values, dict) and values.get("range") in ("context", "population") and "span_of" not in values:
            return {name: value for name, value in values.items() if name != "range"} | {"span_of": values["range"]}
        return values

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if self.pictures > MOST_PICTURES:
            raise ValueError(f"{self.pictures} pictures in {self.steps} steps: at most {MOST_PICTURES} are drawn")
        return self

    @property
    def pictures(self) -> int:
        """Return how many pictures to decode; the least number if the model decides how many latents there are."""
        return self.steps * (self.steps if self.plane else len(self.latents or [0]))


class InterpolateOptions(ScoringOptions):
    """Between which two images to go, in how many frames."""

    start: ImageChoice = Field(default="index:0", description="the first image, by id or place")
    end: ImageChoice = Field(default="index:1", description="the last image, by id or place")
    frames: int = Field(default=8, ge=2, le=MOST_PICTURES, description="pictures, both ends included")

    @property
    def pictures(self) -> int:
        return self.frames


class SampleOptions(ScoringOptions):
    """How many new images to draw, and from what."""

    images_needed: ClassVar[ImagesNeeded] = "unless context"

    count: int = Field(default=8, ge=1, le=MOST_PICTURES, description="pictures to draw")
    method: Literal["empirical", "gaussian"] = Field(
        default="empirical",
        description="empirical: near one of the request's normal images; gaussian: from the context's own distribution",
    )
    seed: int = Field(default=0, ge=0, description="the same seed draws the same pictures")

    @property
    def pictures(self) -> int:
        return self.count
