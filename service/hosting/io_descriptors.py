"""The multipart forms of the endpoints, as the OpenAPI document shows them and BentoML's own clients fill them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bentoml
from pydantic import Field, create_model
from starlette.requests import Request

from service.api.endpoints import Endpoint
from service.api.schemas import PortableContext


class _Unread(bentoml.IODescriptor):
    """What an endpoint is called with in place of its declared fields: the request, body unread."""

    request: Any


class Form(bentoml.IODescriptor):
    """The multipart form of an endpoint: its fields are declared so that BentoML's own clients can fill it in.

    It is never parsed by BentoML, which would fetch URLs and knows no limits: `service.transports.http.body_parsers`
    does it.
    """

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> bentoml.IODescriptor:
        return _Unread.model_construct(request=request)


def form(endpoint: Endpoint) -> type[Form]:
    """Return the form of an endpoint."""
    if endpoint.takes != "images":
        return DecodeForm if endpoint.takes == "latents" else DescribeForm
    options_type = endpoint.image_options
    images = Field(description="image files, or npy, zip or tar files of images")
    if options_type.images_needed == "unless context":
        images = Field(default=[], description="as always; may be left out where a context is sent")
    reference: Any = Field(default=[], description="normal images to compare with, in the same forms")
    context = Field(default=None, description="what POST /fit answered as `context`: to compare with instead")
    needed = any(field.is_required() for field in options_type.model_fields.values())
    options = Field(default=... if needed else options_type(), description="how to do it")
    return create_model(
        f"{options_type.__name__.removesuffix('Options')}Form",
        __base__=Form,
        images=(list[Path], images),
        reference=(list[Path], reference),
        context=(PortableContext | None, context),
        options=(options_type, options),
    )


class DecodeForm(Form):
    """/decode takes latents, as JSON or as an npy."""

    latents: list[list[float]] = Field(description="rows of as many numbers as the model has latents")


class DescribeForm(Form):
    """/describe takes nothing."""
