"""Calls over HTTP: everything goes as a form, whose parts are files, npy arrays and JSON."""

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
from service.client.calls import Call, CallError, Images, read_images
from service.client.retries import seconds_of

JSON, NPY, FILE = "application/json", "application/x-npy", "application/octet-stream"
TEMPORARY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
SHOWN_LETTERS = 200
# A form cannot say that there are no images but by an array without rows.
NO_ROWS = np.empty((0, 8, 8), dtype=np.uint8)
Part = tuple[str, tuple[str | None, bytes, str]]


class HttpTransport:
    """One pool of connections."""

    def __init__(self, url: str, token: str | None, ca_file: str | os.PathLike[str] | None) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            verify=True if ca_file is None else ssl.create_default_context(cafile=ca_file),
            timeout=None,  # the client has one for the whole call
            limits=httpx.Limits(max_connections=None),
        )

    def prepare(self, call: Call[Any], request_id: str) -> httpx.Request:
        path, headers = call.method.lower(), {REQUEST_ID: request_id}
        if call.latents is not None:
            return self._client.build_request("POST", path, headers=headers, json={"latents": call.rows_of_latents})
        request = self._client.build_request("POST", path, headers=headers, files=_parts(call))
        request.read()  # in one piece, which can be sent again
        return request

    async def send(self, prepared: httpx.Request) -> Any:
        try:
            response = await self._client.send(prepared)
        except httpx.TransportError as error:
            raise CallError(
                code="unavailable",
                message=f"{prepared.url} gives no answer: {str(error) or type(error).__name__}.",
                hint="Is the service running there, and reachable from here?",
                is_temporary=isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)),
            ) from error
        if not response.is_success:
            raise error_of(response)
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


def error_of(response: httpx.Response) -> CallError:
    """Return the error in an answer whose status is not 2xx. It may come from a proxy, in another shape than
    misfit's."""
    try:
        said = ErrorResponse.model_validate_json(response.content)
        code, message, hint = said.error.code, said.error.message, said.error.hint
    except ValidationError:
        code, hint = f"http_{response.status_code}", "The answer is not misfit's: something in between may have failed."
        message = response.text[:SHOWN_LETTERS].strip() or response.reason_phrase
    return CallError(
        code=code,
        message=message,
        hint=hint,
        http_status=response.status_code,
        is_temporary=response.status_code in TEMPORARY,
        retry_after=seconds_of(response.headers.get(RETRY_AFTER)),
    )


def _parts(call: Call[Any]) -> list[Part]:
    parts: list[Part] = []
    for field, images in (("images", call.images), ("reference", call.reference)):
        parts += [] if images is None else _files(field, images)
    parts += [("context", (None, context.model_dump_json().encode(), JSON)) for context in call.contexts]
    return [*parts, ("options", (None, to_json(call.given_options), JSON))]


def _files(field: str, images: Images) -> list[Part]:
    found = read_images(images)
    if not isinstance(found, np.ndarray):
        if found.contents:
            named = zip(found.ids, found.contents, strict=True)
            return [(field, (name, content, FILE)) for name, content in named]
        found = NO_ROWS
    file = BytesIO()
    np.save(file, found)
    return [(field, (None, file.getvalue(), NPY))]  # without a name, so that rows are called by their number
