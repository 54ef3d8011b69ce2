"""MNIST (LeCun, Cortes & Burges 1998): all 70,000 digits, from its four idx files, gzipped or not."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
import pooch
from numpy.typing import NDArray

from train.data.dataset import Dataset

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# The sha256 of each unpacked file, since the packed bytes differ between mirrors.
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
IMAGE_SHAPE = (28, 28, 1)
DIGITS = 10
TIMEOUT_SECONDS = 30


def load(directory: Path) -> Dataset:
    """Read the four files of `directory`, training digits first. Missing files are downloaded.

    The digits are labels, not factors. The source is "official" where all four files are the published ones. Raises
    FileNotFoundError where a file can neither be found nor downloaded, ValueError where one is no idx file or damaged.
    """
    if missing := [name for name in FILES if _found(directory, name) is None]:
        download(directory, missing)
    contents = {name: _content(directory, name) for name in FILES}
    official = all(hashlib.sha256(content).hexdigest() == FILES[name] for name, content in contents.items())
    arrays = {name: _idx(content, name) for name, content in contents.items()}
    images = np.concatenate([arrays["train-images-idx3-ubyte"], arrays["t10k-images-idx3-ubyte"]])[..., None]
    labels = np.concatenate([arrays["train-labels-idx1-ubyte"], arrays["t10k-labels-idx1-ubyte"]]).astype(np.int64)
    if images.shape[1:] != IMAGE_SHAPE or len(images) != len(labels) or labels.max(initial=0) >= DIGITS:
        raise ValueError(
            f"{directory} does not hold MNIST: {len(images)} images of {images.shape[1:3]} with {len(labels)} labels "
            f"up to {labels.max(initial=0)}; expected 28 x 28 with as many labels, 0 to 9"
        )
    return Dataset(
        images,
        np.zeros((len(images), 0), np.int64),
        (),
        (),
        "mnist",
        "official" if official else "own files",
        labels,
        tuple(map(str, range(DIGITS))),
    )


def download(directory: Path, names: list[str], mirror: str = MIRROR) -> None:
    """Fetch the named files, packed, into `directory`. A file that is not the published one is not kept there.

    Raises FileNotFoundError where a file cannot be fetched, ValueError where its content is not the published one.
    """
    pooch.get_logger().setLevel("WARNING")  # it would print a hash of the packed file and advise to pin it
    for name in names:
        address = f"{mirror}{name}.gz"
        try:
            # No hash is given here: pooch would compare the packed bytes, and a mirror may pack the file anew.
            fetched = Path(
                pooch.retrieve(
                    address,
                    known_hash=None,
                    fname=f"{name}.gz.download",
                    path=directory,
                    downloader=pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT_SECONDS),
                )
            )
        except OSError as error:
            raise FileNotFoundError(
                f"{directory / name}.gz is not there, and {address} cannot be fetched: {error}. Put the four idx files "
                f"of MNIST into {directory}, packed or not, or name their folder: --data FOLDER"
            ) from error
        content = fetched.read_bytes()
        fetched.unlink()
        try:
            sha256 = hashlib.sha256(gzip.decompress(content)).hexdigest()
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{address} gave {len(content)} bytes that are not gzip: {error}") from error
        if sha256 != FILES[name]:
            raise ValueError(f"{address} gave a file with sha256 {sha256}, expected {FILES[name]}: it is not kept")
        unfinished = directory / f"{name}.gz.part"
        unfinished.write_bytes(content)
        unfinished.replace(directory / f"{name}.gz")


def _found(directory: Path, name: str) -> Path | None:
    return next((path for path in (directory / name, directory / f"{name}.gz") if path.is_file()), None)


def _content(directory: Path, name: str) -> bytes:
    path = _found(directory, name)
    assert path is not None, "what is missing has been downloaded"
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}. Is the download complete?") from error


def _idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """Parse an idx file: two zero bytes, the type (8 is uint8), the number of axes, their sizes, the values."""
    axes = 3 if "images" in name else 1
    header = 4 + 4 * axes
    if len(content) < header or content[:4] != bytes((0, 0, 8, axes)):
        raise ValueError(
            f"{name} is no idx file of {axes} axes of bytes: it begins with {content[:4]!r}, "
            f"expected {bytes((0, 0, 8, axes))!r}"
        )
    shape = tuple(np.frombuffer(content, ">u4", axes, 4).tolist())
    values = np.frombuffer(content, np.uint8, offset=header)
    if values.size != math.prod(shape):
        raise ValueError(f"{name} promises {math.prod(shape)} values and holds {values.size}: is it complete?")
    return values.reshape(shape)
