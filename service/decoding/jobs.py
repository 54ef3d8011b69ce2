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
from service.images import sample_range
from service.images.conform import Note
from service.images.decode import Content, Opened, decode, open_image
from service.images.formats import frames
from service.images.limits import MIB, Limits
from service.images.sample_range import Extent, SampleRange
from service.images.spec import Resize, Spec, Uint8Array

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
    samples       the range of deep samples; images of which it is not known are not decoded
    measures      whether these, and no others, are decoded, to measure their range
    pages         which page of each file is meant; None for the first, of all files if the list is empty
    """

    contents: Sequence[Content]
    shape: RowShape
    resize: Resize
    limits: Limits
    decode_up_to: int | None
    give_up_at: int
    seconds: float
    samples: SampleRange = field(default_factory=SampleRange)
    measures: bool = False
    pages: Sequence[int | None] = ()


@dataclass(frozen=True)
class Decoded:
    """The result of a job.

    pixels   uint8 (k, H, W, C) of the usable images, in order; None if nothing was decoded
    sizes    width and height of each of these as it came, once it was turned
    errors   errors of the other images, by position
    costs    bytes that each image takes to decode; shorter than the job if the job gave up
    seconds  CPU time that the job took
    unknown  positions of images that have no row because their range is not known, or only was measured
    extents  what was measured, by sample type
    notes    by position
    """

    pixels: Uint8Array | None
    sizes: Sequence[tuple[int, int]] = ()
    errors: dict[int, MisfitError] = field(default_factory=dict)
    costs: Sequence[int] = ()
    seconds: float = 0.0
    unknown: Sequence[int] = ()
    extents: dict[str, Extent] = field(default_factory=dict)
    notes: dict[int, tuple[Note, ...]] = field(default_factory=dict)


def run(job: Job) -> Decoded:
    """Run the job in this process, and return its result."""
    started, total = time.process_time(), 0
    opened: list[Opened | None] = []
    errors_by_position: dict[int, MisfitError] = {}
    costs: list[int] = []
    unknown: list[int] = []

    def finish(pixels: Uint8Array | None) -> Decoded:
        frames.forget()
        seconds = time.process_time() - started
        merged = sample_range.merge(extents)
        return Decoded(pixels, sizes, errors_by_position, costs, seconds, unknown, merged, notes)

    sizes: list[tuple[int, int]] = []
    extents: list[sample_range.Extents] = []
    notes: dict[int, tuple[Note, ...]] = {}
    for position, content in enumerate(job.contents):
        image, cost = None, 0
        try:
            page = job.pages[position] if job.pages else None
            image = open_image(content, job.shape, job.resize, job.limits, page)
        except InvalidInput as error:
            errors_by_position[position] = _without_traceback(error)
            if isinstance(error, TooLarge):
                cost = REFUSED_BYTES
        if image is not None:
            is_unknown = image.find_range(job.samples) is None
            if is_unknown or job.measures:
                unknown.append(position)
            if is_unknown == job.measures:
                cost = image.cost
            else:
                image = None
        total += cost
        costs.append(cost)
        if total > job.give_up_at:
            return finish(None)
        if job.decode_up_to is not None and total > job.decode_up_to:
            opened.clear()  # nothing will be decoded in this job: free what was opened
        else:
            opened.append(image)
    if len(opened) < len(job.contents):
        return finish(None)
    pixels = np.empty((len(opened), *job.shape.shape), dtype=np.uint8)
    for position, image in enumerate(opened):
        if image is None:
            continue
        opened[position] = None
        try:
            if job.measures:
                extents.append(image.measure())
                continue
            row = decode(image, job.shape, job.resize, job.samples)
        except InvalidInput as error:
            errors_by_position[position] = _without_traceback(error)
            continue
        pixels[len(sizes)] = row.pixels
        sizes.append(row.size)
        if row.notes:
            notes[position] = row.notes
    return finish(pixels[: len(sizes)])


def _without_traceback(error: MisfitError) -> MisfitError:
    """Return the error without its causes and traceback: they would keep the image in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def send_job(connection: Connection, job: Job) -> None:
    """Send a job to a worker, large contents separately and without a copy.

    The content of several images, as of the pages of one file, is sent once.
    """
    contents = {id(content): content for content in job.contents}
    places = {identity: place for place, identity in enumerate(contents)}
    wrapped = [each if isinstance(each, np.ndarray) else _wrap_content(each) for each in contents.values()]
    of_images = [places[id(content)] for content in job.contents]
    buffers: list[pickle.PickleBuffer] = []
    message = pickle.dumps((replace(job, contents=wrapped), of_images), protocol=5, buffer_callback=buffers.append)
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
    job: Job
    job, of_images = pickle.loads(memoryview(message)[4:], buffers=buffers)  # noqa: S301 - from the process that started this
    return replace(job, contents=[job.contents[place] for place in of_images])


def dump_head(decoded: Decoded) -> bytes:
    """Return the result without its pixels as JSON."""
    fields = {
        "rows": None if decoded.pixels is None else len(decoded.pixels),
        "sizes": list(decoded.sizes),
        "errors": [[at, error.code, error.message, error.hint] for at, error in decoded.errors.items()],
        "costs": list(decoded.costs),
        "seconds": decoded.seconds,
        "unknown": list(decoded.unknown),
        "extents": decoded.extents,
        "notes": [[at, notes] for at, notes in decoded.notes.items()],
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
        [int(at) for at in fields["unknown"]],
        {str(name): Extent(float(low), float(high)) for name, (low, high) in fields["extents"].items()},
        {int(at): tuple(notes) for at, notes in fields["notes"]},
    )
