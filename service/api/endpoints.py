"""The one table of endpoints. HTTP routes, the OpenAPI document, gRPC methods and the client's calls are made from it.

An endpoint's name is its path in HTTP (`/score`), its method in gRPC (`Score`), and the method of
`service.pipeline.pipeline.Pipeline` that does the work (`score`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from service.api.options import (
    EditOptions,
    EncodeOptions,
    ExplainOptions,
    FitOptions,
    InterpolateOptions,
    Options,
    SampleOptions,
    ScoreOptions,
    ScoreSheetOptions,
    TraverseOptions,
)
from service.api.schemas import Description, EncodeResponse, FitResponse, PicturesResponse, ScoreResponse

Input = Literal["images", "latents", "nothing"]
# What an HTTP answer can be beside JSON: one contact sheet, a zip of files, a table with a row for each image.
Form = Literal["sheet", "files", "table"]


@dataclass(frozen=True)
class Endpoint:
    """One endpoint.

    name      in lower case
    summary   one sentence for the OpenAPI document
    answer    the model of its JSON answer
    options   of an endpoint that takes images; the others have none
    takes     what a request brings
    forms     what an answer over HTTP can be beside JSON
    """

    name: str
    summary: str
    answer: type[BaseModel]
    options: type[Options] | None = None
    takes: Input = "images"
    forms: tuple[Form, ...] = ()

    @property
    def grpc_name(self) -> str:
        """Return the name of its gRPC method."""
        return self.name.capitalize()

    @property
    def image_options(self) -> type[Options]:
        """Return the options of an endpoint that takes images. Raises TypeError for any other endpoint."""
        if self.options is None:
            raise TypeError(f"/{self.name} takes {self.takes}, not images: it has no options.")
        return self.options

    @property
    def sheet_options(self) -> type[Options]:
        """Return the options of a request whose answer is a contact sheet: those of /score have a page as well."""
        return ScoreSheetOptions if self.options is ScoreOptions else self.image_options


PICTURES: tuple[Form, ...] = ("sheet", "files")
ENDPOINTS: dict[str, Endpoint] = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint(
            "score",
            "Score every image by how far it lies from the others, or from a reference set.",
            ScoreResponse,
            ScoreOptions,
            forms=("sheet", "table"),
        ),
        Endpoint(
            "explain",
            "Score every image, and say why.",
            ScoreResponse,
            ExplainOptions,
            forms=("sheet", "files", "table"),
        ),
        Endpoint("fit", "The context that the images make, merged with those sent along.", FitResponse, FitOptions),
        Endpoint(
            "edit",
            "What the images would look like if they belonged.",
            PicturesResponse,
            EditOptions,
            forms=PICTURES,
        ),
        Endpoint(
            "traverse",
            "Pictures along every live latent, the named ones or a plane of two.",
            PicturesResponse,
            TraverseOptions,
            forms=PICTURES,
        ),
        Endpoint(
            "interpolate",
            "Pictures on the way between two images.",
            PicturesResponse,
            InterpolateOptions,
            forms=PICTURES,
        ),
        Endpoint("sample", "New pictures that belong to the context.", PicturesResponse, SampleOptions, forms=PICTURES),
        Endpoint("encode", "The latents of every image.", EncodeResponse, EncodeOptions),
        Endpoint("decode", "The pictures of latents.", PicturesResponse, takes="latents", forms=PICTURES),
        Endpoint(
            "describe",
            "The model, its latents, the limits, and where the networks run.",
            Description,
            takes="nothing",
        ),
    )
}
