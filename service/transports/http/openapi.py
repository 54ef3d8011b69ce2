"""The OpenAPI 3.1 document of all that the service answers, published as /docs.json, but for /v2.

The Open Inference Protocol has a document of its own, and clients that are written already.

BentoML derives one from the endpoints' types, but with a type "file" that OpenAPI does not know, its own error bodies,
and one media type of the five. Clients are generated from this one (`make clients`): a generator takes the first media
type of each body, and sends the defaults of parameters along.
"""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.api.contexts.portable import PortableContext
from service.api.endpoints import ENDPOINTS, Endpoint, Form
from service.api.options import Options
from service.api.schemas import ErrorResponse
from service.api.wire import REQUEST_ID, RETRY_AFTER
from service.transports.error_status import STATUS
from service.transports.http.body_parsers import MEDIA_TYPES
from service.transports.http.negotiation import CSV, JSON, PNG, ZIP
from service.transports.http.openapi_examples import ANSWERS, ERROR, LATENTS

Schema = dict[str, Any]


_REF = "#/components/schemas/{model}"
_FILE: Schema = {"type": "string", "format": "binary"}
_BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
_FORMS: dict[Form, Schema] = {
    "sheet": {PNG: {"schema": {**_FILE, "description": "all pictures on one sheet"}}},
    "files": {ZIP: {"schema": {**_FILE, "description": "a PNG for each picture, and answer.json"}}},
    "table": {CSV: {"schema": {"type": "string", "description": "a line for each image, under a line of names"}}},
}
_WIDTHS = {"number": "double", "integer": "int64"}
_TAGS = {
    "images": "Which images do not belong in their batch, and why.",
    "pictures": "Pictures that the model draws: images repaired, latents varied.",
    "model": "The model that is served.",
    "operations": "Probes and metrics. They need no token.",
}
_TAG_OF = {"fit": "images", "encode": "model", "describe": "model"}
_MODELS: list[tuple[type[BaseModel], JsonSchemaMode]] = [
    *((endpoint.options, "validation") for endpoint in ENDPOINTS.values() if endpoint.options is not None),
    *((answer, "validation") for answer in dict.fromkeys(endpoint.answer for endpoint in ENDPOINTS.values())),
    (PortableContext, "validation"),
    (ErrorResponse, "validation"),
]


def document() -> Schema:
    """Return the OpenAPI document."""
    _, schemas = models_json_schema(_MODELS, ref_template=_REF)
    document: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "misfit",
            "version": version("misfit"),
            "description": "Finds the images that do not belong in their batch, says why, and shows them mended.",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "."}],
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
        # A token is needed where the operator gave out tokens.
        "security": [{"bearer": []}, {}],
        "paths": {
            **{f"/{name}": {"post": _operation(endpoint)} for name, endpoint in ENDPOINTS.items()},
            "/livez": {"get": _probe("livez", "Whether the service, with its networks' process, is alive.")},
            "/readyz": {"get": _probe("readyz", "Whether requests can be answered.")},
            "/metrics": {"get": _probe("metrics", "Prometheus metrics.")},
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token that the operator gave out. A service without tokens lets everybody in.",
                }
            },
        },
    }
    for schema in schemas["$defs"].values():
        _describe_defaults(schema)
    _adapt_to_generators(document)
    return document


def _describe_defaults(schema: Schema) -> None:
    """Move each default of a model into the description, in place.

    A TypeScript client takes a property with a default for one that is always there. Go cannot write the default of a
    union. Parameters of the query keep theirs.
    """
    for node in schema.get("properties", {}).values():
        default = node.pop("default", None)
        if isinstance(default, str | int | float):
            text = str(default).lower() if isinstance(default, bool) else str(default)
            node["description"] = f"{node.get('description', '')} (default: {text})".strip()


def _adapt_to_generators(node: Any) -> None:
    """Change schemas, in place, so that generators of clients make something of them that compiles and can be used.

    Numbers get the width that they have here: a Go client would read 32 bits. Titles go: generators name types by them,
    and several properties have the same one. A pair becomes a list of two, since Go has no tuples.
    """
    if isinstance(node, list):
        for each in node:
            _adapt_to_generators(each)
    if not isinstance(node, dict):
        return
    for name, child in node.items():
        if name not in ("example", "examples", "default"):
            _adapt_to_generators(child)
    if (width := _WIDTHS.get(str(node.get("type")))) is not None:
        node.setdefault("format", width)
    if pair := node.pop("prefixItems", None):
        node["items"] = pair[0]
    if isinstance(node.get("title"), str) and "paths" not in node and "version" not in node:
        del node["title"]


def _operation(endpoint: Endpoint) -> Schema:
    request = {"images": _images_request, "latents": _latents_request, "nothing": _empty_request}[endpoint.takes]
    return {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [_TAG_OF.get(endpoint.name, "images" if "table" in endpoint.forms else "pictures")],
        **request(endpoint),
        "responses": _responses(endpoint),
    }


