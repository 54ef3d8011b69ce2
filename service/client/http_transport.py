"""Calls over HTTP, each sent as a form whose parts are files, npy arrays and JSON."""

from __future__ import annotations

import asyncio
import os
import ssl
from http import HTTPStatus
from io import BytesIO
from typing import Any

import httpx
import numpy as np
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from service.api.schemas import ErrorResponse
from service.api.wire import REQUEST_ID, RETRY_AFTER
from service.client.calls import IS_IT_RUNNING, Call, CallError, Images, read_images
from service.client.retries import parse_retry_after

JSON, NPY, FILE = "application/json", "application/x-npy", "application/octet-stream"
TEMPORARY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
SHOWN_LETTERS = 200
# Words of httpx about a server that speaks something else, and what they mean.
WRONG_SERVER = {
    "illegal request line": "No HTTP/1.1 is spoken there. If it is the port of gRPC, use grpc://.",
    "WRONG_VERSION_NUMBER": "The server does not speak TLS there: use http://.",
}
# A form without any image part means something else than a form with no images: an array without rows says the latter.
NO_ROWS = np.empty((0, 8, 8), dtype=np.uint8)
Part = tuple[str, tuple[str | None, bytes, str]]


class HttpTransport:
    """Sends calls over one pool of connections."""

    def __init__(self, url: str, token: str | None, ca_file: str | os.PathLike[str] | None) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            verify=True if ca_file is None else ssl.create_default_context(cafile=ca_file),
            timeout=None,  # AsyncClient bounds the whole call
            limits=httpx.Limits(max_connections=None),
        )

    def prepare(self, call: Call[Any], request_id: str) -> httpx.Request:
        path, headers = call.method.lower(), {REQUEST_ID: request_id}
        if call.latents is not None:
            return self._client.build_request("POST", path, headers=headers, json={"latents": call.rows_of_latents})
        request = self._client.build_request("POST", path, headers=headers, files=_make_parts(call))
        request.read()  # a body in one piece can be sent again; a stream cannot
        return request

    async def send(self, prepared: httpx.Request) -> Any:
        try:
            response = await self._client.send(prepared)
        except httpx.TransportError as error:
            hint = next((hint for words, hint in WRONG_SERVER.items() if words in str(error)), None)
            raise CallError(
                code="unavailable",
                message=f"{prepared.url} gives no answer: {str(error) or type(error).__name__}.",
                hint=hint or IS_IT_RUNNING,
                is_temporary=isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)) and hint is None,
            ) from error
        if not response.is_success:
            raise read_error(response)
        try:
            return await asyncio.to_thread(from_json, response.content)
        except ValueError as error:
            raise CallError(
                code="unreadable_answer",
                message=f"{prepared.url} answers with no JSON: {error}.",
                hint="Does something else answer there?",
                http_status=response.status_code,
            ) from error

    async def stream(self, call: Call[Any], request_id: str) -> Any:
        raise CallError(
            code="unimplemented",
            message="HTTP has no streams of images.",
            hint='Use a client of gRPC, as in Client("grpc://127.0.0.1:3001"), or score().',
        )

    async def close(self) -> None:
        await self._client.aclose()


def read_error(response: httpx.Response) -> CallError:
    """Return the error in an answer whose status is not 2xx. A proxy's answer has another shape than misfit's."""
    try:
        detail = ErrorResponse.model_validate_json(response.content).error
        code, message, hint = detail.code, detail.message, detail.hint
    except ValidationError:
        code, hint = f"http_{response.status_code}", "The answer is not misfit's: something in between may have failed."
        message = response.text[:SHOWN_LETTERS].strip() or response.reason_phrase
    return CallError(
        code=code,
        message=message,
        hint=hint,
        http_status=response.status_code,
        is_temporary=response.status_code in TEMPORARY,
        retry_after=parse_retry_after(response.headers.get(RETRY_AFTER)),
    )


def _make_parts(call: Call[Any]) -> list[Part]:
    """Return the parts of the form: images, reference, contexts and options."""
    parts: list[Part] = []
    for field, images in (("images", call.images), ("reference", call.reference)):
        parts += [] if images is None else _make_image_parts(field, images)
    parts += [("context", (None, context.model_dump_json().encode(), JSON)) for context in call.contexts]
    return [*parts, ("options", (None, to_json(call.specified_options), JSON))]


def _make_image_parts(field: str, images: Images) -> list[Part]:
    """Return one part for each image file, or one npy part for an array."""
    content = read_images(images)
    if isinstance(content, np.ndarray):
        rows = content
    elif content.contents:
        return [(field, (name, file, FILE)) for name, file in zip(content.ids, content.contents, strict=True)]
    else:
        rows = NO_ROWS
    npy = BytesIO()
    np.save(npy, rows)
    return [(field, (None, npy.getvalue(), NPY))]  # without a file name: the server then numbers the rows
