"""One job of decoding: some image files, the limits on decoding them, and the resulting rows.

Jobs run in worker processes (`service.decoding.worker`), so that a malicious file harms only its worker. A result
travels as JSON and raw pixels: nothing that a worker sends back is unpickled.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from service import errors
from service.errors import InvalidInput, MisfitError, TooLarge
from service.images.decode import MIB, Content, Limits, Opened, decode, from_pixels, open_image, size_of
from service.images.spec import Resize, Spec, Uint8Array

# Bytes that converting and resizing takes for each pixel of an image that came as an array.
ARRAY_BYTES_PER_PIXEL = 8
# Contents of more bytes are sent to a worker as messages of their own, without a copy.
SEPARATE_BYTES = 64 * 1024
# An image that is too large counts as this many bytes, so that a request of many such images soon ends.
REFUSED_BYTES = 4 * MIB
ERRORS: dict[str, type[MisfitError]] = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, InvalidInput)
}


@dataclass(frozen=True)
class RowShape:
    """The height, width and channels of the rows: a `service.images.decode.Spec` that a worker can unpickle cheaply."""

    height: int
    width: int
    channels: int

    @classmethod
    def of(cls, spec: Spec) -> RowShape:
        return cls(spec.height, spec.width, spec.channels)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


@dataclass(frozen=True)
class Job:
    """Images to decode.

    decode_up_to  decode only if all images together take at most this many bytes, else return only their costs; None
                  for no limit
    give_up_at    open no further image once the opened images take more bytes than this
    seconds       CPU time after which the system ends the process
    """

    contents: Sequence[Content]
    shape: RowShape
    resize: Resize
    limits: Limits
    decode_up_to: int | None
    give_up_at: int
    seconds: float


@dataclass(frozen=True)
class Decoded:
    """The result of a job.

    pixels   uint8 (k, H, W, C) of the usable images, in order; None if nothing was decoded
    sizes    width and height of each of these as it came, once it was turned
    errors   errors of the other images, by position
    costs    bytes that each image takes to decode; shorter than the job if the job gave up
    seconds  CPU time that the job took
    """

    pixels: Uint8Array | None
    sizes: Sequence[tuple[int, int]] = ()
    errors: dict[int, MisfitError] = field(default_factory=dict)
    costs: Sequence[int] = ()
    seconds: float = 0.0


def run(job: Job) -> Decoded:
    """Run the job in this process, and return its result."""
    started, total = time.process_time(), 0
    opened: list[Opened | Uint8Array | None] = []
    errors_by_position: dict[int, MisfitError] = {}
    costs: list[int] = []
    for position, content in enumerate(job.contents):
        try:
            content_or_image, cost = _open(content, job)
        except InvalidInput as error:
            content_or_image, cost, errors_by_position[position] = None, 0, _without_traceback(error)
            if isinstance(error, TooLarge):
                cost = REFUSED_BYTES
        total += cost
        costs.append(cost)
        if total > job.give_up_at:
            return Decoded(None, (), errors_by_position, costs, time.process_time() - started)
        if job.decode_up_to is not None and total > job.decode_up_to:
            opened.clear()  # nothing will be decoded in this job: free what was opened
        else:
            opened.append(content_or_image)
    if len(opened) < len(job.contents):
        return Decoded(None, (), errors_by_position, costs, time.process_time() - started)
    pixels = np.empty((len(opened), *job.shape.shape), dtype=np.uint8)
    sizes: list[tuple[int, int]] = []
    for position, image in enumerate(opened):
        if image is None:
            continue
        opened[position] = None
        try:
            if isinstance(image, np.ndarray):
                row, size = from_pixels(image, job.shape, job.resize, job.limits), size_of(image)
            else:
                row, size = decode(image, job.shape, job.resize), image.size
            pixels[len(sizes)] = row
            sizes.append(size)
        except InvalidInput as error:
            errors_by_position[position] = _without_traceback(error)
    return Decoded(pixels[: len(sizes)], sizes, errors_by_position, costs, time.process_time() - started)


def _without_traceback(error: MisfitError) -> MisfitError:
    """Return the error without its causes and traceback: they would keep the image in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _open(content: Content, job: Job) -> tuple[Opened | Uint8Array, int]:
    """Return the opened image, or the array, and the bytes that decoding it takes."""
    if isinstance(content, np.ndarray):
        return content, content.shape[0] * content.shape[1] * ARRAY_BYTES_PER_PIXEL
    opened = open_image(content, job.shape, job.resize, job.limits)
    return opened, opened.cost


def send_job(connection: Connection, job: Job) -> None:
    """Send a job to a worker, large contents separately and without a copy."""
    contents = [content if isinstance(content, np.ndarray) else _wrap_content(content) for content in job.contents]
    buffers: list[pickle.PickleBuffer] = []
    message = pickle.dumps(replace(job, contents=contents), protocol=5, buffer_callback=buffers.append)
    connection.send_bytes(len(buffers).to_bytes(4, "big") + message)
    for buffer in buffers:
        connection.send_bytes(buffer.raw())


def _wrap_content(content: bytes | memoryview) -> Any:
    """Return a large content as a buffer that pickle leaves out of the message, a small one as bytes."""
    return pickle.PickleBuffer(content) if len(content) > SEPARATE_BYTES else bytes(content)


def receive_job(connection: Connection) -> Job:
    """Receive the next job. Raises EOFError once the connection is closed."""
    message = connection.recv_bytes()
    buffers = [connection.recv_bytes() for _ in range(int.from_bytes(message[:4], "big"))]
    job: Job = pickle.loads(memoryview(message)[4:], buffers=buffers)  # noqa: S301 - from the process that started this
    return job


def dump_head(decoded: Decoded) -> bytes:
    """Return the result without its pixels as JSON."""
    fields = {
        "rows": None if decoded.pixels is None else len(decoded.pixels),
        "sizes": list(decoded.sizes),
        "errors": [[at, error.code, error.message, error.hint] for at, error in decoded.errors.items()],
        "costs": list(decoded.costs),
        "seconds": decoded.seconds,
    }
    return json.dumps(fields).encode()


def load_decoded(head: bytes, pixels: bytes, shape: RowShape) -> Decoded:
    """Return the result from `dump_head`'s JSON and the bytes of its pixels. Raises ValueError if they do not fit."""
    fields = json.loads(head)
    rows = fields["rows"]
    return Decoded(
        None if rows is None else np.frombuffer(pixels, dtype=np.uint8).reshape(rows, *shape.shape),
        [(int(width), int(height)) for width, height in fields["sizes"]],
        {int(at): ERRORS[code](message, hint) for at, code, message, hint in fields["errors"]},
        [int(cost) for cost in fields["costs"]],
        float(fields["seconds"]),
    )
