"""Request bodies in every wire format, for tests and benchmarks."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BOUNDARY = "misfit-test-boundary"
Body = tuple[str, bytes]  # content type, content
Part = tuple[str, str | None, bytes]  # field, file name, content


def encoded(pixels: NDArray[np.uint8], format: str = "PNG") -> bytes:
    """`pixels` (H, W) or (H, W, C) as an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, format)
    return buffer.getvalue()


def npy(array: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def zipped(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def as_form(parts: Iterable[Part]) -> Body:
    body = io.BytesIO()
    for field, filename, content in parts:
        name = f'; filename="{filename}"' if filename else ""
        body.write(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"{name}\r\n\r\n'.encode())
        body.write(content + b"\r\n")
    body.write(f"--{BOUNDARY}--\r\n".encode())
    return f"multipart/form-data; boundary={BOUNDARY}", body.getvalue()


def as_npy(images: NDArray[np.uint8]) -> Body:
    return "application/x-npy", npy(images)


def as_zip(files: Mapping[str, bytes]) -> Body:
    return "application/zip", zipped(files)


def as_tar(files: Mapping[str, bytes]) -> Body:
    return "application/x-tar", tarred(files)


def as_json(images: Iterable[bytes], **more: object) -> Body:
    content = {"images": [base64.b64encode(image).decode() for image in images], **more}
    return "application/json", json.dumps(content).encode()


def image_files(images: NDArray[np.uint8]) -> dict[str, bytes]:
    """`images` (N, H, W, C) as PNG files 0000.png, 0001.png, ..."""
    return {f"{number:04}.png": encoded(pixels) for number, pixels in enumerate(images)}


def form_of(files: Mapping[str, bytes], field: str = "images") -> list[Part]:
    return [(field, name, content) for name, content in files.items()]
