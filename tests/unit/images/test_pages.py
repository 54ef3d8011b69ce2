"""The pages of a file are counted as the libraries count them, and each becomes an upload."""

import io
import resource
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from service.bundle.manifest import ImageSpec
from service.errors import TooLarge, UndecodableImage
from service.images.decode import Upload, open_image, read_rows
from service.images.formats.pages import find_pages
from service.images.limits import Limits
from service.images.page_uploads import split_pages
from service.images.sample_range import SampleRange

SPEC = ImageSpec(height=8, width=8, channels=1)
LEVELS = (10, 120, 250)
FRAMES = [Image.new("L", (8, 8), level) for level in LEVELS]


def animation(format, count=3, **options):
    file = io.BytesIO()
    FRAMES[0].save(file, format, save_all=True, append_images=FRAMES[1:count], **options)
    return file.getvalue()


def stack(pages, **options):
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **options) as writer:
        for samples, kind in pages:
            writer.write(samples, subfiletype=kind)
    return file.getvalue()


def heic():
    file = io.BytesIO()
    images = pillow_heif.from_pillow(FRAMES[0].convert("RGB"))
    for frame in FRAMES[1:]:
        images.add_from_pillow(frame.convert("RGB"))
    images.save(file, quality=100, primary_index=1)
    return file.getvalue()


def test_of_several_images_the_primary_one_is_read():
    rows = read_rows([Upload("a.heic", heic)], SPEC, "fit", Limits(1000))
    assert abs(int(rows.pixels[0, 4, 4, 0]) - LEVELS[1]) <= 3
    assert rows.notes == {0: ("pages",)}


PAGES = [(np.full((8, 8), level, np.uint8), 0) for level in LEVELS]


@pytest.mark.parametrize(
    "content",
    [
        animation("GIF"),
        animation("WEBP", lossless=True),
        animation("PNG"),
        animation("AVIF"),
        heic(),
        animation("TIFF"),
        stack(PAGES, byteorder=">"),
        stack(PAGES, bigtiff=True),
    ],
)
def test_every_page_becomes_an_upload(content):
    assert len(find_pages(content, 10)) == 3
    uploads = split_pages([Upload("a", lambda: b"no image"), Upload("b.tif", lambda: content)], 10)
    assert [upload.id for upload in uploads] == ["a", "b.tif[0]", "b.tif[1]", "b.tif[2]"]
    rows = read_rows(uploads, SPEC, "fit", Limits(1000))
    assert list(rows.errors) == [0]
    assert np.abs(rows.pixels[:, 4, 4, 0].astype(int) - LEVELS).max() <= 3
    assert rows.notes == {}


def test_one_page_stays_as_it_is():
    def fail():
        raise UndecodableImage("gone")

    files = [animation(format, count=1) for format in ("GIF", "WEBP", "PNG", "TIFF", "AVIF")]
    uploads = [Upload(str(at), lambda file=file: file) for at, file in enumerate([*files, b"", b"II*\0"])]
    uploads += [Upload("array", lambda: np.zeros((8, 8), np.uint8)), Upload("gone", fail)]
    assert split_pages(uploads, 100) == uploads


def test_smaller_copies_and_masks_are_no_pages():
    reduced, page = 1, 0
    content = stack([(samples, kind) for (samples, _), kind in zip(PAGES, (page, reduced, reduced), strict=True)])
    assert len(find_pages(content, 10)) == 1
    masked = content.replace(b"\xfe\0\4\0\1\0\0\0\1\0\0\0", b"\xfe\0\4\0\1\0\0\0\4\0\0\0")
    assert masked != content
    assert find_pages(masked, 10) == find_pages(content, 10)
    content = stack([(samples, kind) for (samples, _), kind in zip(PAGES, (page, reduced, page), strict=True)])
    assert find_pages(content, 10) == find_pages(stack(PAGES), 10)[::2]


