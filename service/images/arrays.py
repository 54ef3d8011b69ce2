"""Arrays as npy files or raw tensors. The header is checked against the content, and nothing is unpickled."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidInput, ShapeMismatch, quoted
from service.images.formats import other_files
from service.images.sample_range import Samples
from service.images.spec import Spec

# The header of an npy file lies within its first bytes, as many as these.
HEADER_BYTES = 64 * 1024
CURL_HINT = "With curl send it by --data-binary: -d takes line ends out."

# The types of samples, as numpy names them.
SAMPLE_TYPES = (
    "uint8", "bool", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"
)  # fmt: skip

# What to do about arrays of other types, by numpy's kind: objects, texts, bytes, fields with names.
NAMES_HINT = "It holds texts, and names are never followed: send the images themselves."
DTYPE_HINTS = {
    "O": "It holds images of several sizes, or a list of them: numpy.stack those of one size, or send image files.",
    "U": NAMES_HINT,
    "S": NAMES_HINT,
    "V": "It is a table with named fields: send the field that holds the images, table['images'].",
}

# The longest axis of an array without content. numpy requires that the axes multiply to less than 2**63, even where
# one of them is 0; four axes of this length do.
LONGEST_EMPTY_AXIS = 2**15


# Python 3.11's parser counts its depth for all threads together: two texts at a time may end in a SystemError.
_parsing = threading.Lock()


def read_npy(content: bytes | memoryview) -> Samples:
    """Return the images in an npy file, (N, H, W) or (N, H, W, C) of any real type, as a view of `content`.

    Raises ShapeMismatch for any other rank or type, and InvalidInput where `content` is not a complete npy file.
    """
    return _read_npy(content, check_images)


def read_npy_latents(content: bytes | memoryview) -> NDArray[np.float64]:
    """Return the latents in an npy file, float32 or float64 (N, L), as float64. Raises what `read_npy` raises."""
    return _read_npy(content, _check_latents).astype(np.float64)


def read_tensor(shape: tuple[int, ...], content: bytes, dtype_name: str = "") -> Samples:
    """Return images of `shape`, (N, H, W) or (N, H, W, C), as a view of `content`: their samples in C order.

    `dtype_name` is numpy's name of their type; "" is uint8. Raises ShapeMismatch for any other shape or type, and
    InvalidInput where `content` has another length.
    """
    if (dtype_name or "uint8") not in SAMPLE_TYPES:
        raise ShapeMismatch(
            f"The tensor has dtype {quoted(dtype_name)}, expected one of {', '.join(SAMPLE_TYPES)}.",
            "Send images.dtype.name, and the samples little-endian.",
        )
    dtype = np.dtype(dtype_name or "uint8").newbyteorder("<")
    check_images(shape, dtype)
    _check_length(shape, dtype, len(content), "tensor", "Send images.shape and images.tobytes().")
    return np.frombuffer(content, dtype=dtype).reshape(shape)


def _read_npy(
    content: bytes | memoryview, check: Callable[[tuple[int, ...], np.dtype[np.generic]], None]
) -> NDArray[Any]:
    """Return the array in an npy file as a view of `content`. `check` raises where its shape or type is wrong.

    No memory is allocated for a size that only the header claims.
    """
    header = read_header(memoryview(content)[:HEADER_BYTES], len(content), check)
    values = np.frombuffer(content, dtype=header.dtype, offset=header.length)
    return values.reshape(header.shape, order="F" if header.fortran_order else "C")


class Header(NamedTuple):
    """The header of an npy file."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[np.generic]
    length: int  # bytes of the header itself


def read_header(
    head: bytes | memoryview, length: int, check: Callable[[tuple[int, ...], np.dtype[np.generic]], None]
) -> Header:
    """Return the header of an npy file of `length` bytes, given the file's first HEADER_BYTES.

    Raises InvalidInput where it is no header or does not fit `length`, and what `check` raises.
    """
    # Version 1 has the header's length in two bytes after the magic string, the others in four.
    start = 10 if head[6:7] == b"\x01" else 12
    try:
        fields = _parse_header(bytes(head[: start + int.from_bytes(head[8:start], "little")]))
    except Exception as error:  # ValueError, KeyError, TokenError, RecursionError ...: it depends on the damage
        kind = None if bytes(head[:1]) == b"\x93" else other_files.identify_any(bytes(head))
        raise InvalidInput(
            f"{length} bytes are not an npy file: {f'it is {kind.name}' if kind else error}.",
            kind.hint if kind else f"Write it with numpy.save. {CURL_HINT}",
        ) from error
    shape = fields.shape
    if any(type(axis) is not int for axis in shape):  # numpy accepts True as 1 in a header, but not in reshape
        raise InvalidInput(f"The npy file announces shape {quoted(shape)}, expected whole numbers.", "Use numpy.save.")
    check(shape, fields.dtype)
    hint = "It was cut short, or holds more than one array: write one again, with numpy.save."
    if not fields.dtype.hasobject:  # objects are pickled, and never read
        _check_length(shape, fields.dtype, length - fields.length, "npy file", hint)
    return fields


