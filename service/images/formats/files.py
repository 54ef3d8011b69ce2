"""The image formats that are read, and the library that opens each: Pillow, pi-heif, tifffile or imagecodecs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO

from PIL import AvifImagePlugin, Image, UnidentifiedImageError

from service.errors import MisfitError, UndecodableImage, explain
from service.images.formats import (
    bmp,
    deep,
    frames,
    heif,
    other_files,
    pages,
    png_chunks,
    profiles,
    tiff,
    tiff_directory,
)
from service.images.formats.colour import Cicp
from service.images.formats.deep import DeepImage
from service.images.formats.tiff_directory import DAMAGE

# Only these are ever tried.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
READ = (*FORMATS, "HEIC")
# Endings of their files.
ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif", ".heic",
    ".heif",
)  # fmt: skip
HEAD_BYTES = 64
DAMAGE_HINT = "It may be damaged or cut short: send it again."

# These log what they cannot read, or make up for: the error says the same.
for library in ("PIL", "imagecodecs", "tifffile"):
    logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=rf"{library}\.")
# One thread decodes an image: the pool runs several workers.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def open_file(
    content: bytes | memoryview, page: int | None, check_size: Callable[[tuple[int, int]], None]
) -> Image.Image | DeepImage:
    """Read the header of an image file, or of one of its pages (`service.images.formats.pages`); of the first by
    default.

    `check_size` raises where a width and height are too large to be drawn. Raises UndecodableImage.
    """
    head = bytes(content[:HEAD_BYTES])
    is_tiff = tiff.is_tiff(head)
    if is_tiff:
        page = pages.find_first_page(content) if page is None else page
        content, page = tiff_directory.begin_at(content, page), None
        tiff_directory.check_first(content)
    if masked := bmp.open_masked(content):
        return masked
    try:
        if head[:4] == b"GIF8":
            with suppress(*DAMAGE):  # which Pillow tells
                frames.check_first(content, check_size)
        if page is not None and frames.is_animation(head):
            if deep.is_deep_png(head):
                raise UndecodableImage("Frames of a PNG of 16 bits are not read.", "Save the frames as images.")
            return _with_profile(frames.read_frame(content, page, check_size), content)
        image: Image.Image = Image.open(BytesIO(content), formats=("HEIF",) if heif.is_heic(head) else FORMATS)
        if page is not None:
            check_size(image.size)
            image.seek(page)
    except UnidentifiedImageError as error:
        if is_tiff:
            return tiff.open_page(content)
        what = f"{len(content)} bytes that begin with {head[:12]!r} cannot be read as an image"
        if damage := other_files.explain_damage(content):
            raise UndecodableImage(f"{what}. {damage.name}", damage.hint) from error
        if other_files.begins_as_image(content):
            raise UndecodableImage(f"{what}, although they begin as one does.", DAMAGE_HINT) from error
        raise UndecodableImage(
            f"{what}; expected {', '.join(READ)}.", "Send the image file's own bytes. URLs are never fetched."
        ) from error
    except MisfitError:
        raise
    except Exception as error:
        if is_tiff:
            return tiff.open_page(content)
        raise build_error(error) from error
    if is_tiff and not tiff.is_plain(image):
        image.close()
        return tiff.open_page(content)
    if deep.is_deep_png(head):
        return deep.of_png(bytes(content), image)
    png_chunks.scale_key(head, image.info)
    return _with_profile(image, content)


def _with_profile(image: Image.Image, content: bytes | memoryview) -> Image.Image:
    """Return the image, with the profile of its file in its info where Pillow has left it out."""
    if profile := profiles.find_profile(content):
        image.info["icc_profile"] = profile
    return image


def has_pages(image: Image.Image | DeepImage, content: bytes | memoryview) -> bool:
    """Return whether a file has several pages or frames that can be read."""
    if isinstance(image, DeepImage) or image.format in ("TIFF", "GIF"):
        return len(pages.find_pages(content, 1)) > 1
    if image.format not in ("WEBP", "PNG", "AVIF", "HEIF"):
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 - a damaged second frame does no harm to the first
        return False


def find_cicp(image: Image.Image | DeepImage, content: bytes | memoryview) -> Cicp | None:
    """Return the numbers that a PNG, AVIF or HEIC names its colours by; None without."""
    if isinstance(image, DeepImage) or image.format == "PNG":
        return Cicp(*numbers) if (numbers := png_chunks.find_cicp(content)) else None
    if "icc_profile" in image.info:
        return None
    if image.format == "AVIF":
        return Cicp(*names) if (names := heif.find_cicp(content)) else None
    if image.format == "HEIF":
        nclx = image.info.get("nclx_profile") or {}
        unspecified = 2
        primaries, transfer = (
            nclx.get("color_primaries", unspecified),
            nclx.get("transfer_characteristics", unspecified),
        )
        return Cicp(int(primaries), int(transfer))
    return None


def may_be_deep(head: bytes) -> bool:
    """Return whether a file that begins with these bytes, at least HEAD_BYTES, may have deep samples."""
    return tiff.is_tiff(head) or deep.is_deep_png(head)


def close(image: Image.Image | DeepImage) -> None:
    if isinstance(image, Image.Image):
        image.close()


def build_error(error: Exception) -> UndecodableImage:
    """Return the error for anything that a library raised: on damaged input decoders raise nearly every type."""
    return UndecodableImage(
        f"The image cannot be decoded: {explain(error) or 'its structure is damaged'}.",
        DAMAGE_HINT,
    )
