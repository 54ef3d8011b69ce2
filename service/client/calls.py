"""Calls of a client, the same for every transport: a call, the images in it, and the error that it may end in."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeGuard, TypeVar

import numpy as np
from pydantic import BaseModel

from service.api.contexts.portable import PortableContext
from service.api.schemas import FitResponse
from service.errors import ShapeMismatch
from service.images import arrays
from service.images.sample_range import Samples

if TYPE_CHECKING:
    import grpc
    from PIL import Image

AnswerT_co = TypeVar("AnswerT_co", bound=BaseModel, covariant=True)
AnImage: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | Samples | NamedImage"
# An array (N, H, W) or (N, H, W, C), or images one by one, by id or not.
Images: TypeAlias = "Samples | Iterable[AnImage] | Mapping[str, AnImage]"
Contexts = FitResponse | PortableContext | Iterable[FitResponse | PortableContext]
# Pillow's modes that PNG can store, and those that TIFF stores without loss: PNG would cut the values of I and F, and
# separate CMYK and LAB from their colour profiles. Images of other modes are converted to RGB.
PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
TIFF_MODES = ("I", "F", "CMYK", "LAB", "I;16B", "I;16L")

IS_IT_RUNNING = "Is the service running there, and reachable from here?"


@dataclass(kw_only=True, eq=False)
class CallError(Exception):
    """A call was refused or failed. The error says what came, what was expected, and how to mend it.

    code            the server's stable word for the error, the same over HTTP and gRPC; "unavailable" if nobody answers
    http_status     the status of the HTTP answer; None if there is none
    grpc_status     the status of the gRPC call; None over HTTP
    request_id      the id of the request in the server's log
    is_temporary    whether the same call may succeed later; the client has repeated such a call before it raises this
    retry_after     seconds that the server asked the client to wait
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


@dataclass(frozen=True, slots=True)
class NamedImage:
    """An image that is read when it is needed: the bytes of a file, or pixels (H, W, C). Two may have one id."""

    id: str
    read: Callable[[], bytes | memoryview | Samples]


@dataclass(frozen=True)
class Call(Generic[AnswerT_co]):
    """One call of a method. `method` is its name in the proto, `answer` the type of its answer."""

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
        """Return `context` as a list of portable contexts; an empty list if there is none."""
        if self.context is None:
            return []
        contexts = [self.context] if isinstance(self.context, (FitResponse, PortableContext)) else self.context
        return [context.context if isinstance(context, FitResponse) else context for context in contexts]

    @property
    def specified_options(self) -> dict[str, object]:
        """Return the options that have a value, as JSON has it. None stands for the server's default."""
        return {name: _to_plain(value) for name, value in self.options.items() if value is not None}

    @property
    def rows_of_latents(self) -> list[list[float]]:
        """Return the latents as lists of floats. They may come as any sequences of any numbers."""
        return [[float(value) for value in row] for row in (() if self.latents is None else self.latents)]


def _to_plain(value: Any) -> Any:
    """Return an option's value without numpy's types, or those of pandas: their numbers, arrays and columns."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {_to_plain(name): _to_plain(member) for name, member in value.items()}
    return [_to_plain(member) for member in value] if isinstance(value, list | tuple | set | range) else value


class Transport(Protocol):
    """Sends calls. Every error that it raises is a CallError."""

    def prepare(self, call: Call[Any], request_id: str) -> Any:
        """Return the message to send. This takes time: it reads files and encodes images."""

    async def send(self, prepared: Any) -> Any:
        """Send the message once. Return the answer's JSON, parsed."""

    async def stream(self, call: Call[Any], request_id: str) -> Any:
        """Send a call with chunks. Return the answer's JSON, parsed. The chunks can be iterated only once."""

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Files:
    """Image files by id."""

    ids: list[str]
    contents: list[bytes]


@dataclass
class PathNames:
    """Ids of paths: relative to the folder that holds all of the first ones, so that two files never have one id.

    folder  that folder; None before the first path
    """

    folder: str | None = None

    def of(self, paths: Sequence[str | os.PathLike[str]]) -> list[str]:
        """Return the id of each path, with / on every system."""
        absolute = [os.path.abspath(path) for path in paths]
        try:
            if absolute and self.folder is None:
                self.folder = os.path.commonpath([os.path.dirname(path) for path in absolute])
            return [Path(os.path.relpath(path, self.folder)).as_posix() for path in absolute]
        except ValueError:  # on Windows, of paths on several drives
            return [Path(path).as_posix() for path in absolute]


