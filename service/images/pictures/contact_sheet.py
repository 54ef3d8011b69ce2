"""Contact sheets: many uint8 images (H, W, C), C 1 or 3, in rows and columns on one white sheet, with captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from service.images.pictures.captions import INK, LINE_HEIGHT, load_font, wrap
from service.images.pictures.png import encode_png
from service.images.spec import Uint8Array

# Small images are enlarged by a whole factor to about SHOWN_SIDE, unless the sheet would have more than MOST_PIXELS:
# viewers are slow to open larger ones.
SHOWN_SIDE, MOST_PIXELS = 128, 16_000_000
GAP, MARGIN = 6, 10
ROW_CAPTION_WIDTH, COLUMN_CAPTION_LINES = 150, 3
NOTE_WIDTH, NOTE_LINES = 480, 12
WHITE = 255


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


def note_png(text: str) -> bytes:
    """Return a sheet without images, as a PNG file: it says in words why there are none."""
    lines = wrap(text, font := load_font(), NOTE_WIDTH, NOTE_LINES)
    size = NOTE_WIDTH + 2 * MARGIN, LINE_HEIGHT * len(lines) + 2 * MARGIN
    sheet = Image.new("RGB", size, "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((MARGIN, MARGIN + number * LINE_HEIGHT), line, INK, font)
    return encode_png(sheet)


def count_rows(columns: int, height: int, width: int) -> int:
    """Return how many rows of so many images, each (height, width), a sheet of about MOST_PIXELS has; at least one."""
    return max(1, MOST_PIXELS // (columns * (height + GAP) * (width + GAP)))


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
    font = load_font()
    row_lines = [wrap(caption, font, ROW_CAPTION_WIDTH, max(height // LINE_HEIGHT, 1)) for caption in row_captions]
    column_lines = [wrap(caption, font, width, COLUMN_CAPTION_LINES) for caption in column_captions]
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
