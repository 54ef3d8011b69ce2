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

from service.api.endpoints import ENDPOINTS, Endpoint
from service.api.options import Options
from service.api.schemas import ErrorResponse, PortableContext
from service.transports.error_status import STATUS
from service.transports.http.body_parsers import MEDIA_TYPES
from service.transports.http.responses import JSON, PNG, ZIP

Schema = dict[str, Any]


_REF = "#/components/schemas/{model}"
_FILE: Schema = {"type": "string", "format": "binary"}
_BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
_PICTURE_FILES = {
    PNG: {"schema": {**_FILE, "description": "all pictures on one sheet"}},
    ZIP: {"schema": {**_FILE, "description": "a PNG for each picture, and answer.json"}},
}
_MODELS: list[tuple[type[BaseModel], JsonSchemaMode]] = [
    *((endpoint.options, "validation") for endpoint in ENDPOINTS.values() if endpoint.options is not None),
    *((answer, "validation") for answer in dict.fromkeys(endpoint.answer for endpoint in ENDPOINTS.values())),
    (PortableContext, "validation"),
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
            **{f"/{name}": {"post": _operation(endpoint)} for name, endpoint in ENDPOINTS.items()},
            "/livez": {"get": _probe("livez", "Whether the service, with its networks' process, is alive.")},
            "/readyz": {"get": _probe("readyz", "Whether requests can be answered.")},
            "/metrics": {"get": _probe("metrics", "Prometheus metrics.")},
        },
        "components": {"schemas": schemas["$defs"]},
    }


def _operation(endpoint: Endpoint) -> Schema:
    request = {"images": _images_request, "latents": _latents_request, "nothing": _empty_request}[endpoint.takes]
    return {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        **request(endpoint),
        "responses": _responses(endpoint.answer, has_pictures=endpoint.has_pictures),
    }


def _images_request(endpoint: Endpoint) -> Schema:
    encodings = {"multipart/form-data": _form(_FILE, endpoint), JSON: _form(_BASE64, endpoint)}
    return {
        "description": (
            "Images come as files, as a uint8 array (N, H, W) or (N, H, W, C) in an npy, or in a zip or tar. "
            "In an archive, what lies in a folder `reference` or is called `reference.npy` is the reference set, "
            "and `context.json` a context that /fit answered."
        ),
        "parameters": [_option(name, schema) for name, schema in _option_schemas(endpoint.image_options).items()],
        "requestBody": {
            "required": True,
            "content": {media_type: {"schema": encodings.get(media_type, _FILE)} for media_type in MEDIA_TYPES},
        },
    }


def _latents_request(endpoint: Endpoint) -> Schema:
    latents = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}, "minItems": 1}
    table = {"type": "object", "properties": {"latents": latents}, "required": ["latents"]}
    return {
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": table}, "application/x-npy": {"schema": _FILE}},
        },
    }


def _empty_request(endpoint: Endpoint) -> Schema:
    return {}


def _form(image: Schema, endpoint: Endpoint) -> Schema:
    images = {"type": "array", "items": image, "minItems": 1}
    contexts = {"anyOf": [_ref(PortableContext), {"type": "array", "items": _ref(PortableContext)}]}
    properties = {"images": images, "reference": images, "context": contexts, "options": _ref(endpoint.image_options)}
    return {
        "type": "object",
        "properties": properties,
        "required": ["images"] if endpoint.image_options.images_needed == "always" else [],
        "additionalProperties": False,
    }


def _option_schemas(options: type[Options]) -> Schema:
    schema: Schema = options.model_json_schema(ref_template=_REF)["properties"]
    return schema


def _option(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": schema.get("description", name)}


def _responses(model: type[BaseModel], *, has_pictures: bool) -> Schema:
    refused = {JSON: {"schema": _ref(ErrorResponse)}}
    statuses = sorted({status.http for status in STATUS.values()} - {HTTPStatus.UNAUTHORIZED})
    return {
        "200": {
            "description": "OK",
            "content": {JSON: {"schema": _ref(model)}, **(_PICTURE_FILES if has_pictures else {})},
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
