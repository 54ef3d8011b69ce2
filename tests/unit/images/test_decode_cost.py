"""What decoding takes, told by the first bytes of a file alone: never more than what its whole header tells."""

import io

import numpy as np
import pytest
from bombs import BOMBS
from PIL import Image

from service.bundle.manifest import ImageSpec
from service.images.decode import open_image
from service.images.formats.decode_cost import LEAST_BYTES_PER_PIXEL, estimate_least
from service.images.limits import Limits

SPEC = ImageSpec(height=64, width=64, channels=3)


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "WEBP lossless", "BMP"])
def test_the_size_is_read(format, mode):
    pixels = np.random.default_rng(1).integers(0, 255, (123, 300, 4), dtype=np.uint8)
    image = Image.fromarray(pixels, "RGBA").convert(mode)
    name, _, kind = format.partition(" ")
    file = saved(image, name, **({"lossless": True} if kind else {}))
    assert estimate_least(file) == estimate_least(memoryview(file)) == 123 * 300 * LEAST_BYTES_PER_PIXEL


def test_a_bmp_from_top_to_bottom_has_the_same_size():
    file = bytearray(saved(Image.new("RGB", (300, 123)), "BMP"))
    file[22:26] = (-123).to_bytes(4, "little", signed=True)
    assert estimate_least(bytes(file)) == 123 * 300 * LEAST_BYTES_PER_PIXEL


@pytest.mark.parametrize("kind", BOMBS)
def test_it_is_no_more_than_what_the_whole_header_tells(kind):
    file = BOMBS[kind](400)
    assert estimate_least(file) <= open_image(file, SPEC, "fit", Limits(10**9)).cost


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"BM" + bytes(40), b"\xff\xd8\xff\xe0" + bytes(40), b"RIFF" * 10])
def test_what_does_not_tell_takes_nothing(content):
    assert estimate_least(content) == 0
