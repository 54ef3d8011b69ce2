import numpy as np
import pytest
from edit_context import CONTEXT, COVARIANCE, LIVE, LOCATION, random_latents

from service.api import latent_names
from service.core.edit import latent_edits, sampling, traversal
from service.core.latent import Latent
from service.errors import InvalidOption, UnknownLatent

LATENTS = tuple(
    Latent(index=index, name=name, dead="dead" in name)
    for index, name in enumerate(["object hue", "latent 1 (dead)", "Shape", "shape", "wall hue"])
)


def _move(latents, values, unit="latent", relative=False):
    return latent_edits.move(latents, values, unit, relative, LOCATION, COVARIANCE)


# Latents by name


@pytest.mark.parametrize(
    ("wanted", "index"),
    [("object hue", 0), ("OBJECT Hue", 0), (" wall hue ", 4), (4, 4), ("4", 4), ("Shape", 2), ("shape", 3)],
)
def test_a_latent_answers_to_its_name_and_to_its_index(wanted, index):
    assert latent_names.resolve(wanted, LATENTS) == index


@pytest.mark.parametrize("wanted", ["hue", "", 5, -1, "-1", "05", "4.0", True, "٤", "9" * 10_000])
def test_an_unknown_latent_is_told_the_names_there_are(wanted):
    with pytest.raises(UnknownLatent, match=r"object hue, latent 1 \(dead\), Shape, shape, wall hue") as caught:
        latent_names.resolve(wanted, LATENTS)
    assert "0 to 4" in caught.value.hint
    assert len(caught.value.message) < 300


def test_values_by_name_or_index():
    assert latent_names.resolve_values({"object hue": 1.5, 4: -2.0, "3": 0.0}, LATENTS) == {0: 1.5, 4: -2.0, 3: 0.0}


def test_one_latent_under_two_names_is_refused():
    with pytest.raises(InvalidOption, match=r"'object hue' is given twice"):
        latent_names.resolve_values({"object hue": 1.0, "0": 2.0}, LATENTS)


# Counterfactual


def naive_counterfactual(image, dims, location, covariance, live):
    """The published form, one image at a time, with explicit inverses."""
    dims = [dim for dim in dims if dim in live]
    omega = np.zeros_like(covariance)
    omega[np.ix_(live, live)] = np.linalg.inv(covariance[np.ix_(live, live)])
    gradient = omega @ np.where(np.isin(np.arange(len(image)), live), image - location, 0)
    edited = image.copy()
    if dims:
        edited[dims] -= np.linalg.inv(omega[np.ix_(dims, dims)]) @ gradient[dims]
    return edited


def test_counterfactual_equals_the_naive_formula_for_every_set_of_dims():
    sets = [[dim for dim in range(5) if number >> dim & 1] for number in range(32)]
    images = random_latents(len(sets))
    repaired = np.array([[dim in dims for dim in range(5)] for dims in sets])
    expected = [naive_counterfactual(image, dims, *CONTEXT) for image, dims in zip(images, sets, strict=True)]
    np.testing.assert_allclose(
        latent_edits.counterfactual(images, repaired, *CONTEXT), expected, rtol=1e-10, atol=1e-10
    )


def test_counterfactual_of_one_dim_is_the_regression_on_the_others():
    draws = np.random.default_rng(2).multivariate_normal(LOCATION[LIVE], COVARIANCE[np.ix_(LIVE, LIVE)], 200_000)
    slope = np.linalg.lstsq(draws[:, 1:] - LOCATION[LIVE][1:], draws[:, 0] - LOCATION[0], rcond=None)[0]
    images = random_latents(4)
    edited = latent_edits.counterfactual(images, np.eye(5, dtype=bool)[[0] * 4], *CONTEXT)
    expected = LOCATION[0] + (images[:, LIVE[1:]] - LOCATION[LIVE[1:]]) @ slope
    np.testing.assert_allclose(edited[:, 0], expected, atol=0.05)


def test_edits_leave_their_input_alone():
    images, everything = random_latents(6), np.ones((6, 5), dtype=bool)
    before = images.copy()
    latent_edits.counterfactual(images, everything, *CONTEXT)
    latent_edits.project(images, *CONTEXT, 1.0)
    _move(images, {0: 1.0})
    _move(images, {0: 1.0}, "sd", relative=True)
    _move(images, {0: 0.3}, "quantile")
    traversal.traverse(images[0], [0], 3, LOCATION, COVARIANCE)
    traversal.traverse_plane(images[0], (0, 2), 3, LOCATION, COVARIANCE)
    np.testing.assert_array_equal(images, before)


