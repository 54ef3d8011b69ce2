"""Tensors of the Open Inference Protocol: read from JSON, from bytes or from protobuf, and written as each of them.

Nothing that a tensor states is trusted: its shape, its datatype and its content must agree before anything is made.
"""

from __future__ import annotations

import binascii
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from service.errors import InvalidInput, quoted

# The protocol's datatypes, as numpy names them. Of BYTES each element is bytes of any length. BF16 has no numpy type.
BYTES = "BYTES"
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("bool"),
    "UINT8": np.dtype("uint8"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("int8"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
DATATYPES = (*DTYPES, BYTES)
# The field of InferTensorContents that holds each datatype; FP16 has none.
CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
# The datatype of the numbers in each of these fields: it may hold more than the datatypes that stand in it.
FIELD_TYPES = {
    "bool_contents": "BOOL",
    "int_contents": "INT32",
    "int64_contents": "INT64",
    "uint_contents": "UINT32",
    "uint64_contents": "UINT64",
    "fp32_contents": "FP32",
    "fp64_contents": "FP64",
}
# The length of an element of BYTES, in front of it.
LENGTH = struct.Struct("<I")
# More axes than any tensor of any model has; an axis is what an int64 holds.
MOST_AXES, LONGEST_AXIS = 8, 2**63 - 1
# Elements that are written as JSON at a time.
WRITTEN_AT_ONCE = 65_536

Values = NDArray[Any] | Sequence[bytes | memoryview]


@dataclass(frozen=True)
class Tensor:
    """A tensor: an array of `shape`, or, of BYTES, its elements in a row."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Values

    @classmethod
    def of(cls, name: str, datatype: str, values: NDArray[Any]) -> Tensor:
        """Return an array as a tensor of that datatype."""
        return cls(name, datatype, values.shape, np.ascontiguousarray(values, dtype=DTYPES[datatype]))

    @classmethod
    def of_texts(cls, name: str, texts: Sequence[str]) -> Tensor:
        """Return texts as a tensor (n,) of BYTES."""
        return cls(name, BYTES, (len(texts),), [text.encode() for text in texts])

    @property
    def byte_count(self) -> int:
        """Return the number of bytes of all elements, without the lengths in front of BYTES."""
        return self.values.nbytes if isinstance(self.values, np.ndarray) else sum(map(len, self.values))

    def to_bytes(self) -> bytes:
        """Return the elements as bytes, rows first."""
        if isinstance(self.values, np.ndarray):
            return self.values.tobytes()
        return b"".join(part for element in self.values for part in (LENGTH.pack(len(element)), element))

    def to_json(self) -> Iterator[bytes]:
        """Yield the JSON of the elements, as one flat list. What is no number is null; BYTES are texts."""
        yield b"["
        flat = self.values.reshape(-1) if isinstance(self.values, np.ndarray) else self.values
        for start in range(0, len(flat), WRITTEN_AT_ONCE):
            part = flat[start : start + WRITTEN_AT_ONCE]
            plain = part.tolist() if isinstance(part, np.ndarray) else [bytes(each).decode() for each in part]
            yield b"," * (start > 0) + to_json(plain, inf_nan_mode="null")[1:-1]
        yield b"]"

    def to_list(self) -> list[Any]:
        """Return the elements as InferTensorContents has them: one flat list."""
        if isinstance(self.values, np.ndarray):
            flat: list[Any] = self.values.reshape(-1).tolist()
            return flat
        return [bytes(each) for each in self.values]


@dataclass(frozen=True)
class Announced:
    """The description of a tensor in a request, checked in itself. Its content is still to be read.

    count  of elements
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def where(self) -> str:
        return f"The tensor {quoted(self.name)}"

    def read_bytes(self, content: bytes | memoryview) -> Tensor:
        """Return the tensor whose elements `content` holds. Raises InvalidInput where it holds more or fewer."""
        if self.datatype == BYTES:
            return self._with(self._split(memoryview(content)))
        dtype = DTYPES[self.datatype]
        if len(content) != (expected := self.count * dtype.itemsize):
            raise InvalidInput(
                f"{self.where} has shape {quoted(list(self.shape))} of {self.datatype}, which takes {quoted(expected)} "
                f"bytes, but {len(content)} came.",
                "Send every element, little-endian, rows first: images.shape and images.tobytes().",
            )
        return self._with(np.frombuffer(content, dtype=dtype))

    def read_list(self, elements: Sequence[Any], what: str) -> Tensor:
        """Return the tensor of these elements, nested or in a row; `what` names where they stood.

        Raises InvalidInput where they do not fit the shape or the datatype.
        """
        if self.datatype == BYTES:
            self._check_count(len(elements), what)
            return self._with([bytes(element) for element in elements])
        try:
            array = np.array(elements)
        except (ValueError, OverflowError) as error:
            raise self._mismatch(f"{what} is no table of numbers: {error}") from None
        if array.ndim > 1 and array.shape != self.shape:
            raise self._mismatch(f"{what} is nested as {quoted(list(array.shape))}")
        self._check_count(array.size, what)
        return self._with(self._convert(array.reshape(-1), what))

    def read_texts(self, elements: Any, what: str) -> Tensor:
        """Return the tensor of BYTES that a JSON list of texts is: each is base64, or JSON as it stands."""
        texts = _flatten(elements)
        if not all(isinstance(text, str) for text in texts):
            raise self._mismatch(f"{what} holds something that is no text")
        self._check_count(len(texts), what)
        return self._with([self._from_text(text, place) for place, text in enumerate(texts)])

    def _from_text(self, text: str, place: int) -> bytes:
        if text.lstrip()[:1] in ("{", "["):
            return text.encode()
        try:
            return binascii.a2b_base64("".join(text.split()), strict_mode=True)
        except ValueError as error:
            raise InvalidInput(
                f"Element {place} of the tensor {quoted(self.name)}, {quoted(text[:24])}, is not base64: {error}.",
                "JSON holds an image file as base64. The binary tensor extension takes the bytes themselves.",
            ) from None

    def _split(self, content: memoryview) -> list[memoryview]:
        """Return the elements of a tensor of BYTES."""
        elements: list[memoryview] = []
        at = 0
        hint = "Each element is its length as four bytes, little-endian, and then its bytes."
        while at < len(content):
            if len(elements) == self.count:
                raise InvalidInput(
                    f"{self.where} has shape {quoted(list(self.shape))}, but {len(content) - at} bytes more came than "
                    f"its elements take.",
                    hint,
                )
            if at + LENGTH.size > len(content):
                raise InvalidInput(f"{self.where} ends within the length of element {len(elements)}.", hint)
            (length,) = LENGTH.unpack_from(content, at)
            at += LENGTH.size
            if at + length > len(content):
                raise InvalidInput(
                    f"{self.where} announces {length} bytes for element {len(elements)}, but only {len(content) - at} "
                    "are left.",
                    hint,
                )
            elements.append(content[at : at + length])
            at += length
        self._check_count(len(elements), "its content")
        return elements

    def _convert(self, array: NDArray[Any], what: str) -> NDArray[Any]:
        """Return the elements (n,) as their datatype. Raises InvalidInput where one has no such value."""
        dtype = DTYPES[self.datatype]
        if array.dtype.kind not in "biuf":
            raise self._mismatch(f"{what} holds something that is no number")
        if dtype.kind in "biu":
            low, high = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
            # A float's comparison with the limits of 64 bits is rounded: 2.0 ** 63 is no int64.
            fits = (array >= low) & ((array <= high) if high < 2**53 or array.dtype.kind != "f" else (array < high))
            if array.dtype.kind == "f":
                fits &= array == np.floor(array)
            if not fits.all():
                raise self._mismatch(f"{what} holds {quoted(array[~fits][0].item())}")
        with np.errstate(over="ignore"):
            converted = array.astype(dtype)
        if not (is_finite := np.isfinite(converted)).all():
            raise self._mismatch(f"{what} holds {quoted(array[~is_finite][0].item())}")
        return converted

    def _check_count(self, count: int, what: str) -> None:
        if count != self.count:
            raise InvalidInput(
                f"{self.where} has shape {quoted(list(self.shape))}, which takes {quoted(self.count)} elements, but "
                f"{what} holds {count}.",
                "Make shape and elements agree.",
            )

    def _mismatch(self, text: str) -> InvalidInput:
        return InvalidInput(
            f"{self.where} has shape {quoted(list(self.shape))} of {self.datatype}, but {text}.",
            "Make shape, datatype and elements agree.",
        )

    def _with(self, values: NDArray[Any] | Sequence[bytes | memoryview]) -> Tensor:
        if isinstance(values, np.ndarray):
            values = values.reshape(self.shape)
        return Tensor(self.name, self.datatype, self.shape, values)


def announce(name: object, datatype: object, shape: object) -> Announced:
    """Return what a request states of a tensor. Raises InvalidInput where that is wrong in itself."""
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"An input tensor has the name {quoted(name)}, expected a text.", "Give each input a name.")
    where = f"The tensor {quoted(name)}"
    if datatype not in DATATYPES:
        raise InvalidInput(
            f"{where} has datatype {quoted(datatype)}, expected one of {', '.join(DATATYPES)}.",
            "Image files are BYTES, pixels are UINT8.",
        )
    if not isinstance(shape, Sequence) or isinstance(shape, str) or not all(type(axis) is int for axis in shape):
        raise InvalidInput(
            f"{where} has shape {quoted(shape)}, expected a list of whole numbers.", "Write [60, 64, 64, 3]."
        )
    if not 1 <= len(shape) <= MOST_AXES or not all(0 <= axis <= LONGEST_AXIS for axis in shape):
        raise InvalidInput(
            f"{where} has shape {quoted(list(shape[: MOST_AXES + 1]))}, expected 1 to {MOST_AXES} axes, none of them "
            "negative.",
            "State the real number of images in place of -1.",
        )
    if 0 in shape:
        raise InvalidInput(f"{where} has shape {quoted(list(shape))}: no elements.", "Send at least one image.")
    return Announced(name, str(datatype), tuple(shape))


def _flatten(elements: Any) -> list[Any]:
    """Return the elements of a list of lists, or of a list, in a row."""
    flat: list[Any] = []
    for element in elements:
        if isinstance(element, list):
            flat += element
        else:
            flat.append(element)
    return flat
