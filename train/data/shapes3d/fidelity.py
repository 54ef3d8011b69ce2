"""The fidelity of the rendered 3D Shapes: SSIM and absolute error against real frames."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import structural_similarity

from train.data.shapes3d.dataset import FACTOR_NAMES, FACTOR_SIZES, IMAGE_SHAPE, frames

COLUMNS = tuple(name.replace(" ", "_") for name in FACTOR_NAMES)
SCALE = FACTOR_NAMES.index("scale")
DIFFERENCE_GAIN = 2
FRAMES_PER_ROW = 10
ENLARGEMENT = 2


@dataclass(frozen=True)
class FrameFidelity:
    """One real frame (64, 64, 3), its rendering, and the factor classes of the rendering."""

    file: str
    factors: tuple[int, ...]
    ssim: float
    mean_absolute_error: float
    real: NDArray[np.uint8]
    rendered: NDArray[np.uint8]


@dataclass(frozen=True)
class FidelityReport:
    """All frames that were compared."""

    frames: tuple[FrameFidelity, ...]

    @property
    def mean_ssim(self) -> float:
        """Return the mean SSIM."""
        return float(np.mean([frame.ssim for frame in self.frames]))

    @property
    def mean_absolute_error(self) -> float:
        """Return the mean absolute error in grey levels (of 255)."""
        return float(np.mean([frame.mean_absolute_error for frame in self.frames]))

    def __str__(self) -> str:
        lines = [f"{f.file:16} SSIM {f.ssim:.4f}   error {f.mean_absolute_error:5.2f} of 255" for f in self.frames]
        mean = f"{'mean':16} SSIM {self.mean_ssim:.4f}   error {self.mean_absolute_error:5.2f} of 255"
        return "\n".join([*lines, f"{mean}   ({len(self.frames)} frames)"])


def fidelity(directory: Path) -> FidelityReport:
    """Compare each frame of `directory`/frames.csv with the rendering of its factors.

    The table has the columns file, floor_hue, wall_hue, object_hue, scale, shape, orientation (classes). Where the
    scale is blank, the best of the eight counts. SSIM is scikit-image's with its default uniform 7 x 7 window, averaged
    over the channels (Wang et al. 2004). Raises FileNotFoundError without the table, ValueError where it cannot be
    used.
    """
    table = directory / "frames.csv"
    if not table.is_file():
        raise FileNotFoundError(f"{table} is not there: it should name the frames and their factors")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"file", *COLUMNS} <= rows[0].keys():
        raise ValueError(f"{table} should have at least one row, and the columns file, {', '.join(COLUMNS)}")
    return FidelityReport(tuple(_compare(directory / row["file"], _candidates(row)) for row in rows))


def save_comparison(report: FidelityReport, path: Path) -> None:
    """Write a picture with each real frame, its rendering, and twice their difference on grey."""
    columns = [
        np.concatenate([frame.real, frame.rendered, _difference(frame.real, frame.rendered)]) for frame in report.frames
    ]
    blank = np.full_like(columns[0], 255)
    columns += [blank] * (-len(columns) % min(FRAMES_PER_ROW, len(columns)))
    rows = [np.hstack(columns[at : at + FRAMES_PER_ROW]) for at in range(0, len(columns), FRAMES_PER_ROW)]
    picture = Image.fromarray(np.vstack(rows))
    picture.resize((picture.width * ENLARGEMENT, picture.height * ENLARGEMENT), Image.Resampling.NEAREST).save(path)


def _candidates(row: dict[str, str]) -> NDArray[np.int64]:
    """Return the factor classes (1 or 8, 6) that a row allows."""
    try:
        classes = [int(row[column] or 0) if column == "scale" else int(row[column]) for column in COLUMNS]
    except ValueError as error:
        raise ValueError(f"the factors of {row['file']} are not whole numbers: {row}") from error
    if row["scale"]:
        return np.array([classes])
    every_scale = np.tile(classes, (FACTOR_SIZES[SCALE], 1))
    every_scale[:, SCALE] = np.arange(FACTOR_SIZES[SCALE])
    return every_scale


def _compare(path: Path, candidates: NDArray[np.int64]) -> FrameFidelity:
    with Image.open(path) as image:
        real = np.asarray(image.convert("RGB"))
    if real.shape != IMAGE_SHAPE:
        raise ValueError(f"{path} has shape {real.shape}, expected {IMAGE_SHAPE}")
    rendered = frames(candidates)
    similarity = [_ssim(real, other) for other in rendered]
    best = int(np.argmax(similarity))
    error = np.abs(real.astype(float) - rendered[best]).mean()
    return FrameFidelity(
        path.name, tuple(candidates[best].tolist()), similarity[best], float(error), real, rendered[best]
    )


def _ssim(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(structural_similarity(one, other, channel_axis=-1, data_range=255))  # type: ignore[no-untyped-call]


def _difference(real: NDArray[np.uint8], rendered: NDArray[np.uint8]) -> NDArray[np.uint8]:
    difference: NDArray[np.int16] = DIFFERENCE_GAIN * (real.astype(np.int16) - rendered)
    return (128 + difference).clip(0, 255).astype(np.uint8)
