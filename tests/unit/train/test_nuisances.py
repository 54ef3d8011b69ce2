"""Nuisances: each does what its name says and nothing else; the benchmark of them measures all three ways."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tqdm")
pytest.importorskip("h5py")

from service.inference.onnx_runtime import OnnxNetworks
from train.benchmarks import nuisances as benchmark
from train.benchmarks.nuisance_kinds import NUISANCES, Nuisance
from train.data import nuisances
from train.data.shapes3d import dataset as shapes3d
from train.training.augmentation import augment


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return shapes3d.rendered([0, 77_777, 200_003, 479_999]).images


@pytest.mark.parametrize("name", NUISANCES)
def test_every_nuisance_keeps_shape_and_type_and_leaves_its_input_alone(name, images):
    before = images.copy()
    treated = NUISANCES[name].treat(images, np.random.default_rng(0))
    assert (treated.shape, treated.dtype) == (images.shape, np.uint8)
    assert (images == before).all()
    changed = np.abs(treated.astype(int) - images).mean()
    assert changed == 0 if name == "none" else 0 < changed < 60


def test_a_shift_moves_down_and_to_the_right(images):
    image = images[0]
    moved = nuisances.shift(image, 2, -1)
    assert (moved[2:, :-1] == image[:-2, 1:]).all()
    assert (moved[:2, :-1] == image[0, 1:]).all()
    assert (nuisances.shift(image, 3, 0, "constant")[:3] == 0).all()
    assert (nuisances.shift(image, -3, 5, "wrap") == np.roll(image, (-3, 5), axis=(0, 1))).all()


def test_a_warp_by_whole_pixels_is_a_shift(images):
    for rows, columns in ((0, 0), (2, -3), (-1, 1)):
        warped = nuisances.warp(images[0], rows=rows, columns=columns)
        assert (warped == nuisances.shift(images[0], rows, columns)).all()


def test_four_quarter_turns_are_none(images):
    turned = images[0]
    for _ in range(4):
        turned = nuisances.warp(turned, degrees=90)
    assert (turned == images[0]).all()


def test_grey_images_are_treated_as_well(images):
    grey = images[1][..., :1]
    random = np.random.default_rng(0)
    for _ in range(60):
        assert augment(grey, random).shape == grey.shape
    assert nuisances.saturation(grey, 0.5) is grey


def test_augmentation_depends_on_its_random_numbers_alone(images):
    one, same, other = (augment(images[2], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_a_good_part_of_the_augmented_images_is_moved_and_nothing_else():
    grey = np.full((16, 16, 3), 120, np.uint8)
    random = np.random.default_rng(3)
    # A grey image that is moved keeps its grey, or gets a black border.
    moved = [np.isin(augment(grey, random), (0, 120)).all() for _ in range(400)]
    assert 0.25 < np.mean(moved) < 0.6


@pytest.mark.filterwarnings("ignore")
def test_the_benchmark_measures_all_half_and_one(served_bundle, monkeypatch):
    """A nuisance that paints everything black spoils all three ways; none spoils nothing."""
    black = Nuisance(lambda images, rng: np.zeros_like(images), judged=True)
    monkeypatch.setattr(benchmark, "NUISANCES", {"none": NUISANCES["none"], "black": black})
    monkeypatch.setattr(benchmark, "LARGE", benchmark.SMALL)
    factors = benchmark.all_factors(shapes3d.FACTOR_SIZES)
    held_out = np.random.default_rng(0).random(len(factors)) < 0.05
    contexts = benchmark.draw(factors, held_out, 2, seed=1)
    assert [int(context.is_outlier.sum()) for context in contexts] == [4, 4, 0, 0]
    rows = benchmark.rows_of(contexts)
    places = benchmark.renumber(contexts, rows)
    assert all((rows[place.rows] == context.rows).all() for place, context in zip(places, contexts, strict=True))
    entries = benchmark.run(OnnxNetworks(served_bundle), served_bundle.population, shapes3d.rendered(rows), places, 1)
    none, painted = entries
    assert none["all"]["auroc"]["mean"] > 0.99
    assert none["half"] == none["all"]
    assert none["one"] == {"images": 12, "flagged": 0, "foreign": 0}
    assert benchmark.meets_goals(none)
    assert painted["all"]["auroc"]["mean"] < 0.7
    assert painted["one"]["flagged"] == painted["one"]["foreign"] == 1
    assert not benchmark.meets_goals(painted)


def test_the_page_shows_every_nuisance(tmp_path):
    pytest.importorskip("matplotlib")
    from train.reports import nuisances as report

    way = {"auroc": {"mean": 0.99, "worst_decile": 0.96}, "false_flags": 0.01, "found": 0.9, "foreign": 0.0}
    entry = {"all": way, "half": way, "one": {"images": 9, "flagged": 0.02, "foreign": 0.0}}
    entries = [{"nuisance": name, "judged": kind.judged, **entry} for name, kind in NUISANCES.items()]
    about = {"model": "m", "bundle_id": "b" * 64, "data": "d", "split": "test", "contexts": 3, "command": "c"}
    text = report.page(about | {"commit": "d00d", "seconds": 1.0, "entries": entries})
    assert "9 of 9 meet all of them" in text
    assert "| blur, radius 0.7 * | 0.9900 / 0.9600 | 1.0% | 90% | 0.0% |" in text
    report.draw(entries, tmp_path / "nuisances.png")
    assert (tmp_path / "nuisances.png").stat().st_size > 1_000
