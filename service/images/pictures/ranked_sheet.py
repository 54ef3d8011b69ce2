"""Ranked sheets: images one after the other, each with its id, rank and reason below it, the flagged ones framed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from service.images.pictures.captions import INK, LINE_HEIGHT, WARNING_INK, load_font, wrap, wrap_name
from service.images.pictures.png import encode_png
from service.images.spec import Uint8Array

COLUMNS, CELL_WIDTH, SIDE = 10, 150, 128
MARGIN, GAP, FRAME = 10, 12, 3
EDGE = (215, 215, 215)
LEAST_WIDTH, MOST_TITLE_LINES, LONGEST_TITLE = 620, 12, 2000
MOST_REASON_LINES = 7
# Of a tile with all its lines: of the name, the rank and the reason.
MOST_TILE_PIXELS = (CELL_WIDTH + GAP) * (SIDE + (2 + 1 + MOST_REASON_LINES) * LINE_HEIGHT + 2 * GAP)


@dataclass(frozen=True)
class Tile:
    """One image of a ranked sheet.

    image      (H, W, C), C 1 or 3
    rank_text  its rank and whether it is flagged, in words
    is_marked  whether it is framed
    """

    image: Uint8Array
    id: str
    rank_text: str
    reason: str
    is_marked: bool


def ranked_sheet_png(title: Sequence[str], tiles: Sequence[Tile]) -> bytes:
    """Return a white sheet with the lines of `title`, and below them the tiles in rows of COLUMNS, as a PNG file."""
    font = load_font()
    columns = max(1, min(COLUMNS, len(tiles)))
    width = max(LEAST_WIDTH, 2 * MARGIN + columns * (CELL_WIDTH + GAP) - GAP)
    lines = [line for text in title for line in wrap(text, font, width - 2 * MARGIN, MOST_TITLE_LINES, LONGEST_TITLE)]
    captions = [
        (wrap_name(tile.id, font, CELL_WIDTH), wrap(tile.reason, font, CELL_WIDTH, MOST_REASON_LINES)) for tile in tiles
    ]
    scaled = [_scale(tile.image) for tile in tiles]
    rows = [range(start, min(start + columns, len(tiles))) for start in range(0, len(tiles), columns)]
    image_heights = [max(scaled[place].height for place in row) for row in rows]
    text_heights = [LINE_HEIGHT * max(1 + sum(map(len, captions[place])) for place in row) for row in rows]

    y = MARGIN + LINE_HEIGHT * len(lines) + GAP
    row_heights = [above + below + 2 * GAP for above, below in zip(image_heights, text_heights, strict=True)]
    sheet = Image.new("RGB", (width, y + sum(row_heights)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + number * LINE_HEIGHT), line, INK, font)
    for row, image_height, row_height in zip(rows, image_heights, row_heights, strict=True):
        for column, place in enumerate(row):
            tile, image, (name, reason) = tiles[place], scaled[place], captions[place]
            x = MARGIN + column * (CELL_WIDTH + GAP)
            sheet.paste(image, (x, y))
            # A thin line shows where a white image ends.
            frame, ink = (FRAME, WARNING_INK) if tile.is_marked else (1, EDGE)
            box = (x - frame, y - frame, x + image.width + frame - 1, y + image.height + frame - 1)
            draw.rectangle(box, outline=ink, width=frame)
            texts = [*name, tile.rank_text, *reason]
            for number, line in enumerate(texts):
                ink = WARNING_INK if tile.is_marked and number == len(name) else INK
                draw.text((x, y + image_height + FRAME + 1 + number * LINE_HEIGHT), line, ink, font)
        y += row_height
    return encode_png(sheet)


def _scale(image: Uint8Array) -> Image.Image:
    """Return `image` (H, W, C), enlarged by a whole factor or shrunk, so that its longer side is SIDE at most."""
    height, width = image.shape[:2]
    pixels = Image.fromarray(np.broadcast_to(image, (height, width, 3)))
    if max(height, width) > SIDE:
        pixels.thumbnail((SIDE, SIDE))
        return pixels
    factor = SIDE // max(height, width)
    return pixels.resize((width * factor, height * factor), Image.Resampling.NEAREST)
