"""Contexts of other families: they are what they say, and every method ranks them."""

import numpy as np
import pytest

pytest.importorskip("tqdm")

from service.core.population import Population
from train.benchmarks.families import (
    BASELINES,
    ESTIMATORS,
    FAR,
    NARROW,
    SPRITES,
    WIDE,
    Cell,
    Sprites,
    draw,
    list_cells,
    measure,
)


@pytest.fixture(scope="module")
def sprites():
    random = np.random.default_rng(0)
    bins = random.integers(0, (3, 6, 8, 8, 8), (4_000, 5))
    means = np.column_stack([bins, bins[:, :3]]) + 0.1 * random.standard_normal((4_000, 8))
    latents = np.stack([means, np.full_like(means, -4)], axis=1)
    return Sprites(latents, bins, Population.from_latents(latents))


def test_every_cell_has_both_inliers_and_outliers(sprites):
    cells = list_cells()
    assert {cell.family for cell in cells} == {WIDE, NARROW, SPRITES, FAR}
    for cell in cells:
        if cell.family != SPRITES or cell.size == 50:
            context = draw(cell, 1, 0, sprites)
            assert context.is_outlier.sum() == cell.outliers
            assert len(context.latents) == cell.size


@pytest.mark.parametrize("cell", [Cell(NARROW, "wine", 40, 3), Cell(SPRITES, "", 50, 4), Cell(FAR, "", 50, 4)])
def test_a_context_depends_on_seed_and_number_only(cell, sprites):
    index = list_cells().index
    assert index(cell) >= 0
    first, again, other = draw(cell, 1, 2, sprites), draw(cell, 1, 2, sprites), draw(cell, 1, 3, sprites)
    np.testing.assert_array_equal(first.latents, again.latents)
    assert first.latents.shape != other.latents.shape or not np.array_equal(first.latents, other.latents)


def test_images_far_outside_are_ranked_first_by_the_default(sprites):
    areas, is_reliable = measure(draw(Cell(FAR, "", 350, 7), 1, 0, sprites))
    assert not is_reliable  # as wide as the population
    assert set(areas) == {*ESTIMATORS, *BASELINES}
    assert areas["ensemble"] > 0.95
    assert areas["lof"] > 0.8
