"""Thumbnails of many images as sprite sheets: WebP files of TILES tiles each, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from service.errors import InvalidInput
from service.images.decode import Content, read_row
from service.images.limits import Limits
from service.images.spec import Uint8Array

# Rows and columns of a sheet.
COLUMNS = 10
TILES = COLUMNS * COLUMNS
# The side of a tile, by the most images that get tiles of that side.
SIDES = ((400, 160), (1500, 112), (4000, 80), (10_000, 64))
SMALLEST_SIDE = 48
QUALITIES = (80, 65, 50, 35, 20, 5)
# Bytes of all sheets together. A report writes them as base64, a third longer.
BUDGET = 10_000_000
# As `misfit learn` takes.
LIMITS = Limits(max_pixels=64_000_000, max_cost=512 * 1024 * 1024)


# The position of an image, its pixels (side, side, 3), and its width over its height.
_Tile = tuple[int, tuple[Uint8Array, float]]


@dataclass(frozen=True)
class Thumbnails:
    """Sheets, and where on them each image is.

    side    pixels of a tile's side: an image fills its tile, whatever its shape
    sheets  WebP files
    tiles   by position of the image: the number of its tile over all sheets, and its width over its height
    """

    side: int
    sheets: list[bytes]
    tiles: dict[int, tuple[int, float]]


@dataclass(frozen=True)
class _TileSpec:
    height: int
    width: int
    channels: int = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


def draw_thumbnails(count: int, read_image: Callable[[int], Content | None] | None) -> Thumbnails:
    """Draw the images 0 to `count` - 1 on sheets.

    read_image  returns an image file's bytes, or pixels (H, W) or (H, W, C); None where there is none. Its errors, and
                images that cannot be decoded, leave an image without a thumbnail.
    """
    side = next((side for most, side in SIDES if count <= most), SMALLEST_SIDE)
    if read_image is None:
        return Thumbnails(side, [], {})
    spec, sheets, tiles = _TileSpec(side, side), list[bytes](), dict[int, tuple[int, float]]()
    qualities: tuple[int, ...] = QUALITIES

    def draw(position: int) -> tuple[Uint8Array, float] | None:
        try:
            content = read_image(position)
            row = None if content is None else read_row(content, spec, "fit", LIMITS)
        except (InvalidInput, OSError):
            return None
        return None if row is None else (row.pixels, row.size[0] / max(1, row.size[1]))

    # Pillow decodes and resizes without holding the interpreter's lock. A few sheets at a time bound the memory.
    with ThreadPoolExecutor() as threads:
        drawn = (
            (position, tile)
            for start in range(0, count, TILES)
            for position, tile in zip(
                range(start, min(start + TILES, count)),
                threads.map(draw, range(start, min(start + TILES, count))),
                strict=True,
            )
            if tile is not None
        )
        for part in _cut(drawn):
            for position, (_, ratio) in part:
                tiles[position] = len(tiles), round(ratio, 4)
            sheet = _join([pixels for _, (pixels, _) in part], side)
            content, quality = _encode(sheet, qualities, BUDGET * len(part) // max(count, TILES))
            qualities = qualities[qualities.index(quality) :]  # the next sheet is much like this one
            sheets.append(content)
    return Thumbnails(side, sheets, tiles)


def encode_picture(png: bytes) -> bytes:
    """Return a picture that misfit drew as WebP, a fraction of its PNG."""
    with Image.open(BytesIO(png)) as image:
        return _to_webp(image.convert("RGB"), QUALITIES[0])


def _cut(tiles: Iterator[_Tile]) -> Iterator[list[_Tile]]:
    part: list[_Tile] = []
    for tile in tiles:
        part.append(tile)
        if len(part) == TILES:
            yield part
            part = []
    if part:
        yield part


def _join(tiles: Sequence[Uint8Array], side: int) -> Image.Image:
    """Return a sheet of at most TILES tiles."""
    sheet = np.zeros((COLUMNS * side, COLUMNS * side, 3), dtype=np.uint8)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, COLUMNS)
        sheet[row * side : (row + 1) * side, column * side : (column + 1) * side] = tile
    return Image.fromarray(sheet)


def _encode(sheet: Image.Image, qualities: Sequence[int], most_bytes: int) -> tuple[bytes, int]:
    """Return a sheet of the best of `qualities` that takes `most_bytes`, or else of the last one; and that quality."""
    for quality in qualities:
        content = _to_webp(sheet, quality)
        if len(content) <= most_bytes:
            break
    return content, quality


def _to_webp(image: Image.Image, quality: int) -> bytes:
    file = BytesIO()
    image.save(file, "WEBP", quality=quality, method=4)
    return file.getvalue()


def describe_tiles(thumbnails: Thumbnails) -> Mapping[str, object]:
    """Return where the tiles are, as a report's script reads it."""
    return {"side": thumbnails.side, "columns": COLUMNS, "per_sheet": TILES, "tiles": thumbnails.tiles}
