"""What /docs.json publishes: one valid OpenAPI 3.1 document of everything that the service answers.

BentoML derives its own from the endpoints' types, but with a type "file" that OpenAPI does not know, with
its own error bodies, and with one media type of the five.
"""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import version
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.api.options import (
    EditOptions,
    EncodeOptions,
    ExplainOptions,
    FitOptions,
    InterpolateOptions,
    Options,
    SampleOptions,
    ScoreOptions,
    TraverseOptions,
)
from service.api.schemas import (
    Description,
    EncodeResponse,
    ErrorResponse,
    FitResponse,
    PicturesResponse,
    PortableContext,
    ScoreResponse,
)
from service.transports.error_status import STATUS
from service.transports.http.body_parsers import MEDIA_TYPES
from service.transports.http.responses import JSON, PNG, ZIP

Schema = dict[str, Any]


class Endpoint(NamedTuple):
    """An endpoint that takes images."""

    summary: str
    options: type[Options]
    response: type[BaseModel]

    @property
    def pictured(self) -> bool:
        return self.response is PicturesResponse or self.options is ExplainOptions


ENDPOINTS: dict[str, Endpoint] = {
    "score": Endpoint(
        "Score every image by how far it lies from the others, or from a reference set.", ScoreOptions, ScoreResponse
    ),
    "explain": Endpoint("Score every image, and say why.", ExplainOptions, ScoreResponse),
    "fit": Endpoint("The context that the images make, merged with those sent along.", FitOptions, FitResponse),
    "edit": Endpoint("What the images would look like if they belonged.", EditOptions, PicturesResponse),
    "traverse": Endpoint(
        "Pictures along every live latent, the named ones or a plane of two.", TraverseOptions, PicturesResponse
    ),
    "interpolate": Endpoint("Pictures on the way between two images.", InterpolateOptions, PicturesResponse),
    "sample": Endpoint("New pictures that belong to the context.", SampleOptions, PicturesResponse),
    "encode": Endpoint("The latents of every image.", EncodeOptions, EncodeResponse),
}

_REF = "#/components/schemas/{model}"
_FILE: Schema = {"type": "string", "format": "binary"}
_BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
_PICTURE_FILES = {
    PNG: {"schema": {**_FILE, "description": "all pictures on one sheet"}},
    ZIP: {"schema": {**_FILE, "description": "a PNG for each picture, and answer.json"}},
}
_MODELS: list[tuple[type[BaseModel], JsonSchemaMode]] = [
    *((endpoint.options, "validation") for endpoint in ENDPOINTS.values()),
    *((model, "validation") for model in (ScoreResponse, FitResponse, PicturesResponse, EncodeResponse)),
    (PortableContext, "validation"),
    (Description, "validation"),
    (ErrorResponse, "validation"),
]


def document() -> Schema:
    """The OpenAPI document."""
    _, schemas = models_json_schema(_MODELS, ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "misfit",
            "version": version("misfit"),
            "description": "Finds the images that do not belong in their batch, says why, and shows them mended.",
        },
        "servers": [{"url": "."}],
        "paths": {
            **{f"/{name}": {"post": _of_images(name, endpoint)} for name, endpoint in ENDPOINTS.items()},
            "/decode": {"post": _decode()},
            "/describe": {"post": _describe()},
            "/livez": {"get": _probe("livez", "Whether the service, with its networks' process, is alive.")},
            "/readyz": {"get": _probe("readyz", "Whether requests can be answered.")},
            "/metrics": {"get": _probe("metrics", "Prometheus metrics.")},
        },
        "components": {"schemas": schemas["$defs"]},
    }


def _of_images(name: str, endpoint: Endpoint) -> Schema:
    encodings = {"multipart/form-data": _form(_FILE, endpoint), JSON: _form(_BASE64, endpoint)}
    return {
        "operationId": name,
        "summary": endpoint.summary,
        "description": (
            "Images come as files, as a uint8 array (N, H, W) or (N, H, W, C) in an npy, or in a zip or tar. "
            "In an archive, what lies in a folder `reference` or is called `reference.npy` is the reference set, "
            "and `context.json` a context that /fit answered."
        ),
        "parameters": [_option(option, schema) for option, schema in _option_schemas(endpoint.options).items()],
        "requestBody": {
            "required": True,
            "content": {media_type: {"schema": encodings.get(media_type, _FILE)} for media_type in MEDIA_TYPES},
        },
        "responses": _responses(endpoint.response, pictured=endpoint.pictured),
    }


def _decode() -> Schema:
    latents = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}, "minItems": 1}
    table = {"type": "object", "properties": {"latents": latents}, "required": ["latents"]}
    return {
        "operationId": "decode",
        "summary": "The pictures of latents.",
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": table}, "application/x-npy": {"schema": _FILE}},
        },
        "responses": _responses(PicturesResponse, pictured=True),
    }


def _describe() -> Schema:
    return {
        "operationId": "describe",
        "summary": "The model, its latents, the limits, and where the networks run.",
        "responses": _responses(Description),
    }


def _form(image: Schema, endpoint: Endpoint) -> Schema:
    images = {"type": "array", "items": image, "minItems": 1}
    contexts = {"anyOf": [_ref(PortableContext), {"type": "array", "items": _ref(PortableContext)}]}
    properties = {"images": images, "reference": images, "context": contexts, "options": _ref(endpoint.options)}
    return {
        "type": "object",
        "properties": properties,
        "required": ["images"] if endpoint.options.images_needed == "always" else [],
        "additionalProperties": False,
    }


def _option_schemas(options: type[Options]) -> Schema:
    schema: Schema = options.model_json_schema(ref_template=_REF)["properties"]
    return schema


def _option(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": schema.get("description", name)}


def _responses(model: type[BaseModel], *, pictured: bool = False) -> Schema:
    refused = {JSON: {"schema": _ref(ErrorResponse)}}
    statuses = sorted({status.http for status in STATUS.values()} - {HTTPStatus.UNAUTHORIZED})
    return {
        "200": {
            "description": "OK",
            "content": {JSON: {"schema": _ref(model)}, **(_PICTURE_FILES if pictured else {})},
        },
        **{str(status.value): {"description": status.phrase, "content": refused} for status in statuses},
    }


def _probe(name: str, summary: str) -> Schema:
    answers = {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    refused = {JSON: {"schema": _ref(ErrorResponse)}}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {**answers, "503": {"description": "Service Unavailable", "content": refused}},
    }


def _ref(model: type[BaseModel]) -> Schema:
    return {"$ref": _REF.format(model=model.__name__)}
