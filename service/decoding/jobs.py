"""One job of decoding: some image files, what they may take, and the rows that come of them.

Jobs run in processes of their own (`service.decoding.worker`): what a file does to its decoder ends there. A job is a
plain record, and its result travels as JSON and raw pixels, so that nothing a decoder sends back is unpickled.
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
from service.images.decode import MIB, Content, Limits, Opened, decode, from_pixels, open_image
from service.images.spec import Resize, Spec, Uint8Array

# Pixels that came as an array take some bytes more for each, to be converted and resized.
ARRAY_BYTES_PER_PIXEL = 8
# Contents of more bytes are sent to a worker beside the rest of their job.
BESIDE = 64 * 1024
# What an image counts for that would take more than it may: a request of many such is soon given up.
REFUSED_BYTES = 4 * MIB
ERRORS: dict[str, type[MisfitError]] = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, InvalidInput)
}


@dataclass(frozen=True)
class RowShape:
    """The height, width and channels of the rows: a `service.images.decode.Spec` that brings no other module along."""

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
    """What to decode.

    decode_up_to  decode nothing, and only say what it takes, where all images together take more bytes than that;
                  None decodes in any case
    give_up_at    look at no further image once those seen take more bytes than that
    seconds       of CPU, after which the process is ended
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
    """What became of a job's images.

    pixels   uint8 (k, H, W, C) of those that could be used, in order; None where nothing was decoded
    errors   of the others, by position
    costs    bytes that each counts for; shorter than the job where it was given up
    seconds  of CPU
    """

    pixels: Uint8Array | None
    errors: dict[int, MisfitError] = field(default_factory=dict)
    costs: Sequence[int] = ()
    seconds: float = 0.0


def run(job: Job) -> Decoded:
    """Do the job in this process."""
    began, total = time.process_time(), 0
    opened: list[Opened | Uint8Array | None] = []
    failed: dict[int, MisfitError] = {}
    costs: list[int] = []
    for position, content in enumerate(job.contents):
        try:
            found, cost = _look(content, job)
        except InvalidInput as error:
            found, cost, failed[position] = None, 0, _alone(error)
            if isinstance(error, TooLarge):
                cost = REFUSED_BYTES
        total += cost
        costs.append(cost)
        if total > job.give_up_at:
            return Decoded(None, failed, costs, time.process_time() - began)
        if job.decode_up_to is not None and total > job.decode_up_to:
            opened.clear()  # nothing of this will be decoded now: what was opened need not be kept
        else:
            opened.append(found)
    if len(opened) < len(job.contents):
        return Decoded(None, failed, costs, time.process_time() - began)
    pixels = np.empty((len(opened), *job.shape.shape), dtype=np.uint8)
    used = 0
    for position, image in enumerate(opened):
        if image is None:
            continue
        opened[position] = None
        try:
            pixels[used] = (
                from_pixels(image, job.shape, job.resize, job.limits)
                if isinstance(image, np.ndarray)
                else decode(image, job.shape, job.resize)
            )
            used += 1
        except InvalidInput as error:
            failed[position] = _alone(error)
    return Decoded(pixels[:used], failed, costs, time.process_time() - began)


def _alone(error: MisfitError) -> MisfitError:
    """Return the error without what led to it, which would keep the image in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _look(content: Content, job: Job) -> tuple[Opened | Uint8Array, int]:
    if isinstance(content, np.ndarray):
        return content, content.shape[0] * content.shape[1] * ARRAY_BYTES_PER_PIXEL
    opened = open_image(content, job.shape, job.resize, job.limits)
    return opened, opened.cost


def send_job(connection: Connection, job: Job) -> None:
    """Send a job to a worker, large contents beside the rest and without a copy."""
    contents = [
        content if isinstance(content, np.ndarray) else _beside(content) if len(content) > BESIDE else bytes(content)
        for content in job.contents
    ]
    beside: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(replace(job, contents=contents), protocol=5, buffer_callback=beside.append)
    connection.send_bytes(len(beside).to_bytes(4, "big") + rest)
    for buffer in beside:
        connection.send_bytes(buffer.raw())


def _beside(content: bytes | memoryview) -> Any:
    return pickle.PickleBuffer(content)


def receive_job(connection: Connection) -> Job:
    """Receive the next job. Raise EOFError where none will come."""
    message = connection.recv_bytes()
    beside = [connection.recv_bytes() for _ in range(int.from_bytes(message[:4], "big"))]
    job: Job = pickle.loads(memoryview(message)[4:], buffers=beside)  # noqa: S301 - from the process that started this
    return job


def head_of(decoded: Decoded) -> bytes:
    """Return all but the pixels as JSON."""
    told = {
        "rows": None if decoded.pixels is None else len(decoded.pixels),
        "errors": [[at, error.code, error.message, error.hint] for at, error in decoded.errors.items()],
        "costs": list(decoded.costs),
        "seconds": decoded.seconds,
    }
    return json.dumps(told).encode()


def from_head(head: bytes, pixels: bytes, shape: RowShape) -> Decoded:
    """Return what `head_of` and the pixels' bytes say. Raise ValueError where they do not fit."""
    told = json.loads(head)
    rows = told["rows"]
    return Decoded(
        None if rows is None else np.frombuffer(pixels, dtype=np.uint8).reshape(rows, *shape.shape),
        {int(at): ERRORS[code](message, hint) for at, code, message, hint in told["errors"]},
        [int(cost) for cost in told["costs"]],
        float(told["seconds"]),
    )