def test_it_stops_at_the_limit_and_where_pages_go_round():
    assert len(find_pages(animation("GIF"), 1)) == 2
    assert len(split_pages([Upload("a", lambda: animation("GIF"))] * 5, 4)) == 6
    content = bytearray(stack(PAGES[:1]))
    count = int.from_bytes(content[8:10], "little")
    content[10 + 12 * count : 14 + 12 * count] = (8).to_bytes(4, "little")  # the next page is the first
    assert find_pages(bytes(content), 1000) == [8]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_damage_ends_the_count(format):
    whole = animation(format)
    for length in range(0, len(whole), 7):
        assert len(find_pages(whole[:length], 10)) <= 3
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, len(whole), 4)] = rng.integers(0, 256, 4)
        assert len(find_pages(damaged.tobytes(), 10)) <= 11


def test_a_smaller_copy_before_the_image_is_not_read():
    reduced, page = 1, 0
    content = stack([(samples, kind) for (samples, _), kind in zip(PAGES, (reduced, page, page), strict=True)])
    rows = read_rows([Upload("a.tif", lambda: content)], SPEC, "fit", Limits(1000))
    assert (rows.pixels[0, 4, 4, 0], rows.notes) == (LEVELS[1], {0: ("pages",)})
    alone = stack([(PAGES[2][0], reduced)])
    assert read_rows([Upload("a.tif", lambda: alone)], SPEC, "fit", Limits(1000)).pixels[0, 4, 4, 0] == LEVELS[2]