def read_images(images: Images, first: int = 0, names: PathNames | None = None) -> Samples | Files:
    """Return `images` as they are sent. The id of an image without a name is its position, counted from `first`.

    names  of the paths before these; by default there are none

    Raises CallError for an array of the wrong shape or type, and TypeError for a single image.
    """
    if isinstance(images, np.ndarray):
        return check_array(images)
    named = name_images(images, first, names)
    contents = [image.read() for image in named]
    kinds = {(each.shape, each.dtype) if isinstance(each, np.ndarray) else None for each in contents}
    if len(kinds) == 1 and None not in kinds:
        return np.stack(contents)  # one array is sent as it is; it has no ids
    return Files([image.id for image in named], [_encode(content) for content in contents])


def check_array(images: Samples) -> Samples:
    """Return an array of images. Raises CallError where its shape or type is wrong."""
    try:
        arrays.check_images(images.shape, images.dtype)
    except ShapeMismatch as error:
        raise CallError(code=error.code, message=error.message, hint=error.hint) from None
    return images


def name_images(
    images: Iterable[AnImage] | Mapping[str, AnImage], first: int = 0, names: PathNames | None = None
) -> list[NamedImage]:
    """Return images one by one with their ids, as `read_images` gives them. None is read yet.

    Raises TypeError for a single image.
    """
    if isinstance(images, (str, bytes, os.PathLike, NamedImage)) or _is_pillow(images):
        raise TypeError(f"images is one {type(images).__name__}, expected several: a batch of one is [image].")
    if isinstance(images, Mapping):
        return [NamedImage(str(id_), partial(_read_content, image)) for id_, image in images.items()]
    files = list(images)
    paths = [image for image in files if isinstance(image, (str, os.PathLike))]
    path_ids = iter((names or PathNames()).of(paths))
    named = []
    for position, image in enumerate(files, start=first):
        if isinstance(image, NamedImage):
            named.append(image)
        else:
            id_ = next(path_ids) if isinstance(image, (str, os.PathLike)) else str(position)
            named.append(NamedImage(id_, partial(_read_content, image)))
    return named


def _is_pillow(image: object) -> TypeGuard[Image.Image]:
    """Return whether `image` is an image of Pillow.

    This does not import Pillow, which takes long. Before the caller has imported Pillow, there are no such images.
    """
    return "PIL.Image" in sys.modules and isinstance(image, sys.modules["PIL.Image"].Image)


def _encode(content: bytes | memoryview | Samples) -> bytes:
    """Return what a NamedImage reads as the bytes of an image file."""
    return _read_content(content) if isinstance(content, np.ndarray) else bytes(content)


def _read_content(image: AnImage) -> bytes:
    """Return the bytes of an image file; an image of Pillow is encoded as PNG, or as TIFF where PNG cannot hold it.

    An array (H, W) or (H, W, C) becomes an image of Pillow first. Raises TypeError for what is none of these.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, NamedImage):
        return _encode(image.read())
    if isinstance(image, np.ndarray):
        image = _to_pillow(image)
    if _is_pillow(image):
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(image)  # the server does the same to a file with this EXIF tag
        file = BytesIO()
        if upright.mode in TIFF_MODES:
            upright.save(file, "TIFF")
        else:
            (upright if upright.mode in PNG_MODES else upright.convert("RGB")).save(file, "PNG", compress_level=1)
        return file.getvalue()
    if not isinstance(image, (str, os.PathLike)):
        raise TypeError(
            f"An image is {type(image).__name__}, expected a path, a file's bytes, an array or an image of Pillow."
        )
    return Path(image).read_bytes()


def _to_pillow(pixels: Samples) -> Image.Image:
    """Return one array of a list as an image. Raises TypeError for a shape or a type that Pillow has no image of."""
    from PIL import Image

    try:
        return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"An array has shape {pixels.shape} and dtype {pixels.dtype}: {error}. In a list each is one image, (H, W) "
            "or (H, W, C) of uint8; send arrays of other types as one, numpy.stack(images)."
        ) from error
