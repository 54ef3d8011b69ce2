"""HDF5 of data sets as an input: the images are found among labels, and scored as an array would be."""

import os

import numpy as np
import pytest

from service.errors import InvalidInput, UndecodableImage
from service.offline.inputs.sources import find_sources

h5py = pytest.importorskip("h5py")


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name.replace("__", "/")] = values
    return str(path)


IMAGES = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)


@pytest.mark.parametrize(
    "datasets",
    [
        {"images": IMAGES, "labels": np.zeros((2, 6))},
        {"imgs": IMAGES, "masks": np.zeros((2, 8, 8), np.uint8)},
        {"group__anything": IMAGES, "latents": np.zeros((2, 10), np.float32), "names": np.array([b"a", b"b"])},
    ],
)
def test_the_dataset_of_images_is_found(datasets, tmp_path):
    found = find_sources([write(tmp_path / "x.h5", **datasets)])
    assert [each.id for each in found.images] == ["x.h5[0]", "x.h5[1]"]
    assert found.shapes == [IMAGES.shape]
    np.testing.assert_array_equal(found.images[1].read(), IMAGES[1])


def test_what_is_none_is_explained(tmp_path):
    for datasets, message in (
        ({"labels": np.zeros((2, 6))}, r"no dataset of images: it holds labels \(2, 6\)"),
        ({"a": IMAGES, "b": IMAGES}, "several datasets that may be images"),
        ({}, "it holds nothing"),
    ):
        with pytest.raises(InvalidInput, match=message):
            find_sources([write(tmp_path / "x.h5", **datasets)])
    (tmp_path / "cut.h5").write_bytes((tmp_path / "x.h5").read_bytes()[:40])
    with pytest.raises(InvalidInput, match="no complete HDF5 file"):
        find_sources([str(tmp_path / "cut.h5")])
    images = find_sources([write(tmp_path / "y.h5", images=IMAGES)]).images
    os.replace(write(tmp_path / "z.h5", images=IMAGES[:1]), tmp_path / "y.h5")
    with pytest.raises(UndecodableImage):
        images[1].read()
