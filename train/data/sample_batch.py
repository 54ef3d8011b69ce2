"""The sample batch that the README's first example and the tests send: rendered images, four of them outliers."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from train.data.shapes3d.dataset import FACTOR_NAMES, FACTOR_SIZES, frames

NORMAL_IMAGES = 56
FLOOR, WALL, OBJECT, _, SHAPE, _ = range(len(FACTOR_NAMES))
# Normal: red spheres before a green wall. Floor hue, scale and orientation are free.
NORMAL = {WALL: 4, OBJECT: 0, SHAPE: 2}
MISFITS = ({WALL: 6}, {OBJECT: 2}, {SHAPE: 0}, {WALL: 8, OBJECT: 5, SHAPE: 3})
EARLIEST = (1980, 1, 1, 0, 0, 0)  # a fixed time, so that the file always has the same bytes


def write_sample_batch(path: Path, seed: int = 0) -> None:
    """Write the images as PNG files into the zip file `path`, and their factors into a CSV file beside it."""
    rng = np.random.default_rng(seed)
    factors = rng.integers(FACTOR_SIZES, size=(NORMAL_IMAGES + len(MISFITS), len(FACTOR_SIZES)))
    misfits: dict[int, dict[int, int]] = dict(
        zip(rng.choice(len(factors), len(MISFITS), replace=False).tolist(), MISFITS, strict=True)
    )
    for row, values in enumerate(factors):
        for factor, value in (NORMAL | misfits.get(row, {})).items():
            values[factor] = value

    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive, path.with_suffix(".csv").open("w", newline="") as table:
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["file", *FACTOR_NAMES, "misfit"])
        for row, (image, values) in enumerate(zip(frames(factors), factors.tolist(), strict=True)):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG", optimize=True)
            archive.writestr(zipfile.ZipInfo(f"{row:02}.png", EARLIEST), content.getvalue())
            rows.writerow([f"{row:02}.png", *values, "yes" if row in misfits else "no"])
