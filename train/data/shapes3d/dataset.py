"""3D Shapes (Burgess & Kim 2018, github.com/google-deepmind/3d-shapes): load the official file, or render one.

The 480,000 images combine 480 geometries (scale x shape x orientation) with 10 x 10 x 10 hues. Each geometry is traced
and lit once (`scene`, `light`). Each surface is then downscaled by itself, once for each of the six values that a
component of a hue can have. Downscaling is linear, so an image is the sum of one floor, one wall and one object.
"""

from __future__ import annotations

import colorsys
import math
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from tqdm import tqdm

from train.data.dataset import Dataset, check_factors
from train.data.shapes3d import scene
from train.data.shapes3d.light import samples

FACTOR_NAMES = ("floor hue", "wall hue", "object hue", "scale", "shape", "orientation")
FACTOR_SIZES = (10, 10, 10, 8, 4, 15)
HUE_COUNT = 10
# The factors' values as the official labels give them.
FACTOR_VALUES = (*[np.arange(HUE_COUNT) / HUE_COUNT] * 3, scene.SCALES, np.arange(4.0), scene.ORIENTATIONS)
GEOMETRIES = tuple(product(*map(range, FACTOR_SIZES[3:])))  # in the order of the file
IMAGE_SHAPE = (scene.IMAGE_SIZE, scene.IMAGE_SIZE, 3)
SKY_COLOUR = (153, 226, 249)

LEVELS = np.arange(6) / 5  # every component of a hue is one of these
LEVEL_OF_HUE = np.array(
    [[round(5 * component) for component in colorsys.hsv_to_rgb(hue / HUE_COUNT, 1, 1)] for hue in range(HUE_COUNT)]
)
FRACTION_BITS = 6  # sums of layers are fixed-point: three times faster than floating point

RENDERED_BY = "rendered by"  # the attribute that tells a rendered file from the official one
RENDERER_VERSION = 1
CHUNK = 60  # images compressed together
COMPRESSION = 4

Layers = NDArray[np.int16]  # (3 surfaces, 10 hues, geometries, 64, 64, 3), fixed-point


