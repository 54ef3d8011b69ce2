"""Measured properties go the way that their names say."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from service.images.properties import (
    FILE_PROPERTIES,
    PIXEL_PROPERTIES,
    PROPERTIES,
    measure,
    measure_files,
    measure_pixels,
)

INDEX = {each.name: place for place, each in enumerate(PROPERTIES)}


@pytest.fixture(scope="module")
def scene():
    random = np.random.default_rng(0)
    coarse = random.integers(40, 200, (12, 16, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((128, 96), Image.Resampling.NEAREST)).copy()


def change(before, after, name):
    first, second = measure_pixels(np.stack([before, after]))[:, INDEX[name]]
    return second - first


def blurred(image):
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(2)))


def noisy(image):
    noise = np.random.default_rng(1).normal(0, 12, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def tinted(image, channel):
    colours = image.astype(np.int16)
    colours[..., channel] += 40
    return np.clip(colours, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "edit", "sign"),
    [
        ("brightness", lambda image: image // 2, -1),
        ("contrast", lambda image: image // 2 + 60, -1),
        ("colourfulness", lambda image: np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2), -1),
        ("red against green", lambda image: tinted(image, 0), 1),
        ("yellow against blue", lambda image: tinted(image, 2), -1),
        ("sharpness", blurred, -1),
        ("noise", noisy, 1),
        ("blank share", noisy, -1),
    ],
)
def test_a_property_follows_what_it_is_named_after(scene, name, edit, sign):
    assert np.sign(change(scene, edit(scene), name)) == sign
    assert abs(change(scene, edit(scene), name)) > 0.05


def test_brightness_and_contrast_are_grey_levels():
    half = np.zeros((1, 10, 20, 3), np.uint8)
    half[:, :, 10:] = 200
    values = measure_pixels(half)[0]
    assert values[INDEX["brightness"]] == pytest.approx(100, abs=0.01)
    assert values[INDEX["contrast"]] == pytest.approx(100, abs=0.01)
    assert values[INDEX["colourfulness"]] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("shape", [(3, 3), (4, 5), (1, 224)])
def test_small_and_flat_images_have_finite_properties(shape):
    if min(shape) < 3:
        shape = (3, shape[1])
    assert np.isfinite(measure_pixels(np.full((2, *shape, 3), 255, np.uint8))).all()


def test_no_images_have_no_rows():
    assert measure(np.empty((0, 8, 8, 3), np.uint8), np.empty((0, 2), np.int64)).shape == (0, len(PROPERTIES))


def test_shape_and_size_of_files_are_binary_logarithms():
    aspect, pixels = measure_files(np.array([[640, 480], [480, 640], [1280, 480], [1, 1]])).T
    np.testing.assert_allclose(aspect, [np.log2(4 / 3), -np.log2(4 / 3), np.log2(8 / 3), 0], rtol=1e-6)
    np.testing.assert_allclose(pixels - pixels[0], [0, 0, 1, -np.log2(640 * 480)], rtol=1e-6)


def test_what_is_measured_of_pixels_comes_first(scene):
    values = measure(scene[None], np.array([[128, 96]]))
    assert values.shape == (1, len(PIXEL_PROPERTIES) + len(FILE_PROPERTIES))
    np.testing.assert_array_equal(values[:, : len(PIXEL_PROPERTIES)], measure_pixels(scene[None]))
