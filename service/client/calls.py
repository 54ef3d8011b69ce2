"""What a client asks, whatever the transport: a call, the images in it, and the error that it may end in."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeGuard, TypeVar

import numpy as np
from pydantic import BaseModel

from service.api.schemas import FitResponse, PortableContext
from service.errors import ShapeMismatch
from service.images import arrays
from service.images.spec import Uint8Array

if TYPE_CHECKING:
    import grpc
    from PIL import Image

AnswerT_co = TypeVar("AnswerT_co", bound=BaseModel, covariant=True)
AnImage: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image"
# An array uint8 (N, H, W) or (N, H, W, C), or images one by one, by id or not.
Images: TypeAlias = "Uint8Array | Iterable[AnImage] | Mapping[str, AnImage]"
Contexts = FitResponse | PortableContext | Iterable[FitResponse | PortableContext]
# Others are made RGB: PNG has no place for them.
PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")


@dataclass(kw_only=True, eq=False)
class CallError(Exception):
    """A call that was refused or failed: what came and what was expected, and how to mend it.

    code            the server's stable word, the same for either transport; "unavailable" where nobody answers
    http_status     of HTTP's answer, if one came
    grpc_status     of a call over gRPC
    request_id      what the server's log calls it
    is_temporary    whether the same call may succeed later; it has then been repeated in vain
    retry_after     seconds that the server asked to wait
    """

    code: str = "internal"
    message: str = ""
    hint: str = ""
    http_status: int | None = None
    grpc_status: grpc.StatusCode | None = None
    request_id: str = ""
    is_temporary: bool = False
    retry_after: float = 0.0

    def __str__(self) -> str:
        status = self.grpc_status.name if self.grpc_status else f"HTTP {self.http_status}" if self.http_status else ""
        about = ", ".join(word for word in (self.code, status, self.request_id) if word)
        return f"{self.message} {self.hint}".strip() + f" [{about}]"


@dataclass(frozen=True)
class Call(Generic[AnswerT_co]):
    """One call of a method, by its name in the proto; its answer has the type `answer`."""

    method: str
    answer: type[AnswerT_co]
    images: Images | None = None
    reference: Images | None = None
    context: Contexts | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    latents: Iterable[Iterable[float]] | None = None  # of Decode
    chunks: Iterable[Images] | AsyncIterable[Images] | None = None  # of ScoreStream

    @property
    def contexts(self) -> list[PortableContext]:
        given = self.context
        if given is None:
            return []
        fitted = [given] if isinstance(given, (FitResponse, PortableContext)) else given
        return [each.context if isinstance(each, FitResponse) else each for each in fitted]

    @property
    def given_options(self) -> dict[str, object]:
        """None means the default, as in Python it mostly does."""
        return {name: value for name, value in self.options.items() if value is not None}

    @property
    def rows_of_latents(self) -> list[list[float]]:
        return [[float(value) for value in row] for row in (() if self.latents is None else self.latents)]


class Transport(Protocol):
    """How calls travel. What it raises is a CallError."""

    def prepare(self, call: Call[Any], request_id: str) -> Any:
        """Return all that is to be sent. Files are read and images encoded here, so it takes time."""

    async def send(self, prepared: Any) -> Any:
        """Send it, once. Returns the answer's JSON, as Python's objects."""

    async def stream(self, call: Call[Any], request_id: str) -> Any:
        """Prepare and send a call with chunks, which come only once."""

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Files:
    """Image files by id."""

    ids: list[str]
    contents: list[bytes]


def read_images(images: Images, first: int = 0) -> Uint8Array | Files:
    """Return `images` as they are sent. One without a name is called by its place, counted from `first`."""
    if isinstance(images, np.ndarray):
        try:
            arrays.check_images(images.shape, images.dtype)
        except ShapeMismatch as error:
            raise CallError(code=error.code, message=error.message, hint=error.hint) from None
        return images
    if isinstance(images, (str, bytes, os.PathLike)) or _is_pillow(images):
        raise TypeError(f"images is one {type(images).__name__}, expected several: a batch of one is [image].")
    if isinstance(images, Mapping):
        return Files(list(images), [_content(image) for image in images.values()])
    given = list(images)
    ids = [_name(image) or str(first + place) for place, image in enumerate(given)]
    return Files(ids, [_content(image) for image in given])


def _name(image: AnImage) -> str | None:
    return Path(image).name if isinstance(image, (str, os.PathLike)) else None


def _is_pillow(image: object) -> TypeGuard[Image.Image]:
    """Return whether `image` is an image of Pillow. Before anything has loaded Pillow, nothing is."""
    return "PIL.Image" in sys.modules and isinstance(image, sys.modules["PIL.Image"].Image)


def _content(image: AnImage) -> bytes:
    if isinstance(image, bytes):
        return image
    if _is_pillow(image):
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(image)  # as the server would turn the file that it was opened from
        file = BytesIO()
        (upright if upright.mode in PNG_MODES else upright.convert("RGB")).save(file, "PNG", compress_level=1)
        return file.getvalue()
    return Path(image).read_bytes()  # type: ignore[arg-type]  # a TypeGuard narrows one way only