def load(path: Path, indices: ArrayLike | None = None) -> Dataset:
    """Read 3D Shapes: all of it (5.9 GB of memory) or the images at `indices` in their order.

    The source is "rendered" where the file says so, else "official". Raises FileNotFoundError, and ValueError where the
    file is not 3D Shapes, is damaged, or has no image at an index.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there. Download 3dshapes.h5, or: python -m train render shapes3d")
    try:
        with h5py.File(path, "r") as file:
            images, labels = _checked(file, path)
            rows = _rows(indices, len(images))
            source = "rendered" if RENDERED_BY in file.attrs else "official"
            factors = _classes(labels[:])[rows]
            return Dataset(_read(images, rows), factors, FACTOR_NAMES, FACTOR_SIZES, "shapes3d", source)
    except (OSError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as HDF5: {error}. Is the download complete?") from error


def rendered(indices: ArrayLike) -> Dataset:
    """Render the images of the official order in the rows `indices`, without a file: 12 kB each in memory."""
    rows = _rows(indices, math.prod(FACTOR_SIZES))
    factors = np.stack(np.unravel_index(rows, FACTOR_SIZES), axis=1).astype(np.int64)
    return Dataset(frames(factors), factors, FACTOR_NAMES, FACTOR_SIZES, "shapes3d", "rendered")


def render(path: Path, workers: int | None = None) -> None:
    """Write all 480,000 images in the official layout to `path`, through a temporary file beside it.

    Datasets: `images` uint8 (480000, 64, 64, 3) and `labels` float64 (480000, 6), the last factor varying fastest. It
    takes a few minutes with `workers` threads, by default one per processor.
    """
    unfinished = path.with_name(path.name + ".part")
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        surfaces = pool.map(lambda geometry: _surfaces(*geometry), GEOMETRIES)
        layers = _tint(np.stack(list(tqdm(surfaces, "geometries", len(GEOMETRIES)))))
        hues = list(product(range(HUE_COUNT), repeat=3))
        compressed = pool.map(lambda hue: _compressed(_compose(layers, *hue)), hues)
        with h5py.File(unfinished, "w") as file:
            file.attrs[RENDERED_BY] = "misfit"
            file.attrs["renderer version"] = RENDERER_VERSION
            file["labels"] = np.array(list(product(*FACTOR_VALUES)))
            count = len(hues) * len(GEOMETRIES)
            images = file.create_dataset(
                "images", (count, *IMAGE_SHAPE), np.uint8, chunks=(CHUNK, *IMAGE_SHAPE), compression=COMPRESSION
            )
            chunks = (chunk for same_hues in tqdm(compressed, "hues", len(hues)) for chunk in same_hues)
            for start, chunk in zip(range(0, count, CHUNK), chunks, strict=True):
                images.id.write_direct_chunk((start, 0, 0, 0), chunk)
        unfinished.replace(path)
    finally:
        pool.shutdown(cancel_futures=True)
        unfinished.unlink(missing_ok=True)


def frames(factors: ArrayLike) -> NDArray[np.uint8]:
    """Render the images (N, 64, 64, 3) of factor classes (N, 6) in the order of FACTOR_NAMES.

    Raises ValueError for any other shape, and for classes outside FACTOR_SIZES.
    """
    classes = check_factors(factors, FACTOR_SIZES)
    images = np.empty((len(classes), *IMAGE_SHAPE), np.uint8)
    for geometry in np.unique(classes[:, 3:], axis=0):
        layers = _tint(_surfaces(*geometry)[None])
        for row in np.nonzero((classes[:, 3:] == geometry).all(axis=1))[0]:
            images[row] = _compose(layers, *classes[row, :3])[0]
    return images


def _surfaces(scale: int, shape: int, orientation: int) -> NDArray[np.float32]:
    """Return one geometry's sky, floor, wall and object (4, 6 levels, 64, 64) in grey levels.

    A surface is 0 where another one is visible.
    """
    side = scene.IMAGE_SIZE * scene.SUPERSAMPLING
    seen = samples(scale, shape, orientation)
    surfaces = np.empty((4, len(LEVELS), scene.IMAGE_SIZE, scene.IMAGE_SIZE), np.float32)
    for level, value in enumerate(LEVELS):
        grey = 255 * np.clip(seen.intensity * value + seen.gloss, 0, 1)
        for surface in (scene.FLOOR, scene.WALL, scene.OBJECT):
            large = np.where(seen.surface == surface, grey, 0).astype(np.float32).reshape(side, side)
            surfaces[surface, level] = _downscale(large)
    surfaces[scene.SKY] = _downscale((seen.surface == scene.SKY).astype(np.float32).reshape(side, side))
    return surfaces


def _downscale(large: NDArray[np.float32]) -> NDArray[np.float32]:
    """Downscale with a Lanczos filter, as the originals were. It rings a little at edges."""
    small = Image.fromarray(large).resize((scene.IMAGE_SIZE, scene.IMAGE_SIZE), Image.Resampling.LANCZOS)
    return np.asarray(small, np.float32)


def _tint(surfaces: NDArray[np.float32]) -> Layers:
    """Colour surfaces (G, 4, 6 levels, 64, 64) in each of the hues.

    The sky, and the half that rounds, are added to the floor.
    """
    layers = np.empty((3, HUE_COUNT, len(surfaces), *IMAGE_SHAPE), np.int16)
    sky = surfaces[:, scene.SKY, 0, ..., None] * np.array(SKY_COLOUR) + 0.5
    for hue, levels in enumerate(LEVEL_OF_HUE):
        for layer, surface in enumerate((scene.FLOOR, scene.WALL, scene.OBJECT)):
            colour = np.moveaxis(surfaces[:, surface, levels], 1, -1)
            if surface == scene.FLOOR:
                colour = colour + sky
            layers[layer, hue] = np.rint(colour * 2**FRACTION_BITS)
    return layers


def _compose(layers: Layers, floor_hue: int, wall_hue: int, object_hue: int) -> NDArray[np.uint8]:
    """Return the images (G, 64, 64, 3) of all geometries in one choice of hues."""
    total = layers[0, floor_hue] + layers[1, wall_hue]
    total += layers[2, object_hue]
    total >>= FRACTION_BITS
    images: NDArray[np.uint8] = np.clip(total, 0, 255, out=total).astype(np.uint8)
    return images


def _compressed(images: NDArray[np.uint8]) -> list[bytes]:
    """Compress chunks as HDF5's gzip filter stores them.

    HDF5's own compression runs on one processor only.
    """
    return [zlib.compress(images[at : at + CHUNK].tobytes(), COMPRESSION) for at in range(0, len(images), CHUNK)]


def _checked(file: h5py.File, path: Path) -> tuple[h5py.Dataset, h5py.Dataset]:
    missing = {"images", "labels"} - set(file)
    if missing:
        raise ValueError(f"{path} is not 3D Shapes: it holds {sorted(file)}, and no {' or '.join(sorted(missing))}")
    images, labels = file["images"], file["labels"]
    if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SHAPE:
        raise ValueError(
            f"{path} is not 3D Shapes: images are {images.dtype} {images.shape}, expected uint8 (N, 64, 64, 3)"
        )
    if labels.shape != (len(images), len(FACTOR_SIZES)):
        raise ValueError(f"{path} is not 3D Shapes: labels are {labels.shape}, expected ({len(images)}, 6)")
    return images, labels


def _classes(labels: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the factor classes (N, 6) of the official factor values (N, 6)."""
    classes = np.empty(labels.shape, np.int64)
    for factor, values in enumerate(FACTOR_VALUES):
        classes[:, factor] = np.rint((labels[:, factor] - values[0]) / (values[1] - values[0]))
        known = np.isclose(values[classes[:, factor].clip(0, len(values) - 1)], labels[:, factor])
        if not known.all():
            strange, name = labels[~known, factor][0], FACTOR_NAMES[factor]
            raise ValueError(f"{strange} is no {name} of 3D Shapes, which has {values.round(4).tolist()}")
    return classes


