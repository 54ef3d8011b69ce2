"""The fidelity of the rendered dSprites: the number of pixels that differ from real frames."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from train.data.dsprites import dataset as dsprites

COLUMNS = tuple(name.replace(" ", "_") for name in dsprites.FACTOR_NAMES)
# The limits of a faithful rendering.
EXACT_SHARE = 0.85
WORST_PIXELS = 8


@dataclass(frozen=True)
class FidelityReport:
    """Real frames (n, 64, 64), 0 and 1, and the renderings of their factor classes (n, 5)."""

    real: NDArray[np.uint8]
    rendered: NDArray[np.uint8]
    factors: NDArray[np.int64]

    @property
    def wrong_pixels(self) -> NDArray[np.int64]:
        """Return the number of wrong pixels (n,) of each frame's 4,096."""
        wrong: NDArray[np.int64] = (self.real != self.rendered).sum(axis=(1, 2))
        return wrong

    @property
    def exact_share(self) -> float:
        """Return the share of frames without a wrong pixel."""
        return float((self.wrong_pixels == 0).mean())

    @property
    def faithful(self) -> bool:
        """Return whether EXACT_SHARE and WORST_PIXELS are met."""
        return self.exact_share >= EXACT_SHARE and int(self.wrong_pixels.max()) <= WORST_PIXELS

    def __str__(self) -> str:
        wrong = self.wrong_pixels
        lines = [
            f"{name}: {(wrong[rows] == 0).sum()} of {rows.sum()} frames exact, at worst {wrong[rows].max()} pixels off"
            for shape, name in enumerate(dsprites.SHAPES)
            if (rows := self.factors[:, 0] == shape).any()
        ]
        whole = f"all {len(wrong)} frames: {self.exact_share:.2%} exact, at worst {wrong.max()} pixels off"
        return "\n".join([*lines, whole])


def fidelity(directory: Path) -> FidelityReport:
    """Compare each frame of `directory`/frames.npz with the rendering of its factor classes in frames.csv.

    The npz file holds `frames` uint8 (n, 64, 64), 0 and 1. The table has one row for each frame with the columns shape,
    scale, orientation, position_x and position_y. Without the table each frame is compared with the nearest of all
    renderings, which takes half a minute. Raises FileNotFoundError without frames, ValueError where they cannot be
    used.
    """
    path, table = directory / "frames.npz", directory / "frames.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: it should hold real frames of dSprites")
    with np.load(path, allow_pickle=False) as file:
        real = file["frames"] if "frames" in file.files else np.empty(0, np.uint8)
    if real.dtype != np.uint8 or real.shape[1:] != (dsprites.SIDE, dsprites.SIDE) or real.max(initial=0) > 1:
        raise ValueError(f"{path} should hold `frames`, uint8 (n, 64, 64) of 0 and 1; found {real.dtype} {real.shape}")
    factors = _classes(table, len(real)) if table.is_file() else find_nearest(real)
    return FidelityReport(real, dsprites.frames(factors), factors)


def find_nearest(real: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the factor classes (n, 5) of the rendering that differs least from each of the frames (n, 64, 64)."""
    frames = real.reshape(len(real), -1).astype(np.float32)
    least, rendering = np.full(len(real), np.inf), np.zeros(len(real), np.int64)
    outlines = tqdm(product(*map(range, dsprites.FACTOR_SIZES[:3])), "outlines", dsprites.OUTLINES)
    for index, classes in enumerate(outlines):
        rendered = dsprites.everywhere(dsprites.outline(*classes)).reshape(dsprites.POSITIONS, -1).astype(np.float32)
        # |a - b| of bits is a + b - 2ab, and the frame's own a is the same for all
        wrong = rendered.sum(axis=1) - 2 * frames @ rendered.T  # (n, positions)
        best = wrong.argmin(axis=1)
        better = wrong.min(axis=1) < least
        least[better], rendering[better] = wrong.min(axis=1)[better], index * dsprites.POSITIONS + best[better]
    return np.stack(np.unravel_index(rendering, dsprites.FACTOR_SIZES), axis=1)


def save_comparison(report: FidelityReport, path: Path) -> None:
    """Write a picture of the frames that are not exact, their renderings and the pixels that differ."""
    rows = np.flatnonzero(report.wrong_pixels) if report.exact_share < 1 else np.arange(1)
    strips = [
        np.concatenate(list(images[rows]), axis=1)
        for images in (report.real, report.rendered, report.real ^ report.rendered)
    ]
    Image.fromarray(dsprites.WHITE * np.concatenate(strips)).save(path)


def _classes(table: Path, count: int) -> NDArray[np.int64]:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if len(rows) != count or not set(COLUMNS) <= rows[0].keys():
        raise ValueError(f"{table} should have {count} rows, one a frame, and the columns {', '.join(COLUMNS)}")
    try:
        return np.array([[int(row[column]) for column in COLUMNS] for row in rows])
    except ValueError as error:
        raise ValueError(f"{table} holds factors that are not whole numbers: {error}") from error