@lru_cache(maxsize=256)
def _parse_header(head: bytes) -> Header:
    """Return the header that is all of `head`. A client sends the same one again and again: numpy evaluates its text.

    Raises what numpy raises.
    """
    file = BytesIO(head)
    read_fields = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
        (3, 0): np.lib.format.read_array_header_2_0,  # the same for arrays without named fields
    }[np.lib.format.read_magic(file)]
    with _parsing:
        return Header(*read_fields(file), file.tell())


def _check_length(shape: tuple[int, ...], dtype: np.dtype[np.generic], length: int, what: str, hint: str) -> None:
    expected = math.prod(shape) * dtype.itemsize
    if length != expected or min(shape, default=0) < 0 or (length == 0 and max(shape) > LONGEST_EMPTY_AXIS):
        raise InvalidInput(
            f"The {what} announces shape {quoted(shape)}, which takes {quoted(expected)} bytes, but holds {length}.",
            hint,
        )


@lru_cache
def check_images(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    """Raise ShapeMismatch unless an array is (N, H, W) or (N, H, W, C), of real numbers and images that have pixels."""
    if dtype.name not in SAMPLE_TYPES:
        raise ShapeMismatch(
            f"The array has dtype {dtype}, expected one of {', '.join(SAMPLE_TYPES)}.",
            DTYPE_HINTS.get(dtype.kind, "Send grey levels 0..255: images.astype(numpy.uint8)."),
        )
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 2, 3, 4)):
        raise ShapeMismatch(
            f"The array has shape {quoted(shape)}, expected (N, H, W) or (N, H, W, C) with 1 to 4 channels.",
            _explain_order(shape),
        )
    if len(shape) == 3 and shape[2] <= 4:
        raise ShapeMismatch(
            f"The array has shape {quoted(shape)}, which reads as grey images at most 4 pixels wide.",
            "For one colour image add the first axis: image[None].",
        )
    if shape[1] * shape[2] == 0:
        raise ShapeMismatch(f"The array has shape {quoted(shape)}: images without a pixel.")


def _explain_order(shape: tuple[int, ...]) -> str:
    """Return how to bring the axes of an array of another shape in order."""
    if len(shape) == 4 and shape[1] in (1, 3, 4):
        return "Move the channels last: images.transpose(0, 2, 3, 1)."
    if len(shape) == 4 and shape[2] in (1, 3, 4):
        return "Move the images first: images.transpose(3, 0, 1, 2)."
    if len(shape) == 4 and shape[0] in (1, 3, 4):
        return "Move the images first and the channels last: images.transpose(3, 1, 2, 0)."
    if len(shape) == 5 and 1 in shape:
        return f"Take out an axis of length 1: images.squeeze({shape.index(1)})."
    if len(shape) == 2 and shape[1] > 4:
        return "Give every image its rows and columns back: images.reshape(len(images), H, W, C)."
    return "Stack the images along a first axis; a single one takes image[None]."


def check_axes(shape: tuple[int, ...], spec: Spec) -> None:
    """Raise ShapeMismatch where an array for a model of `spec` may have its axes in another order.

    That is one colour image with its channels first, or grey images one behind the other along the last axis.
    """
    size = (spec.height, spec.width)
    if len(shape) == 3 and shape[:2] == size != shape[1:]:
        raise ShapeMismatch(
            f"The array has shape {quoted(shape)}: {shape[0]} images of {shape[1]} x {shape[2]} pixels, or {shape[2]} "
            "of the model's size along the last axis?",
            "Send the latter as images.transpose(2, 0, 1), and the former as images[..., None].",
        )
    if len(shape) == 3 and shape[0] in (3, 4) and spec.channels == 3:
        raise ShapeMismatch(
            f"The array has shape {quoted(shape)}: {shape[0]} grey images, or one of colour, channels first?",
            "Send one colour image as image.transpose(1, 2, 0)[None], and grey images as images[..., None].",
        )


def _check_latents(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    if dtype not in (np.float32, np.float64):
        raise ShapeMismatch(f"The array has dtype {dtype}, expected float32 or float64.", "Send the encoder's means.")
    if len(shape) != 2:
        raise ShapeMismatch(
            f"The array has shape {quoted(shape)}, expected (N, L).", "A single latent vector takes z[None]."
        )