def _rows(indices: ArrayLike | None, count: int) -> NDArray[np.int64]:
    if indices is None:
        return np.arange(count)
    rows = np.asarray(indices, np.int64)
    if rows.ndim != 1 or ((rows < 0) | (rows >= count)).any():
        raise ValueError(f"indices must be one row of numbers from 0 to {count - 1}")
    return rows


def _read(images: h5py.Dataset, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Read the images at `rows`. Only chunks that hold them are read, and are decompressed in parallel."""
    order = np.argsort(rows, kind="stable")
    pixels = np.empty((len(rows), *IMAGE_SHAPE), np.uint8)

    def fetch(part: tuple[slice, ...]) -> None:
        """Copy the requested rows of one chunk to their places."""
        first, last = np.searchsorted(rows, (part[0].start, part[0].stop), sorter=order)
        places = order[first:last]
        if len(places):
            block = _block(images, part)
            pixels[places, part[1], part[2], part[3]] = block[rows[places] - part[0].start]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fetch, _parts(images)):
            pass
    return pixels


def _parts(images: h5py.Dataset) -> Iterator[tuple[slice, ...]]:
    """Return the regions of the dataset's chunks, or runs of images where it is not chunked."""
    shape = images.chunks or (CHUNK, *IMAGE_SHAPE)
    starts = product(*(range(0, size, step) for size, step in zip(images.shape, shape, strict=True)))
    for start in starts:
        yield tuple(slice(a, min(a + n, size)) for a, n, size in zip(start, shape, images.shape, strict=True))


def _block(images: h5py.Dataset, part: tuple[slice, ...]) -> NDArray[np.uint8]:
    """Return one chunk.

    HDF5 decompresses one chunk at a time. A plain gzip chunk is read compressed and decompressed here.
    """
    if images.compression != "gzip" or images.shuffle or images.fletcher32:
        return np.asarray(images[part])
    _, stored = images.id.read_direct_chunk(tuple(side.start for side in part))
    block = np.frombuffer(zlib.decompress(stored), np.uint8).reshape(images.chunks)
    return block[tuple(slice(side.stop - side.start) for side in part)]
