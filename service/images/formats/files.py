"""The image formats that are read, and the library that opens each: Pillow, pi-heif, tifffile or imagecodecs."""

from __future__ import annotations

import logging
from functools import cache
from io import BytesIO

from PIL import AvifImagePlugin, Image, ImageFile, UnidentifiedImageError

from service.errors import MisfitError, UndecodableImage
from service.images.formats import deep, other_files, pages, png_chunks, tiff
from service.images.formats.deep import DeepImage

# Only these are ever tried.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
READ = (*FORMATS, "HEIC")
# Endings of their files.
ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif", ".heic",
    ".heif",
)  # fmt: skip
HEAD_BYTES = 64
# Brands of HEIF files whose pictures are HEVC, and of those that may hold pictures of any codec.
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
ANY_BRANDS = (b"mif1", b"msf1", b"mif2")

# These log what they cannot read, or make up for: the error says the same.
for library in ("PIL", "imagecodecs", "tifffile"):
    logging.getLogger(library).setLevel(logging.CRITICAL)
# One thread decodes an image: the pool runs several workers.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def open_file(content: bytes | memoryview, page: int | None) -> ImageFile.ImageFile | DeepImage:
    """Read the header of an image file, or of one of its pages; of the first by default. Raises UndecodableImage."""
    head = bytes(content[:HEAD_BYTES])
    is_tiff = tiff.is_tiff(head)
    if page is None:
        page = pages.find_first_page(content) if is_tiff else 0
    try:
        image = Image.open(BytesIO(content), formats=("HEIF",) if _is_heic(head) else FORMATS)
        if page:
            image.seek(page)
    except UnidentifiedImageError as error:
        if is_tiff:
            return tiff.open_page(content, page)
        what = f"{len(content)} bytes that begin with {head[:12]!r} cannot be read as an image"
        if damage := other_files.explain_damage(content):
            raise UndecodableImage(f"{what}. {damage.name}", damage.hint) from error
        raise UndecodableImage(
            f"{what}; expected {', '.join(READ)}.", "Send the image file's own bytes. URLs are never fetched."
        ) from error
    except MisfitError:
        raise
    except Exception as error:
        if is_tiff:
            return tiff.open_page(content, page)
        raise build_error(error) from error
    if is_tiff and not tiff.is_plain(image):
        image.close()
        return tiff.open_page(content, page)
    if deep.is_deep_png(head):
        return deep.of_png(bytes(content), image)
    png_chunks.scale_key(head, image.info)
    return image


def has_pages(image: ImageFile.ImageFile | DeepImage, content: bytes | memoryview) -> bool:
    """Return whether a file has several pages or frames."""
    if isinstance(image, DeepImage) or image.format == "TIFF":
        return len(pages.find_pages(content, 1)) > 1
    if image.format not in ("GIF", "WEBP", "PNG", "AVIF"):
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 - a damaged second frame does no harm to the first
        return False


def find_cicp(image: ImageFile.ImageFile | DeepImage, content: bytes | memoryview) -> tuple[int, int] | None:
    """Return the numbers of the primaries and of the transfer function that a PNG or HEIC names; None without."""
    if isinstance(image, DeepImage) or image.format == "PNG":
        return png_chunks.find_cicp(content)
    if image.format == "HEIF" and "icc_profile" not in image.info:
        nclx = image.info.get("nclx_profile") or {}
        unspecified = 2
        return int(nclx.get("color_primaries", unspecified)), int(nclx.get("transfer_characteristics", unspecified))
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
        f"The image cannot be decoded: {error or type(error).__name__}.",
        "It may be damaged or cut short: send it again.",
    )


def _is_heic(head: bytes) -> bool:
    """Return whether a file that begins so holds pictures in HEVC, which pi-heif reads.

    Raises UndecodableImage where it does and the library is missing.
    """
    if head[4:8] != b"ftyp":
        return False
    brands = head[8 : int.from_bytes(head[:4], "big")]
    is_heic = brands[:4] in HEIC_BRANDS or (brands[:4] in ANY_BRANDS and b"avif" not in brands)
    if is_heic and not _register_heif():
        raise UndecodableImage(
            "The image is HEIC, which this installation does not read.",
            "Install pi-heif where the service runs, or save the image as JPEG.",
        )
    return is_heic


@cache
def _register_heif() -> bool:
    """Teach Pillow to read HEIC; return whether the library for it is there."""
    try:
        import pi_heif  # here, because few images need it
    except ImportError:
        return False
    pi_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
    return True
