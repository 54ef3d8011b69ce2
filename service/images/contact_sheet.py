"""Pictures for answers: uint8 images (H, W, C), C 1 or 3, as PNG, base64, contact sheets, zips and heat maps."""

from __future__ import annotations

import base64
import re
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from service.images.decode import Uint8Array

# What is decoded, or tinted, is smooth and noisy: nothing in it repeats but runs. Looking for no more takes a quarter
# of the time of Pillow's own level, for files hardly larger (heat maps: 4.1 against 4.0 kB).
COMPRESSION = {"compress_level": 1, "compress_type": zlib.Z_RLE}
WHITE, INK = 255, (40, 40, 40)
# The side to which small images are enlarged, in whole steps, unless so many come that the sheet would be larger
# than viewers like to open.
SHOWN_SIDE, MOST_PIXELS = 128, 16_000_000
GAP, MARGIN, FONT_SIZE, LINE_HEIGHT = 6, 10, 13, 16
ROW_CAPTION_WIDTH, LONGEST_CAPTION, COLUMN_CAPTION_LINES = 150, 200, 3
# Zip's earliest date: the same files always make the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)
IMAGE_SUFFIX = re.compile(r"\.(png|jpe?g|webp|bmp|tiff?|gif)$", re.IGNORECASE)
# Violet to yellow, each about 15 lighter than the one before (CIELAB L* 18 to 95): a stronger value looks stronger.
HEAT = np.array([[70, 20, 90], [130, 30, 115], [195, 60, 100], [240, 115, 75], [250, 180, 80], [250, 242, 160]])
STRONGEST_ALPHA = 0.85
STRENGTHS, GREYS = 1024, 256
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue (ITU-R BT.709)


def to_png(image: Uint8Array) -> bytes:
    """`image` (H, W, C) as a PNG file, without loss."""
    return _png(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image))


def to_base64(image: Uint8Array) -> str:
    """`image` (H, W, C) as a PNG file in base64."""
    return base64.b64encode(to_png(image)).decode("ascii")


def contact_sheet(
    rows: Sequence[Uint8Array], row_captions: Sequence[str] = (), column_captions: Sequence[str] = ()
) -> Uint8Array:
    """All images on one white sheet (height, width, 3); see `_sheet`."""
    return np.array(_sheet(rows, row_captions, column_captions))


def sheet_png(
    rows: Sequence[Uint8Array], row_captions: Sequence[str] = (), column_captions: Sequence[str] = ()
) -> bytes:
    """The same as a PNG file."""
    return _png(_sheet(rows, row_captions, column_captions))


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", **COMPRESSION)
    return file.getvalue()