def _images_request(endpoint: Endpoint) -> Schema:
    forms = {"multipart/form-data": _form(_FILE, endpoint), JSON: _form(_BASE64, endpoint)}
    for name in ("images", "reference"):
        del forms["multipart/form-data"]["properties"][name]["minItems"]  # what Go is made of it does not compile
    content = {media_type: {"schema": forms.get(media_type, _FILE)} for media_type in MEDIA_TYPES}
    content["multipart/form-data"]["encoding"] = {name: {"contentType": JSON} for name in ("context", "options")}
    return {
        "description": (
            "Images come as files, as an array (N, H, W) or (N, H, W, C) in an npy, or in a zip or tar. "
            "In an archive, what lies in a folder `reference` or is called `reference.npy` is the reference set, "
            "and `context.json` a context that /fit answered. Options stand in the query or in the body."
        ),
        "parameters": [_option(name, schema) for name, schema in _option_schemas(endpoint.sheet_options).items()],
        "requestBody": {"required": True, "content": content},
    }


def _latents_request(endpoint: Endpoint) -> Schema:
    latents = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}, "minItems": 1}
    table = {"type": "object", "properties": {"latents": latents}, "required": ["latents"]}
    return {
        "description": "Latents are rows of as many numbers as the model has latents, as /encode answers in `mean`.",
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": table, "example": LATENTS}, "application/x-npy": {"schema": _FILE}},
        },
    }


def _empty_request(endpoint: Endpoint) -> Schema:
    return {}


def _form(image: Schema, endpoint: Endpoint) -> Schema:
    images = {"type": "array", "items": image, "minItems": 1}
    properties = {
        "images": {**images, "description": "image files, or npy, zip or tar files of images"},
        "reference": {**images, "description": "normal images to compare with, in the same forms"},
        # Without these examples Swagger UI would send a context that it makes up, and options that exclude each other.
        "context": {
            **_ref(PortableContext),
            "description": "what POST /fit answered as `context`, to compare with instead; more of them are merged",
            "examples": [""],
        },
        "options": {**_ref(endpoint.image_options), "description": "all or some of them", "examples": [{}]},
    }
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
    """Return an option as a parameter of the query, where every value is text: lists with commas, objects as JSON.

    A default that is null, a list or an object is left out: generators would send it, or cannot write it.
    """
    description = schema.get("description", name)
    kinds = [kind for kind in _list_kinds(schema) if kind.get("type") != "null"]
    if any(kind.get("type") == "array" for kind in kinds):
        text: Schema = {"type": "array", "items": {"type": "string"}}
        return {"name": name, "in": "query", "explode": False, "schema": text, "description": description}
    if len(kinds) > 1 or kinds[0].get("type") == "object":
        text = {"type": "string"}
    else:
        text = {key: value for key, value in kinds[0].items() if key not in ("description", "title", "default")}
    if isinstance(default := schema.get("default"), str | int | float):
        text["default"] = str(default) if text == {"type": "string"} else default
    return {"name": name, "in": "query", "schema": text, "description": description}


def _list_kinds(schema: Schema) -> list[Schema]:
    """Return the schemas that a union, which may hold unions, is made of; of another schema, itself."""
    return [kind for each in schema["anyOf"] for kind in _list_kinds(each)] if "anyOf" in schema else [schema]


def _responses(endpoint: Endpoint) -> Schema:
    json: Schema = {"schema": _ref(endpoint.answer)}
    if endpoint.name in ANSWERS:
        json["example"] = ANSWERS[endpoint.name]
    content = {JSON: json}
    for form in endpoint.forms:
        content |= _FORMS[form]
    statuses = sorted({status.http for status in STATUS.values()})
    return {
        "200": {"description": "OK", "headers": _headers(REQUEST_ID), "content": content},
        **{str(status.value): _refusal(status) for status in statuses},
    }


def _refusal(status: HTTPStatus) -> Schema:
    names = [REQUEST_ID]
    names += [RETRY_AFTER] if status == HTTPStatus.TOO_MANY_REQUESTS else []
    content = {JSON: {"schema": _ref(ErrorResponse), "example": ERROR}}
    return {"description": status.phrase, "headers": _headers(*names), "content": content}


def _headers(*names: str) -> Schema:
    descriptions = {REQUEST_ID: "the client's, or a new one", RETRY_AFTER: "seconds until it is worth another try"}
    return {name: {"description": descriptions[name], "schema": {"type": "string"}} for name in names}


def _probe(name: str, summary: str) -> Schema:
    answers = {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["operations"],
        "security": [],
        "responses": {
            **answers,
            "400": _refusal(HTTPStatus.BAD_REQUEST),
            "503": _refusal(HTTPStatus.SERVICE_UNAVAILABLE),
        },
    }


def _ref(model: type[BaseModel]) -> Schema:
    return {"$ref": _REF.format(model=model.__name__)}
