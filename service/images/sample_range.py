"""The range of deep samples: which of their values becomes 0 and which 255, the same for all images of a request.

Samples are deep where they are anything but 8 bits without sign: 16-bit grey, 12-bit TIFF, floats, signed integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UndecodableImage
from service.images.spec import RangeChoice, Uint8Array

Samples = NDArray[Any]
Uint16Array = NDArray[np.uint16]

# The highest values of a camera's or a convention's range, beside the highest of the sample type.
HIGHEST_WHOLE = (255, 1023, 4095, 16383, 65535, 2**24 - 1)
HIGHEST_FLOAT = (1.0, 255.0, 65535.0)
# A range is taken for the images' own if they reach so much of it. Where they reach less, they are dark.
LEAST_REACHED = 0.25
# A float beyond it stands for a sample that is missing.
LARGEST_FLOAT = 1e30
# Samples that are converted at a time.
SAMPLES_AT_A_TIME = 1 << 18


class Extent(NamedTuple):
    """The lowest and the highest of some samples, or the values that become 0 and 255."""

    low: float
    high: float


BYTES = Extent(0, 255)
Extents = Mapping[str, Extent]  # by the name of the sample type, as numpy has it


@dataclass(frozen=True)
class SampleRange:
    """How to read deep samples.

    choice       what the options ask for
    measured     what the images of the request have, by sample type; it is empty until they were measured
    is_complete  whether they were measured: types that are missing have the whole type's range
    """

    choice: RangeChoice = "file"
    measured: Extents = field(default_factory=dict)
    is_complete: bool = False

    def find(self, dtype: np.dtype[Any], full: Extent, stated: Extent | None) -> Extent | None:
        """Return the range of an image of `dtype`, whose samples may be all of `full`, and which states its range.

        `stated` is None where it states none. The result is None where the images must be measured first.
        """
        if self.choice == "full":
            return full
        if self.choice == "file" and stated is not None:
            return stated
        measured = self.measured.get(dtype.name)
        if measured is None:
            return full if self.is_complete else None
        return self.of_measured(dtype, measured)

    def of_measured(self, dtype: np.dtype[Any], measured: Extent) -> Extent:
        """Return the range of images that together have the extent `measured`."""
        return _widened(measured) if self.choice == "batch" else infer(dtype, measured)


def full_range(dtype: np.dtype[Any]) -> Extent:
    """Return all values of a type of whole numbers; of floats 0 to 1."""
    if dtype.kind == "f":
        return Extent(0.0, 1.0)
    if dtype.kind == "b":
        return Extent(0, 1)
    return Extent(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def infer(dtype: np.dtype[Any], measured: Extent) -> Extent:
    """Return the range that images with the extent `measured` have most likely been made for.

    It is the least usual one that holds them and that they reach a quarter of: 12 bits in 16 are 0 to 4095, floats up
    to 1 are 0 to 1. Values a little below 0, as resizing and dark frames leave them, make no range that goes as far
    below 0 as above; but 8 bits with a sign are always all of them. Where there is none, it is the extent itself.
    """
    for low, high in _usual_ranges(dtype):
        is_within = low <= measured.low and measured.high <= high
        if is_within and (low == 0 or dtype.itemsize == 1 or measured.low <= LEAST_REACHED * low):
            reached = measured.high if low == 0 else measured.high - measured.low
            if reached >= LEAST_REACHED * (high - low):
                return Extent(low, high)
    return _widened(measured)


def is_dark(own: Extent, extent: Extent) -> bool:
    """Return whether an image with the extent `own` reaches little of a range."""
    return own.high - extent.low < LEAST_REACHED * (extent.high - extent.low)


def is_full(dtype: np.dtype[Any], extent: Extent) -> bool:
    """Return whether samples without sign use their whole type, which needs no warning."""
    return dtype.kind in "ub" and extent == full_range(dtype)


def _usual_ranges(dtype: np.dtype[Any]) -> Iterator[Extent]:
    if dtype.kind == "f":
        yield from (Extent(0.0, high) for high in HIGHEST_FLOAT)
        yield Extent(-1.0, 1.0)
        return
    full = full_range(dtype)
    yield from (Extent(0, high) for high in (*HIGHEST_WHOLE, full.high) if high <= full.high)
    if full.low < 0:
        yield full


def _widened(measured: Extent) -> Extent:
    """Return an extent that is no single value."""
    if measured.low < measured.high:
        return measured
    return Extent(min(measured.low, 0), measured.high if measured.high > 0 else measured.high + 1)


def measure(samples: Samples) -> Extent:
    """Return the extent of samples (H, W, C). Floats that are not finite do not count.

    Raises UndecodableImage where none is finite.
    """
    if samples.dtype.kind != "f":
        return Extent(int(samples.min()), int(samples.max()))
    low, high = np.inf, -np.inf
    for part in parts(samples):
        values = samples[part].astype(np.float64)
        usable = values[np.abs(values) < LARGEST_FLOAT]  # nan fails as well
        if usable.size:
            low, high = min(low, float(usable.min())), max(high, float(usable.max()))
    if low > high:
        raise UndecodableImage("No sample of the image is a finite number.", "Was it written before it was computed?")
    return Extent(low, high)


def has_missing(samples: Samples) -> bool:
    """Return whether some samples (H, W, C) are no finite numbers."""
    if samples.dtype.kind != "f":
        return False
    return not all((np.abs(samples[part].astype(np.float64)) < LARGEST_FLOAT).all() for part in parts(samples))


def merge(extents: Iterable[Extents]) -> dict[str, Extent]:
    """Return the extents of all images together."""
    merged: dict[str, Extent] = {}
    for extent_by_type in extents:
        for name, (low, high) in extent_by_type.items():
            known = merged.get(name, Extent(low, high))
            merged[name] = Extent(min(low, known.low), max(high, known.high))
    return merged


def parts(samples: Samples) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of samples (H, W, C), at most SAMPLES_AT_A_TIME at a time, that together are all."""
    height, width, channels = samples.shape
    columns = max(1, min(width, SAMPLES_AT_A_TIME // channels))
    rows = max(1, SAMPLES_AT_A_TIME // (columns * channels))
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, top + rows), slice(left, left + columns)


def to_bytes(samples: Samples, extent: Extent) -> Uint8Array:
    """Return samples (...) as grey levels: extent.low is 0, extent.high 255, and what lies beyond is cut off.

    A range of 2^n whole numbers keeps its highest 8 bits; any other is scaled and rounded.
    """
    return _convert(samples, extent, 255)


def to_words(samples: Samples, extent: Extent) -> Uint16Array:
    """Return samples (...) at 16 bits: extent.low is 0, extent.high 65535, and what lies beyond is cut off."""
    return _convert(samples, extent, 65535)


def _convert(samples: Samples, extent: Extent, highest: int) -> Samples:
    """Return samples (...) as levels from 0 to `highest`, which is 255 or 65535."""
    samples = np.ascontiguousarray(samples.astype(samples.dtype.newbyteorder("="), copy=False))
    if samples.dtype.itemsize > 2 or samples.dtype.kind == "b":
        return _scale(samples, extent, highest)
    levels: Samples = _table(samples.dtype, extent, highest)[samples.view(f"u{samples.dtype.itemsize}")]
    return levels


@lru_cache(maxsize=16)
def _table(dtype: np.dtype[Any], extent: Extent, highest: int) -> Samples:
    """Return the level of every value of a type of 8 or 16 bits, by its bits."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return _scale(np.arange(1 << (8 * dtype.itemsize), dtype=np.uint32).astype(unsigned).view(dtype), extent, highest)


def _scale(samples: Samples, extent: Extent, highest: int) -> Samples:
    low, high = extent
    values = samples.astype(np.float64)
    if samples.dtype.kind == "f":
        values[~(np.abs(values) < LARGEST_FLOAT)] = low
    count = high - low + 1
    if samples.dtype.kind in "iu" and count > highest and math.log2(count).is_integer():
        levels = np.floor((values - low) * ((highest + 1) / count))
    else:
        levels = np.rint((values - low) * (highest / (high - low)))
    return np.clip(levels, 0, highest).astype(np.min_scalar_type(highest))
