"""dSprites (Matthey et al. 2017, github.com/google-deepmind/dsprites-dataset): load the official file, or render one.

The 737,280 binary images combine 720 outlines (shape x scale x orientation) with 32 x 32 positions. A pixel is on where
its centre lies inside the outline, by the even-odd rule: each row of pixels crosses an outline at a few places that do
not depend on the horizontal position, and a centre is inside where an odd number of crossings lies to its left.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from train.data.dataset import Dataset, check_factors

# The official factors without the colour, which is always white. The last varies fastest.
FACTOR_NAMES = ("shape", "scale", "orientation", "position x", "position y")
FACTOR_SIZES = (3, 6, 40, 32, 32)
SHAPES = ("square", "ellipse", "heart")
# The factors' values as the official file gives them; orientation 0 and 2 pi are the same image.
FACTOR_VALUES = (
    np.arange(1.0, 4.0),
    np.linspace(0.5, 1, 6),
    np.linspace(0, 2 * math.pi, 40),
    np.linspace(0, 1, 32),
    np.linspace(0, 1, 32),
)
SIDE = 64
COUNT = math.prod(FACTOR_SIZES)
OUTLINES, POSITIONS = math.prod(FACTOR_SIZES[:3]), math.prod(FACTOR_SIZES[3:])
WHITE = 255

# Fitted on real frames, in pixels at scale 1: see tests/data/dsprites_reference.
FIRST_CENTRE, CENTRE_SPAN = 16.0, 32.0
SQUARE_SIDE = 19.2
ELLIPSE_AXES, ELLIPSE_CORNERS = (12.78, 7.22), 64
HEART = Path(__file__).with_name("heart.csv")

RENDERED_BY = "misfit"
Points = NDArray[np.float64]


def load(path: Path) -> Dataset:
    """Read dSprites with white as 255; it takes 3 GB of memory.

    The source is "rendered" where the file says so, else "official". Raises FileNotFoundError, and ValueError where the
    file is not dSprites or is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there. Download dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz, or: "
            f"python -m train render dsprites --out {path}"
        )
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if not {"imgs", "latents_classes"} <= set(file.files):
                raise ValueError(f"{path} is not dSprites: it holds {file.files}, not imgs and latents_classes")
            stored, classes = file["imgs"], file["latents_classes"]
            source = "rendered" if "rendered_by" in file.files else "official"
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as npz: {error}. Is the download complete?") from error
    if stored.shape[1:] == (SIDE, SIDE // 8):
        stored = np.unpackbits(stored, axis=2)
    if stored.dtype != np.uint8 or stored.shape[1:] != (SIDE, SIDE) or classes.shape != (len(stored), 6):
        raise ValueError(
            f"{path} is not dSprites: imgs are {stored.dtype} {stored.shape} and latents_classes {classes.shape}, "
            "expected uint8 (N, 64, 64), or (N, 64, 8) with packed bits, and (N, 6)"
        )
    stored *= WHITE  # in place: a second copy would be another 3 GB
    return Dataset(stored[..., None], classes[:, 1:].astype(np.int64), FACTOR_NAMES, FACTOR_SIZES, "dsprites", source)


def render(path: Path) -> None:
    """Write all 737,280 images to `path`, through a temporary file beside it. It takes less than a minute.

    The layout is the official one (`imgs`, `latents_values`, `latents_classes`) with two differences: eight pixels of
    `imgs` share a byte, (737280, 64, 8), and nothing is pickled.
    """
    unfinished = path.with_name(path.name + ".part")
    packed = np.empty((COUNT, SIDE, SIDE // 8), np.uint8)
    outlines = tqdm(product(*map(range, FACTOR_SIZES[:3])), "outlines", OUTLINES)
    for start, classes in zip(range(0, COUNT, POSITIONS), outlines, strict=True):
        packed[start : start + POSITIONS] = np.packbits(everywhere(outline(*classes)), axis=2)
    try:
        with unfinished.open("wb") as file:
            np.savez_compressed(
                file,
                imgs=packed,
                latents_values=np.array(list(product([1.0], *FACTOR_VALUES))),
                latents_classes=np.array(list(product([0], *map(range, FACTOR_SIZES))), np.int64),
                rendered_by=np.array(json.dumps({"by": RENDERED_BY, "imgs": "bits packed along the last axis"})),
            )
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def frames(factors: ArrayLike) -> NDArray[np.uint8]:
    """Render the images (N, 64, 64), 0 and 1, of factor classes (N, 5) in the order of FACTOR_NAMES.

    Raises ValueError for any other shape, and for classes outside FACTOR_SIZES.
    """
    classes = check_factors(factors, FACTOR_SIZES)
    images = np.empty((len(classes), SIDE, SIDE), np.uint8)
    for image, (shape, scale, orientation, x, y) in zip(images, classes, strict=True):
        image[:] = _drawn(outline(shape, scale, orientation), np.array([x]), np.array([y]))[0, 0]
    return images


def outline(shape: int, scale: int, orientation: int) -> Points:
    """Return the corners (K, 2) of an outline: x and y in pixels from the sprite's centre, y down."""
    corners = (_square, _ellipse, _heart)[shape]()
    angle = FACTOR_VALUES[2][orientation]  # counter-clockwise on screen, where y points down
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turned: Points = FACTOR_VALUES[1][scale] * corners @ turn
    return turned


def everywhere(corners: Points) -> NDArray[np.bool_]:
    """Return the images (32 * 32, 64, 64) of one outline at every position, the vertical one varying fastest."""
    across, down = (np.arange(size) for size in FACTOR_SIZES[3:])
    return _drawn(corners, across, down).reshape(-1, SIDE, SIDE)


def _square() -> Points:
    return SQUARE_SIDE / 2 * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def _ellipse() -> Points:
    angles = 2 * math.pi * np.arange(ELLIPSE_CORNERS) / ELLIPSE_CORNERS
    return np.stack([ELLIPSE_AXES[0] * np.cos(angles), ELLIPSE_AXES[1] * np.sin(angles)], axis=1)


def _heart() -> Points:
    return np.loadtxt(HEART, delimiter=",")


def _drawn(corners: Points, across: NDArray[np.integer], down: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return the images (X, Y, 64, 64) of an outline at the position classes across (X,) and down (Y,)."""
    crossings = _crossings(corners, _offsets(down).ravel())  # (C, Y * 64)
    columns = _offsets(across)  # (X, 64)
    inside = np.zeros((len(across), crossings.shape[1], SIDE), bool)
    for crossing in crossings:
        inside ^= columns[:, None, :] > crossing[None, :, None]
    return inside.reshape(len(across), len(down), SIDE, SIDE)


def _offsets(positions: NDArray[np.integer]) -> Points:
    """Return the centres of the 64 pixels of a row or column, relative to a sprite at each of the positions (P,)."""
    centres = FIRST_CENTRE + CENTRE_SPAN * FACTOR_VALUES[3][positions]
    offsets: Points = np.arange(SIDE) + 0.5 - centres[:, None]
    return offsets


def _crossings(corners: Points, heights: Points) -> Points:
    """Return where the horizontal line at each height (H,) crosses the outline, (C, H), padded with infinity."""
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    crossed = (y0 > heights[:, None]) != (y1 > heights[:, None])  # (H, K); a line never crosses a level edge
    with np.errstate(divide="ignore", invalid="ignore"):
        places = x0 + (heights[:, None] - y0) * (x1 - x0) / (y1 - y0)
    places = np.sort(np.where(crossed, places, np.inf), axis=1)
    most = int(crossed.sum(axis=1).max())
    return places[:, :most].T
