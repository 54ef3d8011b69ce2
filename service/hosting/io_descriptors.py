"""The multipart forms of the endpoints, as the OpenAPI document shows them and as BentoML's own clients send them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bentoml
from pydantic import Field, create_model
from starlette.requests import Request

from service.api.contexts.portable import PortableContext
from service.api.endpoints import Endpoint
from service.hosting.private_names import private_names, require, require_in_code

with private_names(__name__):
    require(bentoml.IODescriptor, "from_http_request")
    require_in_code(bentoml.IODescriptor.from_http_request.__func__, "request", "serde")


class _Unread(bentoml.IODescriptor):
    """The argument that an endpoint gets in place of its declared fields: the request, with its body still unread."""

    request: Any


class Form(bentoml.IODescriptor):
    """The multipart form of an endpoint. Its fields are declared for BentoML's own clients.

    `service.transports.http.body_parsers` parses it. BentoML's own parser has no limits, and would fetch URLs.
    """

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> bentoml.IODescriptor:
        return _Unread.model_construct(request=request)


def make_form(endpoint: Endpoint) -> type[Form]:
    """Return the form of an endpoint: its files, contexts and options as fields."""
    if endpoint.takes != "images":
        return DecodeForm if endpoint.takes == "latents" else DescribeForm
    options_type = endpoint.image_options
    images = Field(description="image files, or npy, zip or tar files of images")
    if options_type.images_needed == "unless context":
        images = Field(default=[], description="as always; may be left out where a context is sent")
    reference: Any = Field(default=[], description="normal images to compare with, in the same forms")
    context = Field(default=None, description="what POST /fit answered as `context`: to compare with instead")
    has_required_option = any(field.is_required() for field in options_type.model_fields.values())
    options = Field(default=... if has_required_option else options_type(), description="how to do it")
    return create_model(
        f"{options_type.__name__.removesuffix('Options')}Form",
        __base__=Form,
        images=(list[Path], images),
        reference=(list[Path], reference),
        context=(PortableContext | None, context),
        options=(options_type, options),
    )


class DecodeForm(Form):
    """The form of /decode: latents, as JSON or as an npy file."""

    latents: list[list[float]] = Field(description="rows of as many numbers as the model has latents")


class DescribeForm(Form):
    """The form of /describe: it has no fields."""
