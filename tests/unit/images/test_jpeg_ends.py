"""A JPEG without its end marker is read where all its pixels are there, and refused where some are missing."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from service.bundle.manifest import ImageSpec
from service.errors import UndecodableImage
from service.images.decode import read_row
from service.images.formats.file_ends import add_jpeg_end
from service.images.limits import Limits

SPEC, LIMITS = ImageSpec(height=64, width=64, channels=3), Limits(1_000_000)
WAYS = [
    {},
    {"progressive": True},
    {"subsampling": 0, "quality": 100},
    {"restart_marker_blocks": 4},
    {"restart_marker_rows": 1},
]


def jpeg(width, height, mode="RGB", **options):
    rng = np.random.default_rng(width * height)
    small = Image.fromarray(rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8))
    file = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def pixels_of(content, resize="fit", spec=SPEC):
    return read_row(content, spec, resize, LIMITS).pixels


@pytest.mark.parametrize("options", WAYS)
@pytest.mark.parametrize("size", [(64, 64), (50, 35), (700, 500)])
def test_what_lacks_only_its_end_is_read(options, size):
    for mode in ("RGB", "L", "CMYK"):
        content = jpeg(*size, mode, **options)
        whole = pixels_of(content)
        for without_end in (content[:-2], content[:-1], content[:-2] + b"\xff\xff", content[:-2] + bytes(4000)):
            assert np.array_equal(pixels_of(without_end), whole)
        assert np.array_equal(pixels_of(content + bytes(4000)), whole)


@pytest.mark.parametrize("options", WAYS)
def test_what_lacks_pixels_is_refused(options):
    """Also where zeros stand in their place, as in a download that was given up."""
    chance = random.Random(0)
    for width in range(20, 100, 5):
        content = jpeg(width, 40, **options)
        spec = ImageSpec(height=40, width=width, channels=3)
        whole = pixels_of(content, "reject", spec)
        cut = content[: chance.randrange(content.index(b"\xff\xda") + 20, len(content) - 10)]
        for damaged in (cut, cut + b"\xff", cut + bytes(chance.randrange(3, 4000))):
            try:
                assert np.array_equal(pixels_of(damaged, "reject", spec), whole)  # the last bits may not be needed
            except UndecodableImage as error:
                assert "send it again" in str(error)  # noqa: PT017 - either way is right
            else:
                assert len(content) - len(cut) < 100


def test_a_progressive_jpeg_between_its_scans_is_refused():
    content = jpeg(64, 64, progressive=True)
    scans = [at for at in range(len(content)) if content[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for scan in scans[1:]:
        table = content.rindex(b"\xff\xc4", 0, scan)
        for end in (scan, table):
            with pytest.raises(UndecodableImage):
                pixels_of(content[:end])


def test_what_stands_behind_the_end_does_no_harm():
    """As the film of a photograph that moves: its bytes may look like markers."""
    content = jpeg(64, 64)
    behind = b"\0\0\0\x18ftypmp42" + b"\xff\xc0\0\x0b\x08\0\x40\0\x40\1\7\x11\0" + bytes(99)
    assert np.array_equal(pixels_of(content + behind), pixels_of(content))


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda", b"\xff\xd8" + bytes(99), b"\x89PNG"])
def test_what_is_no_jpeg_has_no_end(content):
    assert add_jpeg_end(content, None) is None
