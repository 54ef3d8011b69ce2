"""TIFF files that Pillow does not read, or reads at fewer bits: with tifffile, and the codecs of imagecodecs.

Pillow reads the others: 8 bits a channel, grey, palette, RGB or CMYK, in the usual compressions.
"""

from __future__ import annotations

import contextlib
import math
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from service.errors import UndecodableImage, explain
from service.images import sample_range
from service.images.formats.deep import DeepImage, decoded_bytes
from service.images.sample_range import Extent, Samples

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags of TIFF 6.0, of Adobe and of GDAL.
BITS, COMPRESSION, ORIENTATION, COLOUR_MAP, MAX_SAMPLE, SAMPLE_FORMAT, S_MIN, S_MAX = (
    258,
    259,
    274,
    320,
    281,
    339,
    340,
    341,
)
ICC_PROFILE, GDAL_NODATA, IMAGE_DEPTH = 34675, 42113, 32997
PHOTOMETRIC, YCBCR_COEFFICIENTS, YCBCR_SUBSAMPLING = 262, 529, 530
YCBCR, JPEGS, BT_601 = 6, (6, 7), (0.299, 0.587, 0.114)
# Compressions that Pillow's libtiff has: none, CCITT, LZW, JPEG, deflate, packbits, LZMA, Zstandard.
PILLOW_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000})
PILLOW_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"})
WHOLE, SIGNED, FLOAT = 1, 2, 3
ASSOCIATED_ALPHA, STRAIGHT_ALPHA = 1, 2
# Compressions that are colour images of their own: what they hold comes out as RGB.
RGB_CODECS = frozenset({"JPEG", "OJPEG", "WEBP", "APERIO_JP2000_YCBC", "JPEG2000", "JPEGXL"})
# Each further strip or tile takes as long as so many bytes, however few it has.
SEGMENT_COST = 4096
HINT = "Save it as grey, RGB or CMYK, of 8 or 16 bits or floats, or as PNG."

DAMAGE_HINT = "It may be damaged or cut short: send it again, or save it as PNG."


class Kind(NamedTuple):
    """How a TIFF's samples become colours: Pillow's mode without alpha, and the number of samples."""

    mode: str
    samples: int


KINDS = {
    "MINISBLACK": Kind("L", 1),
    "MINISWHITE": Kind("L", 1),
    "RGB": Kind("RGB", 3),
    "PALETTE": Kind("RGB", 1),
    "SEPARATED": Kind("CMYK", 4),
}

COLOURS = KINDS.keys() - {"MINISBLACK", "MINISWHITE"}


def is_tiff(head: bytes) -> bool:
    return head[:4] in MAGIC


