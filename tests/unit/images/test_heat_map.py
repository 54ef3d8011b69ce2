import numpy as np
import pytest
from random_images import random_image

from service.images.pictures import heat_map


def naive_overlay(image, evidence):
    """Bilinear between the centres of the map's cells, flat beyond them, one pixel at a time."""
    height, width, _ = image.shape
    h, w = evidence.shape
    result = np.empty((height, width, 3))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * h / height - 0.5, 0), h - 1)
            u = min(max((x + 0.5) * w / width - 0.5, 0), w - 1)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            upper = evidence[top, left] * (1 - u + left) + evidence[top, right] * (u - left)
            lower = evidence[bottom, left] * (1 - u + left) + evidence[bottom, right] * (u - left)
            strength = (upper * (1 - v + top) + lower * (v - top)) / evidence.max()
            place = strength * (len(heat_map.HEAT) - 1)
            stop = min(int(place), len(heat_map.HEAT) - 2)
            colour = heat_map.HEAT[stop] + (place - stop) * (heat_map.HEAT[stop + 1] - heat_map.HEAT[stop])
            alpha = 0.85 * strength
            red, green, blue = np.broadcast_to(image[y, x].astype(float), 3)
            result[y, x] = (1 - alpha) * (0.2126 * red + 0.7152 * green + 0.0722 * blue) + alpha * colour
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_overlay_equals_the_naive_formula(channels, dtype):
    image = random_image(channels, 24, 32)
    evidence = np.random.default_rng(1).gamma(0.5, 7, (3, 4)).astype(dtype)
    overlay = heat_map.overlays(image, evidence[None])[0]
    assert overlay.dtype == np.uint8
    # The strength has 1,024 steps, and grey 256.
    np.testing.assert_allclose(overlay, naive_overlay(image, evidence), atol=1.3)


def in_grey(image):
    weights = (0.2126, 0.7152, 0.0722) if image.shape[2] == 3 else (1,)
    return np.repeat((image @ np.array(weights)).round()[..., None], 3, axis=2)


def test_where_there_is_no_evidence_the_image_shows_in_grey():
    image = random_image(3, 64, 64)
    evidence = np.zeros((8, 8))
    evidence[6, 1] = 1e-30
    overlay = heat_map.overlays(image, evidence[None])[0]
    np.testing.assert_array_equal(overlay[:32], in_grey(image)[:32])
    np.testing.assert_array_equal(overlay[:, 32:], in_grey(image)[:, 32:])
    hottest = overlay[50:54, 10:14].astype(int)
    assert (hottest[..., 0] > hottest[..., 2]).all()  # no longer grey: the hottest colour is a yellow


def test_a_map_of_zeros_leaves_the_image_in_grey():
    for image in (random_image(1), random_image(3)):
        overlay = heat_map.overlays(image, np.zeros((1, 2, 2), dtype=np.float32))[0]
        np.testing.assert_array_equal(overlay, in_grey(image))


def test_the_overlay_leaves_its_input_alone():
    image, evidence = random_image(3), np.ones((2, 2))
    before = image.copy()
    heat_map.overlays(image, evidence[None])[0][:] = 0
    heat_map.overlays(image, 0 * evidence[None])[:] = 0
    np.testing.assert_array_equal(image, before)


def _lightness(rgb):
    """CIELAB L* of sRGB 0..255."""
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def test_the_stronger_the_lighter_in_even_steps():
    lightness = _lightness(heat_map.heat_colours(np.linspace(0, 1, 101)))
    assert (np.diff(lightness) > 0).all()
    straight = np.linspace(lightness[0], lightness[-1], 101)
    np.testing.assert_allclose(lightness, straight, atol=2.5)


def test_the_strength_of_an_overlay_is_read_back():
    random = np.random.default_rng(0)
    image, evidence = random.integers(0, 256, (32, 32, 3), dtype=np.uint8), random.random((1, 32, 32))
    shown = heat_map.read_strength(heat_map.overlays(image, evidence)[0]) / 255
    assert np.abs(shown - evidence[0] / evidence.max()).max() < 0.02
