"""Contact sheets: many uint8 images (H, W, C), C 1 or 3, in rows and columns on one white sheet, with captions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from service.images.png import encode_png
from service.images.spec import Uint8Array

INK = (40, 40, 40)
# Small images are enlarged by a whole factor to about SHOWN_SIDE, unless the sheet would have more than MOST_PIXELS:
# viewers are slow to open larger ones.
SHOWN_SIDE, MOST_PIXELS = 128, 16_000_000
GAP, MARGIN, FONT_SIZE, LINE_HEIGHT = 6, 10, 13, 16
ROW_CAPTION_WIDTH, LONGEST_CAPTION, COLUMN_CAPTION_LINES = 150, 200, 3


def contact_sheet(
    rows: Sequence[Uint8Array], row_captions: Sequence[str] = (), column_captions: Sequence[str] = ()
) -> Uint8Array:
    """Return a sheet with all images, uint8 (height, width, 3). `rows` and captions are those of `_sheet`."""
    return np.array(_sheet(rows, row_captions, column_captions))


def sheet_png(
    rows: Sequence[Uint8Array], row_captions: Sequence[str] = (), column_captions: Sequence[str] = ()
) -> bytes:
    """Return the same sheet as a PNG file."""
    return encode_png(_sheet(rows, row_captions, column_captions))


def _sheet(rows: Sequence[Uint8Array], row_captions: Sequence[str], column_captions: Sequence[str]) -> Image.Image:
    """Return all images on one white sheet.

    `rows` holds at least one row. A row is (k, H, W, C), and k may differ from row to row. Either every row has a
    caption or none has, and the same holds for columns. A caption that does not fit is cut off with an ellipsis.
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


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, most_lines: int) -> list[str]:
    """Return `text` as 1 to `most_lines` lines, each at most `width` pixels wide."""
    # A caption may be a client's id: it has any length, and may hold characters that no font draws.
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
    """Return `line`, cut off with an ellipsis where it is wider than `width` pixels."""
    if font.getlength(line) <= width:
        return line
    lengths = range(1, len(line))
    length = bisect_right(lengths, width, key=lambda cut: ceil(font.getlength(f"{line[:cut]}…")))
    return f"{line[:length]}…"