def is_plain(image: Image.Image) -> bool:
    """Return whether Pillow reads a TIFF, which it has opened as `image`, as it is meant."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    return (
        image.mode in PILLOW_MODES
        and max(tags.get(BITS, (1,))) <= 8
        and set(tags.get(SAMPLE_FORMAT, (WHOLE,))) <= {WHOLE}
        and tags.get(COMPRESSION, 1) in PILLOW_COMPRESSIONS
        and tags.get(IMAGE_DEPTH, 1) == 1
        and not is_palette_of_bytes(tags.get(COLOUR_MAP, ()))
        and PHOTOMETRIC in tags
        and (tags[PHOTOMETRIC] != YCBCR or _is_plain_ycbcr(tags))
        and (image.mode != "1" or BITS in tags or tags.get(COMPRESSION, 1) != 1)
    )


def _is_plain_ycbcr(tags: Any) -> bool:
    """Return whether luma and chroma are those of a JPEG, or of the coefficients and the resolution that Pillow has."""
    coefficients = [float(value) for value in tags.get(YCBCR_COEFFICIENTS, BT_601)]
    is_usual = len(coefficients) == len(BT_601) and np.allclose(coefficients, BT_601, rtol=0, atol=0.001)
    return tags.get(COMPRESSION, 1) in JPEGS or (is_usual and tuple(tags.get(YCBCR_SUBSAMPLING, (2, 2))) == (1, 1))


def is_palette_of_bytes(colours: Any) -> bool:
    """Return whether a palette has levels from 0 to 255 where TIFF wants 0 to 65535, as some programs write it."""
    return 0 < int(np.max(colours, initial=0)) < 256


def open_page(content: bytes | memoryview) -> DeepImage:
    """Return the first page of a TIFF as a deep image. Raises UndecodableImage where it is of no kind that is read."""
    import tifffile  # here, because few images need it

    try:
        file = tifffile.TiffFile(BytesIO(content))
        return _describe(file.pages[0])
    except UndecodableImage:
        raise
    except Exception as error:  # tifffile raises nearly every type on damaged files
        text = explain(error) or "its structure is damaged"
        raise UndecodableImage(f"The TIFF cannot be read: {text}.", DAMAGE_HINT) from error


def _describe(page: Any) -> DeepImage:
    """Return tifffile's page as a deep image."""
    photometric, dtype = getattr(page.photometric, "name", str(page.photometric)), page.dtype
    compression = getattr(page.compression, "name", str(page.compression))
    if not page.imagewidth or not page.imagelength:
        raise UndecodableImage("The TIFF's directory tells no width and height.", DAMAGE_HINT)
    if PHOTOMETRIC not in page.tags:
        if page.samplesperpixel < 3:
            raise UndecodableImage(
                "The TIFF does not say whether 0 is black or white.",
                "Set its PhotometricInterpretation (tiffset -s 262 1: 0 is black), or save it as PNG.",
            )
        photometric = "RGB"
    what = f"{page.bitspersample} bits, photometric {photometric}, compression {compression}"
    bytes_of_bits = -(-page.imagewidth // 8) * page.imagelength
    if BITS not in page.tags and (photometric in COLOURS or sum(page.databytecounts) > 2 * bytes_of_bits):
        raise UndecodableImage("The TIFF does not say how many bits a sample has.", HINT)
    if photometric == "YCBCR" and compression in RGB_CODECS:
        photometric = "RGB"
    is_of_three_bytes = page.bitspersample == 24 and dtype is not None and dtype.kind in "iu"  # whose order gets lost
    if page.imagedepth != 1:
        raise UndecodableImage(
            f"The TIFF is a volume of {page.imagedepth} planes, expected an image.",
            "Save its planes as pages or as images.",
        )
    is_mixed = isinstance(page.bitspersample, tuple)
    if dtype is None or dtype.kind not in "biuf" or photometric not in KINDS or is_of_three_bytes or is_mixed:
        raise UndecodableImage(f"This kind of TIFF is not read: {what}.", HINT)
    mode, count = KINDS[photometric]
    total = page.samplesperpixel
    extra = tuple(page.extrasamples or ())
    if photometric == "MINISBLACK" and total >= 3 and not _is_alpha(extra):
        mode, count = "RGB", 3
        if total > 3:
            raise UndecodableImage(
                f"The TIFF has {total} channels, and does not say which of them are red, green and blue.", HINT
            )
    if total < count:
        raise UndecodableImage(f"This kind of TIFF is not read: {what}, {total} samples a pixel.", HINT)
    if _is_alpha(extra) and total > count and mode != "CMYK" and photometric != "PALETTE":
        mode += "a" if extra[0] == ASSOCIATED_ALPHA and mode == "RGB" else "A"
        count += 1
    full = _full_range(dtype, page.bitspersample)
    is_stated = dtype.kind == "b" or full != sample_range.full_range(dtype) or dtype == np.uint8
    stated = _stated_range(page, dtype) or (full if is_stated else None)
    if photometric == "PALETTE":
        dtype = np.dtype(np.uint16)
        full = stated = sample_range.full_range(dtype)
    info = {}
    if ICC_PROFILE in page.tags:
        info["icc_profile"] = bytes(page.tags[ICC_PROFILE].value)
    orientation = page.tags[ORIENTATION].value if ORIENTATION in page.tags else 1
    return DeepImage(
        (page.imagewidth, page.imagelength),
        mode,
        dtype,
        full,
        stated,
        partial(_read, page, count, photometric == "PALETTE", _missing_value(page)),
        decoded_bytes(max(total, len(mode)) * dtype.itemsize, mode),
        segment_bytes=SEGMENT_COST * (len(page.dataoffsets) - 1)
        + (0 if page.is_contiguous else math.prod(page.chunks) * dtype.itemsize),
        is_inverted=photometric == "MINISWHITE",
        info=info,
        orientation=int(orientation),
    )


def _is_alpha(extra: tuple[int, ...]) -> bool:
    return bool(extra) and int(extra[0]) in (ASSOCIATED_ALPHA, STRAIGHT_ALPHA)


def _full_range(dtype: np.dtype[Any], bits: int) -> Extent:
    if dtype.kind == "u":
        return Extent(0, 2**bits - 1)
    if dtype.kind == "i":
        return Extent(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return sample_range.full_range(dtype)


def _stated_range(page: Any, dtype: np.dtype[Any]) -> Extent | None:
    """Return the range that tags state, None where they state none.

    SMinSampleValue and SMaxSampleValue are meant for it. MaxSampleValue is a statistic of the image (TIFF 6.0), but
    where it is 2^n - 1 it says how many bits of the samples are used.
    """
    if S_MAX in page.tags:
        low = min(_numbers(page, S_MIN), default=0.0)
        high = max(_numbers(page, S_MAX), default=0.0)
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return Extent(low, high)
    if dtype.kind == "u" and MAX_SAMPLE in page.tags:
        high = int(max(_numbers(page, MAX_SAMPLE), default=0))
        if high >= 255 and (high + 1).bit_count() == 1:
            return Extent(0, high)
    return None


def _numbers(page: Any, tag: int) -> list[float]:
    value = page.tags[tag].value if tag in page.tags else ()
    return [float(number) for number in (value if isinstance(value, tuple) else (value,))]


def _missing_value(page: Any) -> float | None:
    """Return the value that stands for a sample that is missing, as GDAL writes it."""
    with contextlib.suppress(ValueError):
        return float(page.tags[GDAL_NODATA].value) if GDAL_NODATA in page.tags else None
    return None


def _read(page: Any, count: int, is_palette: bool, missing: float | None) -> Samples:
    """Return a page's samples (H, W, count)."""
    try:
        samples: Samples = page.asarray(maxworkers=1)
    except Exception as error:  # the codecs raise types of their own
        text = explain(error) or "its structure is damaged"
        raise UndecodableImage(f"The TIFF cannot be decoded: {text}.", DAMAGE_HINT) from error
    if page.axes.startswith("S"):  # one plane after the other
        samples = np.moveaxis(samples, 0, -1)
    samples = samples.reshape(page.imagelength, page.imagewidth, -1)
    if is_palette:
        colours = np.where(is_palette_of_bytes(page.colormap), 257, 1).astype(np.uint16) * page.colormap
        return np.moveaxis(colours[:, samples[..., 0]], 0, -1)
    samples = samples[..., :count]
    return samples if missing is None else _fill_missing(samples, missing)


def _fill_missing(samples: Samples, missing: float) -> Samples:
    """Return samples in which those that are missing are nan, or of whole numbers the lowest of the others.

    They come out dark, and count for no range. Where 0 says that a sample is missing, it is black already.
    """
    is_missing = samples == missing
    if samples.dtype.kind == "f":
        return np.where(is_missing, np.nan, samples)
    if missing == 0 or samples.dtype.kind == "b" or is_missing.all():
        return samples
    return np.where(is_missing, samples.min(where=~is_missing, initial=np.iinfo(samples.dtype).max), samples)