def test_no_images_and_no_live_latents():
    none, dead = np.empty((0, 5)), np.array([], dtype=np.intp)
    assert latent_edits.counterfactual(none, np.empty((0, 5), dtype=bool), *CONTEXT).shape == (0, 5)
    assert latent_edits.project(none, *CONTEXT, 1.0).shape == (0, 5)
    images = random_latents(3)
    everything = np.ones((3, 5), dtype=bool)
    np.testing.assert_array_equal(latent_edits.counterfactual(images, everything, LOCATION, COVARIANCE, dead), images)
    np.testing.assert_array_equal(latent_edits.project(images, LOCATION, COVARIANCE, dead, 1.0), images)
    samples = sampling.sample_gaussian(2, LOCATION, COVARIANCE, dead, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(samples, [LOCATION, LOCATION])


def test_float32_latents_come_back_as_float64():
    images = random_latents(3).astype(np.float32)
    assert latent_edits.counterfactual(images, np.ones((3, 5), dtype=bool), *CONTEXT).dtype == np.float64
    assert latent_edits.project(images, *CONTEXT, 1.0).dtype == np.float64
    assert traversal.interpolate(images[0], images[1], 3).dtype == np.float64


# Set and shift


def test_set_puts_the_value_and_nothing_else():
    images = random_latents(3)
    expected = images.copy()
    expected[:, 2], expected[:, 1] = -1.5, 0.1  # latent 1 is dead: pointless, but allowed
    np.testing.assert_array_equal(_move(images, {2: -1.5, 1: 0.1}), expected)


def test_shift_moves_by_standard_deviations_of_the_context():
    images = random_latents(3)
    moved = _move(images, {3: -2.0}, "sd", relative=True) - images
    np.testing.assert_allclose(moved[:, 3], -2 * np.sqrt(COVARIANCE[3, 3]))
    assert not moved[:, [0, 1, 2, 4]].any()


def test_quantiles_are_those_of_the_gaussian_marginal():
    images = random_latents(2)
    middle = _move(images, {0: 0.5, 4: 0.975}, "quantile")
    np.testing.assert_allclose(middle[:, 0], LOCATION[0])
    np.testing.assert_allclose(middle[:, 4], LOCATION[4] + 1.959964 * np.sqrt(COVARIANCE[4, 4]), rtol=1e-6)
    np.testing.assert_array_equal(middle[:, 1:4], images[:, 1:4])


def test_a_value_in_sd_is_measured_from_the_location():
    moved = _move(random_latents(2), {3: -2.0}, "sd")
    np.testing.assert_allclose(moved[:, 3], LOCATION[3] - 2 * np.sqrt(COVARIANCE[3, 3]))


def test_a_shift_by_quantiles_stays_short_of_the_ends():
    start = _move(random_latents(1), {0: 0.5}, "quantile")
    np.testing.assert_allclose(
        _move(start, {0: 0.2}, "quantile", relative=True), _move(start, {0: 0.7}, "quantile"), rtol=1e-12
    )
    far = _move(start, {0: 0.9}, "quantile", relative=True)
    np.testing.assert_allclose(far, _move(start, {0: 0.999}, "quantile"), rtol=1e-12)


@pytest.mark.parametrize("side", [-1, 1])
def test_a_shift_by_quantiles_goes_its_own_way_or_not_at_all(side):
    far = _move(random_latents(1), {0: 20.0 * side}, "sd")  # an outlier, well beyond the last quantile
    for outwards in (0.0, 0.1 * side):
        np.testing.assert_array_equal(_move(far, {0: outwards}, "quantile", relative=True), far)
    back = _move(far, {0: -0.1 * side}, "quantile", relative=True)
    np.testing.assert_allclose(back, _move(far, {0: 0.5 + 0.4 * side}, "quantile"), rtol=1e-9)


@pytest.mark.parametrize("unit", ["latent", "sd"])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -1001.0])
def test_values_out_of_reach_are_refused(value, relative, unit):
    with pytest.raises(InvalidOption, match=r"between -1000 and 1000"):
        _move(random_latents(1), {0: value}, unit, relative)


@pytest.mark.parametrize(
    ("quantile", "relative"), [(0.0, False), (1.0, False), (-0.1, False), (1.1, True), (np.nan, True)]
)
def test_a_quantile_lies_between_0_and_1(quantile, relative):
    with pytest.raises(InvalidOption, match="more than 0 and less than 1"):
        _move(random_latents(1), {0: quantile}, "quantile", relative)


def test_what_the_decoder_missed_is_made_up_for_in_the_repaired_dims_alone():
    latents, reencoded = np.array([[1.0, 2.0, 3.0]]), np.array([[0.8, 2.5, 3.0]])
    result = latent_edits.compensated(latents, reencoded, np.array([[True, False, True]]))
    np.testing.assert_allclose(result, [[1.2, 2.0, 3.0]])
