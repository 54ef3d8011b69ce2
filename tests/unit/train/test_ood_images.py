"""The generators of out-of-distribution images."""

from __future__ import annotations

import numpy as np
import pytest

from train.benchmarks.ood_images import HARD_KINDS, KINDS, foreign_images


@pytest.mark.parametrize("kind", KINDS | HARD_KINDS)
def test_every_kind_makes_the_same_images_of_the_same_seed(kind, images):
    if kind == "photographs":
        pytest.importorskip("skimage")
    before = images.copy()
    made = foreign_images(kind, 5, np.random.default_rng(3), images)
    assert made.shape == (5, 64, 64, 3)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, foreign_images(kind, 5, np.random.default_rng(3), images))
    np.testing.assert_array_equal(images, before, "the frames belong to the caller")
    assert not any((image == frame).all() for image in made for frame in images)


def test_digits_of_an_mnist_file(tmp_path, images):
    import gzip

    digits = np.zeros((2, 28, 28), np.uint8)
    digits[:, 10:18, 10:18] = 255
    path = tmp_path / "digits.gz"
    path.write_bytes(gzip.compress(bytes(16) + digits.tobytes()))
    made = foreign_images("digits", 3, np.random.default_rng(0), images, path)
    assert (made[:, 32, 32] == 255).all()
    assert (made[:, 2, 2] == 0).all()
