"""The data set `folder`: any tree of the user's own image files, of any size and mode.

The service's code brings each file to the model's shape, so training and serving see the same pixels. The result is
cached in CACHE under a key that changes with any file of the folder.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.bundle.manifest import ImageSpec
from service.errors import UndecodableImage
from service.images.decode import Upload, read_rows
from service.images.formats.files import ENDINGS
from service.images.limits import Limits
from service.images.reading import Reading
from service.settings import Settings
from train.config.experiment import ImageShape
from train.data.dataset import Dataset

CACHE = Path("data/folders")
FEWEST_IMAGES = 50  # below this a held-out split means nothing
FEW_IMAGES = 1_000
SKIPPED_SHOWN = 10


@dataclass(frozen=True)
class Contents:
    """The images of a folder, and the reason for each skipped file by its path within the folder."""

    dataset: Dataset
    skipped: dict[str, str]


def load(directory: Path, shape: ImageShape) -> Dataset:
    """Return the images of `directory` as `read` does. Skipped files and warnings are printed to stderr."""
    contents = read(directory, shape)
    for line in (*_skipped_lines(contents.skipped), *list_warnings(contents.dataset)):
        print(line, file=sys.stderr)
    return contents.dataset


def read(directory: Path, shape: ImageShape, cache: Path | None = None) -> Contents:
    """Read every image file below `directory`, in the order of the paths, as uint8 (N, *shape).

    Where every image lies in a subfolder and there are several, the first subfolder is the image's label. Raises
    FileNotFoundError where `directory` is no folder, ValueError where fewer than FEWEST_IMAGES can be read.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory} is not a folder: name one that holds image files")
    paths = sorted(
        path
        for path in directory.rglob("*")
        if path.suffix.lower() in ENDINGS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )
    names = [path.relative_to(directory).as_posix() for path in paths]
    cache_file = (CACHE if cache is None else cache) / f"{_key(directory, paths, shape)}.npz"
    if cache_file.exists():
        with np.load(cache_file, allow_pickle=False) as file:
            images, skipped = file["images"], json.loads(str(file["skipped"]))
    else:
        images, skipped = _decoded(paths, names, shape)
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = cache_file.with_suffix(".part")
        with unfinished.open("wb") as stream:
            np.savez(stream, images=images, skipped=np.array(json.dumps(skipped)))
        unfinished.replace(cache_file)
    if len(images) < FEWEST_IMAGES:
        reasons = "".join(f"\n{line}" for line in _skipped_lines(skipped))
        raise ValueError(
            f"{directory} holds {len(images)} images that can be read; at least {FEWEST_IMAGES} are needed, and some "
            f"thousands are better. Files count that end in {', '.join(ENDINGS)}{reasons}"
        )
    labels, label_names = _labels([name for name in names if name not in skipped])
    nothing = np.zeros((len(images), 0), np.int64)
    return Contents(Dataset(images, nothing, (), (), "folder", "own files", labels, label_names), skipped)


def list_warnings(dataset: Dataset) -> list[str]:
    """Return warnings about the images: too few, flat, repeated, or all alike."""
    images = dataset.images
    lines = []
    if len(images) < FEW_IMAGES:
        lines.append(
            f"only {len(images)} images: a model of so few remembers them rather than what they share; "
            f"{FEW_IMAGES:,} or more are better"
        )
    constant = int((images == images[:, :1, :1]).all(axis=(1, 2, 3)).sum())
    if constant:
        lines.append(f"{constant} of {len(images)} images are of one flat colour")
    distinct = len({hashlib.sha256(image.tobytes()).digest() for image in images})
    if distinct < len(images):
        lines.append(
            f"{len(images) - distinct} of {len(images)} images repeat another exactly: copies of a training image "
            "among the held-out ones make the figures too good"
        )
    if (images == images[0]).mean() > 0.99:
        lines.append("the images hardly differ from each other: there is nothing to learn")
    return [f"warning: {line}" for line in lines]


def _decoded(paths: list[Path], names: list[str], shape: ImageShape) -> tuple[NDArray[np.uint8], dict[str, str]]:
    height, width, channels = shape
    spec = ImageSpec.model_validate({"height": height, "width": width, "channels": channels})
    with tqdm(total=len(paths), desc="decoding", unit="file") as bar:
        uploads = [Upload(name, _reader(path, bar.update)) for name, path in zip(names, paths, strict=True)]
        limits = Limits(Settings().max_image_pixels)
        reading = Reading.of_files(paths, spec, limits)
        rows = read_rows(uploads, spec, "fit", limits, reading.samples)
    reading.note(names, rows.notes, len(rows.pixels))
    for warning in reading.list_warnings():
        print(f"warning: {warning}", file=sys.stderr)
    return rows.pixels, {names[position]: error.message for position, error in rows.errors.items()}


def _reader(path: Path, done: Callable[[], object]) -> Callable[[], bytes]:
    def read_file() -> bytes:
        done()
        try:
            return path.read_bytes()
        except OSError as error:
            raise UndecodableImage(f"The file cannot be read: {error.strerror}.", "Check its permissions.") from error

    return read_file


def _labels(names: list[str]) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    folders = [name.split("/")[0] if "/" in name else "" for name in names]
    label_names = sorted(set(folders))
    if "" in label_names or len(label_names) < 2:
        return None, ()
    return np.array([label_names.index(folder) for folder in folders], np.int64), tuple(label_names)


def _key(directory: Path, paths: list[Path], shape: ImageShape) -> str:
    """Return a hash of the folder, the shape, and every file's name, size and time."""
    files = [(str(path), (status := path.stat()).st_size, status.st_mtime_ns) for path in paths]
    return hashlib.sha256(json.dumps([str(directory.resolve()), shape, files]).encode()).hexdigest()[:32]


def _skipped_lines(skipped: dict[str, str]) -> list[str]:
    lines = [f"skipped {name}: {reason}" for name, reason in list(skipped.items())[:SKIPPED_SHOWN]]
    if len(skipped) > SKIPPED_SHOWN:
        lines.append(f"skipped {len(skipped) - SKIPPED_SHOWN} more files")
    return lines
