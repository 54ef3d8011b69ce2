"""Decode images to rows for the encoder, uint8 (H, W, C), one by one: an image that fails has an error of its own.

An image of the right size and mode passes unchanged. Any other image is turned as EXIF says, brought to sRGB, laid on
white where it is transparent, converted to the bundle's channels and resized; the aspect ratio is not kept.

The cost of decoding is estimated from the header, before any pixel is decoded (`Opened.cost`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.errors import InvalidInput, MisfitError, ShapeMismatch, UndecodableImage
from service.images import sample_range
from service.images.conform import Note, conform
from service.images.formats import decode_cost, deep, file_ends, files, frames, pages, png_chunks
from service.images.formats.colour import Cicp
from service.images.formats.deep import DeepImage
from service.images.limits import MIB, Limits
from service.images.sample_range import Extent, Extents, SampleRange, Samples
from service.images.spec import Resize, Spec, Uint8Array

Content = bytes | memoryview | Samples
IntArray = NDArray[np.int64]
# Pillow's own limit is off: `Limits` are checked on every header before decoding.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Upload:
    """One image of a request: the client's id for it, and a function that reads its content.

    `read` returns an image file's bytes, or pixels (H, W) or (H, W, C) of any real type. It may raise MisfitError.
    page          which page it is (`service.images.formats.pages`); None for the first of a file that may have several
    is_in_memory  whether the content is there already, so that `read` takes no time
    """

    id: str
    read: Callable[[], Content]
    page: int | None = None
    is_in_memory: bool = False


@dataclass(frozen=True)
class Rows:
    """Decoded uploads.

    pixels   uint8 (k, H, W, C) of the k uploads that could be decoded, in order
    sizes    int (k, 2): width and height of each as it came, once it was turned
    errors   the errors of the other uploads, by position
    unknown  positions of the uploads that were not decoded, because their range must be measured first
    extents  of what was measured
    notes    by position
    """

    pixels: Uint8Array
    sizes: IntArray
    errors: dict[int, MisfitError]
    unknown: Sequence[int] = ()
    extents: Extents = field(default_factory=dict)
    notes: Mapping[int, Sequence[Note]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One decoded image: uint8 (H, W, C), its width and height as it came, and what is noted of it."""

    pixels: Uint8Array
    size: tuple[int, int]
    notes: tuple[Note, ...] = ()


@dataclass
class Opened:
    """An image whose header has been read.

    cost    the peak of bytes that decoding takes; also a measure of its time, about 3 ns a byte
    size    width and height in the file
    cicp    the numbers that name its colours, where it has them
    reopen  returns the image without what is damaged beside its pixels; None where that does not mend it
    """

    image: Image.Image | DeepImage
    cost: int
    size: tuple[int, int]
    notes: tuple[Note, ...] = ()
    cicp: Cicp | None = None
    reopen: Callable[[], Opened | None] = lambda: None

    def find_range(self, samples: SampleRange) -> Extent | None:
        """Return which samples become 0 and 255; None where the images of the request must be measured first."""
        if isinstance(self.image, DeepImage):
            return samples.find(self.image.dtype, self.image.full, self.image.stated)
        return sample_range.BYTES

    def measure(self) -> Extents:
        """Return the extent of a deep image's samples. Raises UndecodableImage."""
        assert isinstance(self.image, DeepImage), "only a deep image's range is unknown"
        try:
            return {self.image.dtype.name: self.image.measure()}
        except MisfitError:
            raise
        except Exception as error:
            raise files.build_error(error) from error


def read_rows(
    uploads: Sequence[Upload], spec: Spec, resize: Resize, limits: Limits, samples: SampleRange | None = None
) -> Rows:
    """Decode every upload that can be decoded, in order, in this thread.

    Without `samples`, the range of each image that states none is its own.
    """
    pixels, sizes = np.empty((len(uploads), *spec.shape), dtype=np.uint8), np.empty((len(uploads), 2), dtype=np.int64)
    errors: dict[int, MisfitError] = {}
    notes: dict[int, Sequence[Note]] = {}
    for position, upload in enumerate(uploads):
        try:
            row = read_row(upload.read(), spec, resize, limits, samples, upload.page)
        except InvalidInput as error:
            errors[position] = error
            continue
        at = position - len(errors)
        pixels[at], sizes[at] = row.pixels, row.size
        if row.notes:
            notes[position] = row.notes
    usable = len(uploads) - len(errors)
    return Rows(pixels[:usable], sizes[:usable], errors, notes=notes)


def to_row(content: Content, spec: Spec, resize: Resize, limits: Limits) -> Uint8Array:
    """Return one image as uint8 `spec.shape`. Raises UndecodableImage, TooLarge or ShapeMismatch."""
    return read_row(content, spec, resize, limits).pixels


def read_row(
    content: Content,
    spec: Spec,
    resize: Resize,
    limits: Limits,
    samples: SampleRange | None = None,
    page: int | None = None,
) -> Row:
    """Return one image, and what is noted of it. Raises UndecodableImage, TooLarge or ShapeMismatch.

    Without `samples`, or where it has not measured such images, the range of an image that states none is its own.
    """
    samples = samples or SampleRange()
    if is_row(content, spec):
        return Row(with_channels(content), (spec.width, spec.height))  # type: ignore[arg-type]  # it is an array
    opened = open_image(content, spec, resize, limits, page)
    if opened.find_range(samples) is None:
        samples = SampleRange(samples.choice, opened.measure())
    return decode(opened, spec, resize, samples)


