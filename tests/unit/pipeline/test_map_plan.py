"""Heat maps: which are shown, and that the map of all content adds up to its share of the distance."""

import numpy as np
import pytest

from service.core.latent import CONTENT, Latent, content_name
from service.pipeline.explain.map_plan import compute_evidence, plan_maps

LATENTS = [Latent(index=k, name=f"factor {k}", factor=f"factor {k}", dead=False) for k in range(4)]
PHOTOGRAPHS = [
    Latent(index=0, name=content_name(0), factor=CONTENT, dead=False),
    Latent(index=1, name="hands", factor=CONTENT, dead=False),
    Latent(index=2, name="sharpness", factor="sharpness", unit="log2", dead=False),
    Latent(index=3, name=content_name(3), factor=CONTENT, dead=False),
]
ORDER = np.array([[2, 0, 3, 1], [1, 2, 3, 0]])
REPAIRED = np.array([[True, False, False, True], [False, True, True, False]])
SIGNS = np.array([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, 1.0]])
GRADIENTS = np.array([[2.0, 3.0, 4.0, 5.0], [-1.0, 2.0, 7.0, -3.0]])


def test_the_minimal_set_comes_first_then_what_is_most_to_blame():
    plan = plan_maps(ORDER, REPAIRED, SIGNS, GRADIENTS, LATENTS, 3)
    assert plan.shown.tolist() == [[0, 3, 2], [1, 2, 3]]
    assert plan.in_set.tolist() == [[True, True, False], [True, True, False]]
    np.testing.assert_array_equal(plan.weights[0], [[1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]])
    assert [plan.names[each] for each in plan.shown[0]] == ["factor 0", "factor 3", "factor 2"]


def test_content_is_shown_as_a_whole_and_properties_are_not():
    plan = plan_maps(ORDER, REPAIRED, SIGNS, GRADIENTS, PHOTOGRAPHS, 3)
    assert [[plan.names[each] for each in row] for row in plan.shown] == [
        ["content", "content 1", "content 4"],
        ["content", "hands", "content 4"],
    ]
    np.testing.assert_array_equal(plan.weights[:, 0], [[2, 3, 0, 5], [-1, 2, 0, -3]])
    assert plan.in_set.tolist() == [[True, False, False], [True, True, False]]


@pytest.mark.parametrize("latents", [LATENTS, PHOTOGRAPHS])
def test_no_image_and_one_map_are_no_special_case(latents):
    none = plan_maps(ORDER[:0], REPAIRED[:0], SIGNS[:0], GRADIENTS[:0], latents, 2)
    assert (none.shown.shape, none.weights.shape) == ((0, 2), (0, 2, 4))
    assert plan_maps(ORDER, REPAIRED, SIGNS, GRADIENTS, latents, 1).shown.shape == (2, 1)


def test_evidence_is_what_speaks_for_a_map():
    maps = np.random.default_rng(0).standard_normal((2, 4, 3, 5))
    plan = plan_maps(ORDER, REPAIRED, SIGNS, GRADIENTS, PHOTOGRAPHS, 2)
    evidence = compute_evidence(maps, plan.weights)
    whole = 2 * maps[0, 0] + 3 * maps[0, 1] + 5 * maps[0, 3]
    np.testing.assert_allclose(evidence[0, 0], np.maximum(whole, 0))
    np.testing.assert_allclose(evidence[1, 1], np.maximum(maps[1, 1], 0))
