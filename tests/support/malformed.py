"""Valid images and bodies of every kind, and what becomes of them when they are spoiled."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Mapping, Sequence

import bodies
import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Where a parser reads a length or an offset: none, the most, the most of each signed kind, and one too many.
WORDS = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\xff" * 8,
)


def image_files(pixels: NDArray[np.uint8]) -> list[bytes]:
    """`pixels` (H, W, 3) as files of every format, in several modes and ways to compress."""
    image = Image.fromarray(pixels)
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    ways: list[tuple[Image.Image, str, dict[str, object]]] = [
        *((image.convert(mode), "PNG", {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")),
        (deep, "PNG", {}),
        (image, "JPEG", {"exif": turned}),
        (image, "JPEG", {"progressive": True}),
        (image.convert("CMYK"), "JPEG", {}),
        (image, "WEBP", {}),
        (image.convert("RGBA"), "WEBP", {"lossless": True}),
        (image, "BMP", {}),
        (image.convert("P"), "BMP", {}),
        *((image, "TIFF", {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
        (deep, "TIFF", {}),
        (deep, "TIFF", {"compression": "tiff_lzw"}),
        (Image.fromarray(pixels[..., 0] / np.float32(255)), "TIFF", {"compression": "tiff_deflate"}),
        (image.convert("I"), "TIFF", {}),
        (image, "AVIF", {}),
        (image, "TIFF", {"save_all": True, "append_images": [image.rotate(90)]}),
        (image, "GIF", {"save_all": True, "append_images": [image.rotate(90)]}),
        (image, "TIFF", {"big_tiff": True}),
    ]
    return [_saved(*way) for way in ways]


def _saved(image: Image.Image, format: str, options: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def request_bodies(files: Sequence[bytes], images: NDArray[np.uint8]) -> list[bodies.Body]:
    """A few small images in every wire format, with reference sets, options and a context."""
    named = {f"{number}.png": file for number, file in enumerate(files)}
    options = b'{"estimator": "robust", "threshold": 0.25}'
    form = [*bodies.form_of(named), ("options", None, options), *bodies.form_of({"r.png": files[0]}, "reference")]
    arrays = io.BytesIO()
    np.savez(arrays, images=images, reference=images)
    return [
        bodies.as_form(form),
        bodies.as_form([("images", "images.npy", bodies.npy(images)), ("context", None, b'{"bundle_id": "x"}')]),
        bodies.as_npy(images),
        bodies.as_npy(np.asfortranarray(images[..., 0])),
        bodies.as_zip({**named, "reference/r.png": files[0], "context.json": b'{"bundle_id": "x"}'}),
        ("application/zip", arrays.getvalue()),
        bodies.as_tar({**named, "reference/r.png": files[0], "rows.npy": bodies.npy(images)}),
        bodies.as_json(files, options={"fdr": 0.1}),
        ("application/x-tar", _tar_with_links(named)),
        ("application/zip", _zip_with_links(named) + bodies.zipped(named)),
        bodies.as_form(
            [*(_pages_of(images, format) for format in ("TIFF", "GIF")), ("options", None, b'{"pages": "all"}')]
        ),
    ]


def _tar_with_links(files: Mapping[str, bytes]) -> bytes:
    """A tar with extended headers: long names that are not ASCII, and links to links through a folder."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "of all"}
    ) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"größe/{'lang' * 30}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (
            ("folder", f"größe/{'lang' * 30}"),
            ("soft.png", "folder/0.png"),
            ("again.png", "soft.png"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    return buffer.getvalue()


def _zip_with_links(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"folder/{name}", content)
        for name, target in (("linked", "folder"), ("soft.png", "linked/0.png")):
            link = zipfile.ZipInfo(name)
            link.create_system, link.external_attr = 3, 0o120777 << 16
            archive.writestr(link, target)
    return buffer.getvalue()


def _pages_of(images: NDArray[np.uint8], format: str) -> bodies.Part:
    """Images (N, H, W, 3) as the pages of one file."""
    first, *others = (Image.fromarray(image) for image in images)
    return "images", f"pages.{format.lower()}", _saved(first, format, {"save_all": True, "append_images": others})


def spoil(content: bytes, chance: random.Random) -> bytes:
    """`content` with one to four faults: bits flipped, fields overwritten, pieces lost, doubled, moved or cut off."""
    spoiled = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(spoiled) + 1)
        if chance.random() < 0.5:  # most of what a parser believes stands near the beginning
            at = min(at, chance.randrange(256))
        piece = spoiled[at : at + chance.choice((1, 4, 16, 256, 4096))]
        match chance.randrange(7):
            case 0:
                spoiled[at : at + 1] = bytes(byte ^ 1 << chance.randrange(8) for byte in spoiled[at : at + 1])
            case 1:
                word = chance.choice(WORDS)
                spoiled[at : at + len(word)] = word
            case 2:
                del spoiled[at : at + len(piece)]
            case 3:
                spoiled[at:at] = piece * chance.randint(1, 3)
            case 4:
                to = chance.randrange(len(spoiled) + 1)
                spoiled[to : to + len(piece)] = piece
            case 5:
                spoiled[at:at] = chance.randbytes(chance.randint(1, 64))
            case 6:
                del spoiled[at:]
    return bytes(spoiled)