def is_row(content: Content, spec: Spec) -> bool:
    """Return whether the content is pixels of the right shape and type, which pass unchanged."""
    return isinstance(content, np.ndarray) and content.dtype == np.uint8 and with_channels(content).shape == spec.shape


def with_channels(pixels: Samples) -> Samples:
    """Return pixels (H, W) or (H, W, C) as (H, W, C)."""
    return pixels if pixels.ndim == 3 else pixels[..., None]


def open_image(content: Content, spec: Spec, resize: Resize, limits: Limits, page: int | None = None) -> Opened:
    """Read an image's header, or take an array. Raises UndecodableImage, and TooLarge beyond `limits`."""
    if isinstance(content, np.ndarray):
        array = deep.of_array(content)
        limits.check_pixels(array.size)
        return Opened(array, array.cost, array.size)
    try:
        return _open_file(content, spec, resize, limits, page)
    except UndecodableImage:
        opened = _open_without_damage(content, spec, resize, limits, page)
        if opened is None:
            raise
        return opened


def _open_without_damage(
    content: bytes | memoryview, spec: Spec, resize: Resize, limits: Limits, page: int | None
) -> Opened | None:
    """Return the image of a PNG without what is damaged beside its pixels, or of a JPEG that lacks only its end; None
    where it is neither.
    """
    sound = png_chunks.drop_damaged(content) or file_ends.add_jpeg_end(content, _draft_size(spec, resize))
    if sound is None:
        return None
    opened = _open_file(sound, spec, resize, limits, page)
    if png_chunks.has_profile(content) and not png_chunks.has_profile(sound):
        opened.notes += ("profile",)
    return opened


def _open_file(content: bytes | memoryview, spec: Spec, resize: Resize, limits: Limits, page: int | None) -> Opened:
    length, (content, compressed_texts) = len(content), png_chunks.drop_unused_texts(content)
    content = file_ends.close(content, _draft_size(spec, resize))
    file = files.open_file(content, page, limits.check_pixels)
    try:
        limits.check_pixels(file.size)
        size = file.size
        if isinstance(file, DeepImage):
            cost = file.cost
        else:
            if draft_size := _draft_size(spec, resize):
                file.draft(None, draft_size)
            cost = decode_cost.estimate(file, size, content)
        cost += compressed_texts * MIB
        limits.check_cost(cost, size, length)
        png_chunks.check_pixels(content, size)
    except MisfitError:
        files.close(file)
        raise
    except Exception as error:
        files.close(file)
        raise files.build_error(error) from error
    notes: tuple[Note, ...] = ("pages",) if page is None and files.has_pages(file, content) else ()
    notes += ("stack",) if page is None and pages.has_stack_behind(content) else ()
    cicp = files.find_cicp(file, content)
    return Opened(file, cost, size, notes, cicp, partial(_open_without_damage, content, spec, resize, limits, page))


def _draft_size(spec: Spec, resize: Resize) -> tuple[int, int] | None:
    """Return the least size at which Pillow decodes a large JPEG: twice what the model takes. None for its own size."""
    return (2 * max(spec.width, spec.height),) * 2 if resize == "fit" else None


def decode(opened: Opened, spec: Spec, resize: Resize, samples: SampleRange) -> Row:
    """Return an opened image, whose range `samples` knows, and close it. Raises UndecodableImage or ShapeMismatch."""
    try:
        return _decode(opened, spec, resize, samples)
    except ShapeMismatch:
        raise
    except UndecodableImage:
        reopened = opened.reopen()
        if reopened is None:
            raise
        return _decode(reopened, spec, resize, samples)


def _decode(opened: Opened, spec: Spec, resize: Resize, samples: SampleRange) -> Row:
    notes, cicp = list(opened.notes), opened.cicp
    try:
        if isinstance(opened.image, DeepImage):
            extent = opened.find_range(samples)
            assert extent is not None, "images of unknown range are measured first"
            conversion = opened.image.find_conversion(cicp)
            image, own, has_missing = opened.image.to_pillow(extent, conversion)
            cicp = None if conversion else cicp
            notes += ["missing"] if has_missing else []
            notes += ["cut"] if own.low < extent.low or own.high > extent.high else []
            notes += ["dark"] if sample_range.is_dark(own, extent) else []
        else:
            image = opened.image
        with image:
            image.load()
            image = frames.clear_uncovered(image)
            sent, size = image.size, opened.size
            if decode_cost.may_be_turned(image):
                with suppress(Exception):  # an image whose EXIF is damaged stays as it is
                    ImageOps.exif_transpose(image, in_place=True)
            pixels = conform(image, spec, resize, cicp, notes)
            if not isinstance(opened.image, DeepImage) and pixels.item(0) <= 1 == pixels.max():  # the cheap look first
                notes.append("faint")
            return Row(pixels, size if image.size == sent else size[::-1], tuple(notes))
    except MisfitError:
        raise
    except Exception as error:
        raise files.build_error(error) from error
