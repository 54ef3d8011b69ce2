"""PNG's compressed texts: those that are of use stay, the others go, and the picture is the same."""

import zlib
from io import BytesIO

import bodies
import numpy as np
import pytest
from bombs import png, png_chunk, png_profiles, png_texts
from PIL import Image

from service.images.formats.png_chunks import USED_KEYWORDS, drop_unused_texts


def text(keyword, kind=b"zTXt"):
    return png_chunk(kind, keyword + b"\0\0" + zlib.compress(b"a text"))


@pytest.mark.parametrize("make", [png_texts, png_profiles])
def test_many_texts_go_and_the_picture_stays(make):
    file, used = drop_unused_texts(make(20))
    assert used <= 1
    assert len(file) < 2500
    assert np.array_equal(np.asarray(Image.open(BytesIO(file))), np.zeros((20, 20, 3)))


def test_the_first_of_each_text_that_is_of_use_stays():
    used = [text(keyword) for keyword in USED_KEYWORDS]
    profile = png_chunk(b"iCCP", b"any name\0\0" + zlib.compress(b"a profile"))
    others = [text(b"Comment"), text(b"Description", b"iTXt"), *used, profile]
    file = png(8, before=b"".join([*used[:2], profile, used[2], *others]))
    assert drop_unused_texts(file) == (png(8, before=b"".join([*used[:2], profile, used[2]])), 4)


def test_texts_behind_the_pixels_go_as_well():
    file = png(8)
    end = png_chunk(b"IEND", b"")
    assert drop_unused_texts(file.removesuffix(end) + text(b"Comment") * 9 + end) == (file, 0)


def test_what_has_none_is_not_touched(images):
    for file in (bodies.encoded(images[0]), bodies.encoded(images[0], "JPEG") + b"zTXt", b"", b"\x89PNG\r\n\x1a\n"):
        assert drop_unused_texts(file) == (file, 0)


def test_what_cannot_be_followed_keeps_its_rest():
    broken = png(8, before=text(b"Comment"))[:-5]
    assert drop_unused_texts(broken)[0] == png(8)[:-5]
    assert drop_unused_texts(png(8) + b"zTXt")[0] == png(8) + b"zTXt"
    assert drop_unused_texts(memoryview(png(8, before=text(b"a"))))[0] == png(8)