def _sheet(rows: Sequence[Uint8Array], row_captions: Sequence[str], column_captions: Sequence[str]) -> Image.Image:
    """All images on one white sheet.

    `rows` holds at least one row, each (k, H, W, C) with k of its own; there is a caption for every row or for
    none, and likewise for the columns. What does not fit in a caption's place is cut off with an ellipsis.
    """
    height, width = rows[0].shape[1:3]
    columns = max(len(row) for row in rows)
    scale = max(SHOWN_SIDE // max(height, width), 1)
    while scale > 1 and len(rows) * height * columns * width * scale**2 > MOST_PIXELS:
        scale -= 1
    height, width = height * scale, width * scale
    font = ImageFont.load_default(FONT_SIZE)
    row_lines = [_wrap(caption, font, ROW_CAPTION_WIDTH, max(height // LINE_HEIGHT, 1)) for caption in row_captions]
    column_lines = [_wrap(caption, font, width, COLUMN_CAPTION_LINES) for caption in column_captions]
    left, top = MARGIN, MARGIN
    if row_lines:
        left += GAP + int(max(font.getlength(line) for lines in row_lines for line in lines))
    if column_lines:
        top += GAP + LINE_HEIGHT * max(map(len, column_lines))
    xs = [left + column * (width + GAP) for column in range(columns)]
    ys = [top + row * (height + GAP) for row in range(len(rows))]

    sheet = Image.new("RGB", (xs[-1] + width + MARGIN, ys[-1] + height + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for lines, y in zip(row_lines, ys if row_lines else (), strict=True):
        first = y + (height - LINE_HEIGHT * len(lines)) // 2
        for number, line in enumerate(lines):
            draw.text((left - GAP, first + number * LINE_HEIGHT), line, INK, font, anchor="ra")
    for lines, x in zip(column_lines, xs if column_lines else (), strict=True):
        first = top - GAP - LINE_HEIGHT * len(lines)
        for number, line in enumerate(lines):
            draw.text((x + width // 2, first + number * LINE_HEIGHT), line, INK, font, anchor="ma")
    for row, y in zip(rows, ys, strict=True):
        for image, x in zip(row, xs, strict=False):
            tile = np.broadcast_to(image, (*image.shape[:2], 3)).repeat(scale, axis=0).repeat(scale, axis=1)
            sheet.paste(Image.fromarray(tile), (x, y))
    return sheet


def overlays(image: Uint8Array, evidence: NDArray[np.floating]) -> Uint8Array:
    """`image` (H, W, C), in grey, under each heat map of `evidence` (t, h, w), not negative: uint8 (t, H, W, 3).

    A map is enlarged bilinearly and measured against its own greatest value: nothing there leaves the grey
    image as it is, the most covers it nearly. Colour then means evidence, whatever colours the image has.
    """
    height, width = image.shape[:2]
    weights = np.array(LUMINANCE if image.shape[2] == 3 else (1,), dtype=np.float32)
    grey = (image.astype(np.float32) @ weights).round().astype(np.uint32)
    peaks = np.where((peaks := evidence.max(axis=(1, 2), keepdims=True)) > 0, peaks, 1)
    small = (evidence / peaks * (STRENGTHS - 1)).astype(np.float32)
    enlarged = [Image.fromarray(each).resize((width, height), Image.Resampling.BILINEAR) for each in small]
    strength = np.stack([np.asarray(each) for each in enlarged]).round().astype(np.uint32)
    tinted: Uint8Array = TINTED[strength * GREYS + grey]
    return tinted


def heat(strength: NDArray[np.floating]) -> NDArray[np.float64]:
    """The colour (..., 3), 0 to 255, of each strength (...) in [0, 1]: the stronger, the lighter."""
    stops = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(strength, stops, channel) for channel in HEAT.T], axis=-1)


def _tinted() -> Uint8Array:
    """The colour of each grey under each strength, (STRENGTHS * GREYS, 3): looking it up is faster than mixing it."""
    strength = np.linspace(0, 1, STRENGTHS)[:, None, None]
    alpha, grey = STRONGEST_ALPHA * strength, np.arange(GREYS)[:, None]
    mixed = (1 - alpha) * grey + alpha * heat(strength[..., 0])
    return mixed.round().astype(np.uint8).reshape(-1, 3)


TINTED = _tinted()


def zip_files(files: Mapping[str, bytes]) -> bytes:
    """A zip of `files` by name, in their order; the same files give the same bytes. PNGs are stored as they are."""
    return b"".join(zip_pieces((name, iter([content])) for name, content in files.items()))


def zip_pieces(files: Iterable[tuple[str, Iterator[bytes]]]) -> Iterator[bytes]:
    """The same in pieces, from files by name whose content comes in pieces: only one of them is held at a time."""
    file = _Tail()
    with zipfile.ZipFile(file, "w") as writer:
        for name, pieces in files:
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # on every system as if written on Unix
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
            with writer.open(entry, "w") as content:
                for piece in pieces:
                    content.write(piece)
            yield file.take()
    yield file.take()


class _Tail(BytesIO):
    """A file of which only what was not taken yet is held: no more is written again than the last entry's header."""

    _taken = 0

    def take(self) -> bytes:
        """Everything that was written since the last time."""
        content = self.getvalue()
        self._taken += len(content)
        super().seek(0)
        self.truncate()
        return content

    def tell(self) -> int:
        return self._taken + super().tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._taken + super().seek(offset - self._taken if whence == 0 else offset, whence)


def file_stem(image_id: str) -> str:
    """A file name, without suffix, for what the client calls `image_id`: never a path, and never empty."""
    stem = re.sub(r"[^\w.-]+", "_", IMAGE_SUFFIX.sub("", image_id))
    return stem.strip("._")[:100] or "image"


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, most_lines: int) -> list[str]:
    """`text` in lines of at most `width` pixels, at least one and at most `most_lines`."""
    # A client's id can be of any length, and hold what no font draws.
    readable = "".join(letter if letter.isprintable() else " " for letter in text[:LONGEST_CAPTION])
    lines = [""]
    for word in readable.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most_lines:
        lines = [*lines[: most_lines - 1], " ".join(lines[most_lines - 1 :])]
    return [_shorten(line, font, width) for line in lines]


def _shorten(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    lengths = range(1, len(line))
    kept = bisect_right(lengths, width, key=lambda length: ceil(font.getlength(f"{line[:length]}…")))
    return f"{line[:kept]}…"
