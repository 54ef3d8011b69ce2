import numpy as np
import pytest
from edit_context import COVARIANCE, LOCATION, random_latents

from service.core.edit import traversal
from service.errors import InvalidOption


def test_every_row_of_a_traversal_varies_its_own_latent():
    image = random_latents(1)[0]
    rows = traversal.traverse(image, [4, 0], 5, LOCATION, COVARIANCE, span=3.0)
    assert rows.shape == (2, 5, 5)
    for row, dim in zip(rows, [4, 0], strict=True):
        deviation = np.sqrt(COVARIANCE[dim, dim])
        np.testing.assert_allclose((row[:, dim] - LOCATION[dim]) / deviation, [-3, -1.5, 0, 1.5, 3], atol=1e-12)
        others = np.arange(5) != dim
        np.testing.assert_array_equal(row[:, others], np.tile(image[others], (5, 1)))


def test_a_plane_varies_the_first_latent_down_and_the_second_across():
    image = random_latents(1)[0]
    grid = traversal.traverse_plane(image, (3, 0), 4, LOCATION, COVARIANCE)
    down, across = traversal.traverse(image, [3, 0], 4, LOCATION, COVARIANCE)
    assert grid.shape == (4, 4, 5)
    for row in range(4):
        for column in range(4):
            expected = image.copy()
            expected[3], expected[0] = down[row, 3], across[column, 0]
            np.testing.assert_array_equal(grid[row, column], expected)


def test_a_plane_needs_two_different_latents():
    with pytest.raises(InvalidOption, match="latent 3 on both axes"):
        traversal.traverse_plane(LOCATION, (3, 3), 4, LOCATION, COVARIANCE)


def test_a_traversal_needs_a_latent():
    with pytest.raises(InvalidOption, match="0 latents"):
        traversal.traverse(LOCATION, [], 4, LOCATION, COVARIANCE)


@pytest.mark.parametrize("span", [0.0, -1.0, np.nan, np.inf, 1e9])
def test_a_span_is_positive_and_finite(span):
    with pytest.raises(InvalidOption, match="span"):
        traversal.traverse(LOCATION, [0], 4, LOCATION, COVARIANCE, span)
    with pytest.raises(InvalidOption, match="span"):
        traversal.traverse_plane(LOCATION, (0, 2), 4, LOCATION, COVARIANCE, span)


def test_a_path_is_straight_even_and_includes_its_ends():
    start, end = random_latents(2)
    path = traversal.interpolate(start, end, 7)
    np.testing.assert_array_equal(path[[0, -1]], [start, end])
    np.testing.assert_allclose(np.diff(path, axis=0), np.tile((end - start) / 6, (6, 1)), atol=1e-12)
