"""What /docs.json publishes: one valid OpenAPI 3.1 document of everything that the service answers.

BentoML derives its own from the endpoints' types, but with a type "file" that OpenAPI does not know, with
its own error bodies, and with one media type of the five.
"""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.requests import MEDIA_TYPES
from service.schemas import Description, ErrorResponse, ScoreOptions, ScoreResponse
from service.status import STATUS

Schema = dict[str, Any]

_REF = "#/components/schemas/{model}"
_FILE: Schema = {"type": "string", "format": "binary"}
_BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
_MODELS: list[tuple[type[BaseModel], JsonSchemaMode]] = [
    (ScoreOptions, "validation"),
    (ScoreResponse, "validation"),
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
            "description": "Finds the images that do not belong in their batch.",
        },
        "servers": [{"url": "."}],
        "paths": {
            "/score": {"post": _score()},
            "/describe": {"post": _describe()},
            "/livez": {"get": _probe("livez", "Whether the service, with its networks' process, is alive.")},
            "/readyz": {"get": _probe("readyz", "Whether requests can be answered.")},
            "/metrics": {"get": _probe("metrics", "Prometheus metrics.")},
        },
        "components": {"schemas": schemas["$defs"]},
    }


def _score() -> Schema:
    options = _ref(ScoreOptions)
    encodings = {"multipart/form-data": _form(_FILE, options), "application/json": _form(_BASE64, options)}
    return {
        "operationId": "score",
        "summary": "Score every image by how far it lies from the others, or from a reference set.",
        "description": (
            "Images come as files, as a uint8 array (N, H, W) or (N, H, W, C) in an npy, or in a zip or tar. "
            "In an archive, what lies in a folder `reference` or is called `reference.npy` is the reference set."
        ),
        "parameters": [_option(name, schema) for name, schema in _option_schemas().items()],
        "requestBody": {
            "required": True,
            "content": {media_type: {"schema": encodings.get(media_type, _FILE)} for media_type in MEDIA_TYPES},
        },
        "responses": _responses(ScoreResponse),
    }


def _describe() -> Schema:
    return {
        "operationId": "describe",
        "summary": "The model, its latents, the limits, and where the networks run.",
        "responses": _responses(Description),
    }


def _form(image: Schema, options: Schema) -> Schema:
    images = {"type": "array", "items": image, "minItems": 1}
    properties = {"images": images, "reference": images, "options": options}
    return {
        "type": "object",
        "properties": properties,
        "required": ["images"],
        "additionalProperties": False,
    }


def _option_schemas() -> Schema:
    schema: Schema = ScoreOptions.model_json_schema(ref_template=_REF)["properties"]
    return schema


def _option(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": schema.get("description", name)}


def _responses(model: type[BaseModel]) -> Schema:
    refused = {"application/json": {"schema": _ref(ErrorResponse)}}
    statuses = sorted({status.http for status in STATUS.values()} - {HTTPStatus.UNAUTHORIZED})
    return {
        "200": {"description": "OK", "content": {"application/json": {"schema": _ref(model)}}},
        **{str(status.value): {"description": status.phrase, "content": refused} for status in statuses},
    }


def _probe(name: str, summary: str) -> Schema:
    answers = {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    refused = {"application/json": {"schema": _ref(ErrorResponse)}}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {**answers, "503": {"description": "Service Unavailable", "content": refused}},
    }


def _ref(model: type[BaseModel]) -> Schema:
    return {"$ref": _REF.format(model=model.__name__)}
