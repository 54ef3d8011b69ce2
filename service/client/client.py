"""The Python client: HTTP and gRPC behind one interface, plainly called or awaited.

    with Client("http://127.0.0.1:3000") as misfit:
        context = misfit.fit(sorted(Path("normal").glob("*.png")))
        scores = misfit.score(images, context=context, fdr=0.1)

    async with AsyncClient("grpcs://misfit.example:3001", token="...", ca_file="ca.pem") as misfit:
        scores = await misfit.score(images)

Images are one array (N, H, W) or (N, H, W, C), or image files one by one, as paths, bytes or Pillow's images; a
mapping gives them ids. Without a mapping the id of a path is relative to the folder that holds all of the paths, and
the id of any other image is its position. Options are those of the endpoint, by name; the server checks them. Answers
are the models of `service.api.schemas`, over HTTP and gRPC alike. An error is a CallError. If a later attempt may
succeed, the client first repeats the call as often as `retries` allows.
"""

from __future__ import annotations

import asyncio
import base64
import os
import threading
import uuid
import weakref
from contextlib import suppress
from functools import cached_property
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from service.api.schemas import HeatMap, Picture
from service.client.calls import Call, CallError, Contexts, Images, Transport
from service.client.methods import Methods
from service.client.retries import Retries

__all__ = ["AsyncClient", "CallError", "Client", "Contexts", "Images", "Retries", "png"]

AnswerT = TypeVar("AnswerT", bound=BaseModel)
TIMEOUT, RETRIES = 300.0, Retries()
# What closing a client may take, of each of its two parts.
CLOSING_SECONDS = 5.0
HTTP, GRPC = ("http", "https"), ("grpc", "grpcs")


class AsyncClient(Methods):
    """The client whose methods are awaited. It belongs to the event loop of its first call."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT,
        retries: Retries = RETRIES,
    ) -> None:
        """Make a client of the server at `url`, which begins with http, https, grpc or grpcs. It connects later.

        If a URL of gRPC has no port, the port is 3001. The client sends `token` as bearer token. It verifies the
        server's certificate by the PEM file `ca_file`; without one, by the system's certificates. All attempts of a
        call together may take `timeout` seconds. Raises ValueError for any other URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in HTTP + GRPC or not parts.hostname:
            raise ValueError(f"url is {url!r}, expected http://, https://, grpc:// or grpcs:// and a host.")
        self._url, self._token, self._ca_file = url, token, ca_file
        self._timeout, self._retries = timeout, retries

    @cached_property
    def _transport(self) -> Transport:
        # Each client imports only the library that it uses: httpx and grpcio take as long to import as all the rest.
        if urlsplit(self._url).scheme in HTTP:
            from service.client.http_transport import HttpTransport

            return HttpTransport(self._url, self._token, self._ca_file)
        from service.client.grpc_transport import GrpcTransport

        return GrpcTransport(self._url, self._token, self._ca_file)

    @property
    def has_streams(self) -> bool:
        """Return whether `score_stream` can be called: gRPC can."""
        return urlsplit(self._url).scheme in GRPC

    async def _run(self, call: Call[AnswerT]) -> AnswerT:
        """Return the answer of `call`. Raises CallError."""
        request_id = uuid.uuid4().hex
        try:
            async with asyncio.timeout(self._timeout) as limit:
                payload = await self._send(call, request_id, limit.when() or 0.0)
                return await asyncio.to_thread(call.answer.model_validate, payload)
        except CallError as error:
            error.request_id = request_id
            raise
        except ValidationError as error:
            problem = f"The answer is not one of this version: {error}."
            raise CallError(code="unreadable_answer", message=problem, request_id=request_id) from error
        except TimeoutError:
            if not limit.expired():
                raise
            raise CallError(
                code="deadline_exceeded",
                message=f"{call.method} took longer than {self._timeout:g} s.",
                hint="Send fewer images at a time, or give the client a longer timeout.",
                request_id=request_id,
                is_temporary=True,
            ) from None

    async def _send(self, call: Call[Any], request_id: str, deadline: float) -> Any:
        """Send `call` until an attempt succeeds or no other may be made. Return the answer's JSON, parsed."""
        transport = self._transport
        if call.chunks is not None:
            return await transport.stream(call, request_id)
        prepared = await asyncio.to_thread(transport.prepare, call, request_id)
        return await self._retries.run(lambda: transport.send(prepared), deadline)

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Client(Methods):
    """The client whose methods block until they return the answer. Threads may share a client.

    It runs an AsyncClient in a thread with an event loop of its own.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT,
        retries: Retries = RETRIES,
    ) -> None:
        self._start(AsyncClient(url, token=token, ca_file=ca_file, timeout=timeout, retries=retries))

    def _start(self, client: AsyncClient) -> None:
        """Run the calls of `client` from now on, in a thread of its own."""
        self._client = client
        self._loop = asyncio.new_event_loop()
        # A daemon, so that a client that nobody closes does not keep Python from ending.
        self._thread = threading.Thread(target=self._loop.run_forever, name="misfit client", daemon=True)
        self._thread.start()
        self._close = weakref.finalize(self, _close_client, self._client, self._loop, self._thread)

    def _run(self, call: Call[AnswerT]) -> AnswerT:
        if not self._close.alive:
            raise RuntimeError("This client is closed. Make another one.")
        future = asyncio.run_coroutine_threadsafe(self._client._run(call), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # of Ctrl-C, the call is still under way
            raise

    @property
    def has_streams(self) -> bool:
        """Return whether `score_stream` can be called: gRPC can."""
        return self._client.has_streams

    def close(self) -> None:
        """Close the connections. Without this they are closed when the client is collected, or when Python ends."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close_client(client: AsyncClient, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Close `client` and end its event loop, which runs in `thread`."""
    closing = asyncio.run_coroutine_threadsafe(client.close(), loop)
    if threading.current_thread() is thread:  # collected there: the loop cannot wait for itself
        closing.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
        return
    with suppress(Exception):  # at the end of Python much is gone already
        closing.result(CLOSING_SECONDS)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(CLOSING_SECONDS)
    if not thread.is_alive():
        loop.close()


def png(picture: Picture | HeatMap) -> bytes:
    """Return the PNG file of a picture or heat map in an answer. Raises ValueError if the answer has no image of it."""
    if picture.image is None:
        raise ValueError("There is no image in it: it was asked for as a contact sheet or zip.")
    return base64.b64decode(picture.image)