def test_a_preview_of_raw_data_is_refused():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(PAGES[0][0], subfiletype=1, subifds=1)
        writer.write(np.zeros((16, 16), np.uint16), photometric="cfa", subfiletype=0)
    rows = read_rows([Upload("a.dng", file.getvalue)], SPEC, "fit", Limits(1000))
    assert "raw data of a camera" in rows.errors[0].message


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_frames_are_drawn_in_one_pass_and_in_any_order(format, monkeypatch):
    """Each frame changes one square, so that it takes all those before it."""
    canvas, images = Image.new("RGB", (16, 16), "white"), []
    for level in range(40):
        canvas.paste((level * 6, 0, 0), (level % 16, level // 16, level % 16 + 1, level // 16 + 1))
        images.append(canvas.copy())
    file = io.BytesIO()
    images[0].save(
        file, format, save_all=True, append_images=images[1:], **({"lossless": True} if format == "WEBP" else {})
    )
    content, opened = file.getvalue(), []
    monkeypatch.setattr(Image, "open", lambda *args, open=Image.open, **more: opened.append(1) or open(*args, **more))
    uploads = [Upload(str(page), lambda: content, page) for page in (*range(40), 7, 3, 39)]
    rows = read_rows(uploads, ImageSpec(height=16, width=16, channels=3), "fit", Limits(1000))
    expected = [np.asarray(images[upload.page]) for upload in uploads]
    assert np.abs(rows.pixels.astype(int) - expected).max() <= (8 if format == "GIF" else 0)
    assert len(opened) == 3
    with pytest.raises(TooLarge, match="16 x 16 pixels"):
        open_image(content, SPEC, "fit", Limits(100), 5)


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def gif(*frames, screen=(8, 8)):
    """A GIF of frames (left, top, width, height, colour): flat boxes in red, green or blue, none transparent."""
    content = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x81, 0, 0) + bytes([*RED, *GREEN, *BLUE, 0, 0, 0])
    for *box, colour in frames:
        codes = [4, *(code for _ in range(box[2] * box[3]) for code in (colour, 4)), 5]  # 4 keeps them at three bits
        bits = sum(code << (3 * at) for at, code in enumerate(codes))
        data = bits.to_bytes(len(codes) * 3 // 8 + 1, "little")
        blocks = [data[at : at + 255] for at in range(0, len(data), 255)]
        content += b"," + struct.pack("<4HB", *box, 0) + b"\2"
        content += b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    return content + b";"


def test_what_the_first_frame_of_a_gif_leaves_uncovered_is_transparent():
    content = gif((2, 2, 4, 4, 1), (4, 4, 4, 4, 2), (0, 0, 8, 8, 0))
    uploads = split_pages([Upload("a.gif", lambda: content)], 10)
    assert [upload.id for upload in uploads] == ["a.gif[0]", "a.gif[1]", "a.gif[2]"]
    spec = ImageSpec(height=8, width=8, channels=3)
    for order in ([0, 1, 2], [2, 0, 1]):
        rows = read_rows([uploads[at] for at in order], spec, "fit", Limits(1000)).pixels[np.argsort(order)]
        corners = [[tuple(row[at, at].tolist()) for at in (0, 3, 5, 7)] for row in rows]
        assert corners == [[WHITE, GREEN, GREEN, WHITE], [WHITE, GREEN, BLUE, BLUE], [RED] * 4]
    alone = read_rows([Upload("a.gif", lambda: content)], spec, "fit", Limits(1000))
    assert (tuple(alone.pixels[0, 0, 0]), tuple(alone.pixels[0, 3, 3]), alone.notes) == (WHITE, GREEN, {0: ("pages",)})
    beyond = read_rows([Upload("b.gif", lambda: gif((4, 4, 4, 4, 1), screen=(6, 6)))], spec, "fit", Limits(1000))
    assert [tuple(beyond.pixels[0, at, at].tolist()) for at in (0, 3, 4, 7)] == [WHITE, WHITE, GREEN, GREEN]
    assert beyond.notes == {}


@pytest.mark.parametrize("disposal", [2, 3])
def test_room_for_a_frame_is_not_taken_before_its_size_is_looked_at(disposal):
    """A frame that is taken away afterwards has its room from the moment when Pillow reads its header."""
    side, small = 40_000, gif((0, 0, 8, 8, 1))
    control = b"!\xf9\4" + bytes([disposal << 2, 0, 0, 0, 0])
    large = control + b"," + struct.pack("<4HB", 0, 0, side, side, 0) + b"\2\2\x44\1\0"
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + side**2 // 2, hard))
    try:
        for content, page in ((small[:25] + large + b";", None), (small[:-1] + large + b";", 1)):
            with pytest.raises(TooLarge, match=f"{side} x {side} pixels"):
                open_image(content, SPEC, "fit", Limits(1000), page)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert read_rows([Upload("a.gif", lambda: small[:-1] + large + b";")], SPEC, "fit", Limits(1000)).errors == {}


def test_directories_that_lie_on_one_another_end_the_count():
    """Each of them claims as many entries as a directory can have, and most of these lie in the next one."""
    content = bytearray(1_000_000)
    content[:8] = b"II*\0\x08\0\0\0"
    places = range(8, 8 + 8 * 20_000, 8)
    for place, following in pairwise(places):
        content[place : place + 2] = b"\xff\xff"
        content[place + 2 + 12 * 0xFFFF : place + 6 + 12 * 0xFFFF] = following.to_bytes(4, "little")
    assert len(find_pages(bytes(content), 10_000)) <= 2


def test_a_page_far_behind_is_read_at_its_place():
    stacked = stack([(np.full((8, 8), level, np.uint8), 0) for level in range(200)])
    uploads = split_pages([Upload("a.tif", lambda: stacked)], 1000)
    rows = read_rows(uploads, SPEC, "fit", Limits(1000))
    assert rows.pixels[:, 4, 4, 0].tolist() == list(range(200))
    deep = stack([(np.full((8, 8), 257 * level, np.uint16), 0) for level in range(256)])
    uploads = split_pages([Upload("a.tif", lambda: deep)], 1000)
    assert read_rows(uploads[100:102], SPEC, "fit", Limits(1000), SampleRange("full")).pixels[:, 4, 4, 0].tolist() == [
        100,
        101,
    ]


@pytest.mark.parametrize("images", [1, 3])
def test_a_stack_of_imagej_with_one_directory_is_noted(images):
    """ImageJ writes so beyond 4 GB, and some programs always."""
    description = f"ImageJ=1.53t\nimages={images}\nslices={images}\nloop=false\n"
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(PAGES[0][0], description=description, metadata=None)
    content = file.getvalue() + bytes(64 * (images - 1))
    row = read_rows([Upload("a.tif", lambda: content)], SPEC, "fit", Limits(1000))
    assert row.notes == ({0: ("stack",)} if images > 1 else {})
    tifffile.imwrite(imagej := io.BytesIO(), np.stack([samples for samples, _ in PAGES]), imagej=True)
    whole = imagej.getvalue()
    assert read_rows([Upload("a.tif", lambda: whole)], SPEC, "fit", Limits(1000)).notes == {0: ("pages",)}
