"""The registry of data sets: the default path and the reader of each."""

from __future__ import annotations

from pathlib import Path

from train.config.experiment import Preset
from train.data import folder, mnist
from train.data.dataset import Dataset
from train.data.dsprites import dataset as dsprites
from train.data.shapes3d import dataset as shapes3d

DEFAULT_PATHS = {
    "mnist": Path("data/mnist"),
    "dsprites": Path("data/dsprites.npz"),
    "shapes3d": Path("data/3dshapes.h5"),
}


def load(preset: Preset, path: Path | None) -> Dataset:
    """Return the data set of `preset`, read from `path` or from its default path.

    Raises ValueError where there is neither, and what the data set's own module raises.
    """
    path = path or DEFAULT_PATHS.get(preset.dataset)
    if path is None:
        raise ValueError(f"{preset.name} trains on images of your own: name their folder with --data FOLDER")
    if preset.dataset == "folder":
        assert preset.image_shape is not None, "the preset says what its images are brought to"
        return folder.load(path, preset.image_shape)
    return {"mnist": mnist.load, "dsprites": dsprites.load, "shapes3d": shapes3d.load}[preset.dataset](path)
