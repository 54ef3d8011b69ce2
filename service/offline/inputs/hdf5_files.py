"""HDF5 files of images, as data sets are published: one dataset of images, labels beside it.

Only the command line reads them, with the extra `hdf5`. h5py is imported here and nowhere else in `service`.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from service.errors import InvalidInput, readable
from service.images import arrays
from service.images.sample_range import Samples
from service.offline.inputs.local_files import Stamp, stamp

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# The dataset of images where a file has several that may be; the likelier first.
NAMES = ("images", "imgs", "image", "x")
INSTALL = 'pip install "misfit[hdf5]"'
OPEN_FILES = 16


def read_shape(path: str) -> tuple[int, ...]:
    """Return the shape of the images (n, H, W) or (n, H, W, C). Raises InvalidInput."""
    shape: tuple[int, ...] = _open(path, stamp(path)).shape
    return shape


def read_row(path: str, row: int) -> Samples:
    """Return the pixels of one image. Raises InvalidInput, and OSError where the file is damaged."""
    return np.asarray(_open(path, stamp(path))[row])


@lru_cache(OPEN_FILES)
def _open(path: str, stamp: Stamp) -> Any:
    """Return the dataset of images of a file."""
    if find_spec("h5py") is None:
        raise InvalidInput(f"{readable(path)} is HDF5, which takes h5py.", INSTALL)
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InvalidInput(f"{readable(path)} is no complete HDF5 file: {error}.") from None
    shapes: dict[str, tuple[int, ...]] = {}
    candidates: list[Any] = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            shapes[name] = node.shape
            if len(node.shape) in (3, 4) and node.dtype.name in arrays.SAMPLE_TYPES:
                candidates.append(node)

    file.visititems(visit)
    named = [node for name in NAMES for node in candidates if node.name.rpartition("/")[2].casefold() == name]
    if len(named or candidates) < 1 or (not named and len(candidates) > 1):
        listed = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:5]) or "nothing"
        what = "no dataset of images" if not candidates else "several datasets that may be images"
        raise InvalidInput(
            f"{readable(path)} has {what}: it holds {listed}.",
            "Expected one of (n, H, W) or (n, H, W, C), or one that is called images.",
        )
    return (named or candidates)[0]
