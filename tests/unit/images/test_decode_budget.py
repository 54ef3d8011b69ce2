"""What a request may have decoded follows from how much was sent, and what an image takes from its header."""

import io

import numpy as np
import pytest
import tifffile
from bombs import BOMBS, jpeg_scans, png
from PIL import Image

from service.decoding.jobs import RowShape
from service.errors import TooLarge, UndecodableImage
from service.images.decode import open_image
from service.images.decode_budget import FREE_BYTES, DecodeBudget
from service.images.formats import files
from service.images.formats.deep import DeepImage
from service.images.limits import MIB, Limits
from service.settings import Settings

COLOUR = RowShape(64, 64, 3)
UNLIMITED = Limits(10**9)


def cost_of(content, resize="fit", limits=UNLIMITED):
    opened = open_image(content, COLOUR, resize, limits)
    files.close(opened.image)
    return opened.cost


def test_the_more_is_sent_the_more_may_be_decoded():
    small, large = (DecodeBudget.of(Settings(), sent) for sent in (0, 10 * MIB))
    assert small.max_bytes == 2 * FREE_BYTES
    assert large.max_bytes == small.max_bytes + 2 * 96 * 10 * MIB
    assert (small.max_seconds, large.max_seconds) == (1, 11)
    assert DecodeBudget.of(Settings(max_decode_ratio=1000, decode_seconds=3), MIB).max_bytes > 9 * large.max_bytes / 10


def test_what_is_too_much_says_what_came_and_how_to_mend_it():
    budget = DecodeBudget.of(Settings(), 1000)
    budget.take(2 * FREE_BYTES)
    with pytest.raises(TooLarge, match="384 MiB or more; of a body of 1000 bytes at most 192 MiB") as caught:
        budget.take(2 * FREE_BYTES)
    assert "MISFIT_MAX_DECODE_RATIO" in caught.value.hint
    budget.spend(0.9)
    with pytest.raises(TooLarge, match=r"more than 1\.0 s of CPU"):
        budget.spend(0.2)


def test_what_nobody_sent_has_no_limit():
    budget = DecodeBudget.unlimited()
    budget.take(2**60)
    budget.spend(1e9)
    assert budget.bytes_left > 2**60


@pytest.mark.parametrize("kind", BOMBS)
def test_no_header_makes_pillow_decode(kind):
    content = BOMBS[kind](100)
    with Image.open(io.BytesIO(content)) as image:
        opened = open_image(content, COLOUR, "fit", UNLIMITED)
    if isinstance(opened.image, DeepImage):  # the samples are read when they are asked for
        assert opened.image.read().shape[:2] == image.size[::-1]
        return
    assert opened.image._im is None
    if kind.endswith("without its end"):
        opened = opened.reopen()
        assert opened.image._im is None
    opened.image.load()
    assert opened.image._im is not None


def test_a_cost_is_about_the_memory_that_decoding_takes():
    """By mode: that it is so is measured by tests/faults/test_bombs.py."""
    pixels = 1000 * 1000
    assert cost_of(png(1000)) == 4 * pixels
    assert cost_of(png(1000, colour_type=6)) == 8 * pixels
    assert cost_of(png(1000, colour_type=0)) == 2 * pixels
    assert cost_of(png(1000, colour_type=4)) == 12 * pixels
    assert cost_of(png(1000, depth=16)) == 11 * pixels
    assert cost_of(png(1000, colour_type=0, depth=16)) == 9 * pixels
    assert cost_of(BOMBS["WebP, lossy"](1000)) == 16 * pixels
    assert cost_of(BOMBS["AVIF"](1000)) == 10 * pixels


def test_a_jpeg_is_decoded_at_a_fraction_unless_it_may_not_be():
    jpeg = BOMBS["JPEG"](1024)
    assert cost_of(jpeg) == 1024**2 + 4 * 128**2
    assert cost_of(jpeg, "reject") == 5 * 1024**2


def test_every_scan_of_a_jpeg_counts():
    one, many = (cost_of(jpeg_scans(512, scans)) for scans in (1, 401))
    assert many - one == 100 * 512**2
    # What an image of several scans keeps of every coefficient counts also where it is not progressive.
    assert cost_of(BOMBS["JPEG, progressive"](512)) > 6 * 512**2


def test_a_turned_copy_counts():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (100, 100)).save(file, "TIFF", exif=exif)
    assert cost_of(file.getvalue()) == 8 * 100**2


def test_what_one_image_may_take_follows_from_what_was_sent():
    most = {sent: DecodeBudget.of(Settings(), sent * MIB).max_image_bytes for sent in (0, 1, 2, 100)}
    assert most == {0: FREE_BYTES, 1: FREE_BYTES, 2: 2 * FREE_BYTES, 100: Settings().max_decode_bytes}
    flat = BOMBS["PNG, RGBA"](4000)  # 122 MiB
    with pytest.raises(TooLarge, match=r"4000 x 4000 pixels in a file of \d+ bytes.* at most 96 MiB") as caught:
        cost_of(flat, limits=Limits(10**9, most[1]))
    assert "Scale it down" in caught.value.hint
    assert cost_of(flat, limits=Limits(10**9, most[2])) == 8 * 4000**2


def test_what_cannot_be_used_is_refused_before_it_is_decoded():
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((300, 300), np.complex64))
    with pytest.raises(UndecodableImage, match="64 bits, photometric MINISBLACK"):
        open_image(file.getvalue(), COLOUR, "fit", UNLIMITED)


@pytest.mark.parametrize("options", [{"tile": (4096, 4096)}, {"rowsperstrip": 1 << 24}])
def test_the_largest_part_of_a_tiff_counts(options):
    """A tile may be far larger than the image."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((16, 16), np.uint16), compression="zlib", **options)
    part = 4096 * 4096 if "tile" in options else 16 * 16
    assert cost_of(file.getvalue()) == 9 * 16 * 16 + 2 * part


def test_samples_beyond_the_colours_count():
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((10, 10, 300), np.uint16), photometric="rgb", planarconfig="contig")
    assert cost_of(file.getvalue()) == (600 + 3) * 100
