"""The benchmark of photographs: its contexts are what it says, its baselines rank, its page shows every cell."""

import numpy as np
import photographs as drawn
import pytest

pytest.importorskip("tqdm")
pytest.importorskip("torch")

from train.benchmarks import photograph_arms, photographs, reach
from train.benchmarks.photographs import BASELINES, Cell, Half, draw, list_cells, run, run_halves
from train.models import feature_vae
from train.reports.photographs import arms_page, halves_page, page


@pytest.fixture(scope="module")
def half():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [40, 40, 12])
    features = random.standard_normal((92, 30)) + 3 * np.eye(30)[labels]
    return Half(np.zeros((92, 2, 3)), features, labels, np.zeros(92))


def test_a_context_is_one_class_with_some_of_one_other(half):
    for seed in range(20):
        context = draw(half, Cell(30, 6), np.random.default_rng(seed))
        assert context is not None
        rows, is_outlier = context
        assert len(np.unique(rows)) == 30
        assert is_outlier.sum() == 6
        (normal,), (other,) = np.unique(half.labels[rows[~is_outlier]]), np.unique(half.labels[rows[is_outlier]])
        assert normal != other


def test_no_class_is_large_enough_for_some_cells(half):
    assert draw(half, Cell(350, 7), np.random.default_rng(0)) is None
    assert {cell.size for cell in list_cells()} == {20, 50, 100, 350}


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_ranks_what_is_far_off(name):
    random = np.random.default_rng(1)
    features = np.abs(random.standard_normal((60, 12)))
    features[7] = np.where(np.arange(12) < 3, 8, 0)
    assert BASELINES[name](features).argmax() == 7


@pytest.mark.filterwarnings("ignore")
def test_a_collection_is_learned_and_measured(tmp_path):
    drawn.write_tree(tmp_path / "drawn", 44)
    result, _ = run(tmp_path / "drawn", contexts=2, seed=1)
    assert result["learned"] == result["held_out"] == 66
    assert {cell["size"] for cell in result["cells"]} == {20}
    (cell,) = [cell for cell in result["cells"] if cell["outliers"] == 1]
    assert cell["auroc"]["density_ratio"]["mean"] > 0.7
    foreign = [{"own": "drawn", "other": "signs", "auroc": 1.0, "flagged": 0.98}]
    whole = {"contexts": 2, "command": "c", "commit": "d00d", "seconds": 1.0, "collections": [result]}
    text = page(whole | {"foreign": foreign})
    assert "66 photographs learned, 66 held out, 3 classes" in text
    assert "| drawn | signs | 1.0000 | 98.0% |" in text


@pytest.mark.filterwarnings("ignore")
def test_several_halves_are_measured_one_by_one(tmp_path, monkeypatch):
    drawn.write_tree(tmp_path / "drawn", 44)
    monkeypatch.setattr(photographs, "COMPARED", Cell(20, 1))
    result = run_halves(tmp_path / "drawn", halves=2, contexts=2, seed=1)
    first, second = result["halves"]
    alone, _ = run(tmp_path / "drawn", contexts=2, seed=2, only_default=True)
    assert second["calibration_error"] == alone["calibration_error"] != first["calibration_error"]
    assert first["auroc"] > 0.7
    whole = {"seed": 1, "contexts": 2, "command": "c", "commit": "d00d", "size": 20, "outliers": 1, "seconds": 1.0}
    text = halves_page(whole | {"collections": [result]})
    assert f"| 2 | {second['auroc']:.3f} | {second['found']:.0%} |" in text
    assert f"| mean | {(first['auroc'] + second['auroc']) / 2:.3f} |" in text
    assert "clean, 20" in text


def test_reaches_are_measured_on_clean_contexts_and_shown(tmp_path, monkeypatch):
    drawn.write_tree(tmp_path / "drawn", 44)
    monkeypatch.setattr(reach, "SIZES", (20,))
    monkeypatch.setattr(reach, "FEW", (10,))
    result = reach.run([tmp_path / "drawn"], halves=1, contexts=3, seed=1)
    beyond = result["beyond"]["drawn"]
    assert result["scores"] == {"drawn": 60}
    assert (np.diff(beyond) <= 0).all()
    assert 0.4 < beyond[0] <= 0.5
    text = reach.page(result | {"command": "c", "commit": "d00d"})
    assert "60 scores of drawn" in text
    assert "| 0 | 0.5 |" in text
    assert f"| 10 | {result['powers']['drawn'][0]:.2f} |" in text
    assert f"| 20 | {result['powers']['drawn'][1]:.2f} |" in text
    assert len(result["masked"]["drawn"]) == len(reach.OUTLIERS)
    assert "| outliers | drawn |" in text


def test_the_share_of_masked_contexts_is_the_likeliest_one():
    random = np.random.default_rng(3)
    is_masked = random.random(400) < 0.3
    log_ratios = np.where(is_masked, -4.0, 4.0) + random.standard_normal(400)
    assert reach.masked_share(log_ratios) == pytest.approx(is_masked.mean(), abs=0.03)
    assert reach.masked_share(np.array([50.0, 60.0])) < 1e-6


def test_other_latents_are_measured_on_the_same_contexts(tmp_path, monkeypatch):
    drawn.write_tree(tmp_path / "drawn", 44)
    monkeypatch.setattr(photograph_arms, "CELLS", (Cell(20, 4),))
    monkeypatch.setattr(feature_vae, "STEPS", 3)
    result = photograph_arms.run(tmp_path / "drawn", contexts=2, seed=1, vae_steps=2)
    (cell,) = result["cells"]
    assert {name.split(",")[0] for name in cell["auroc"]} == {"axes", "feature_tcvae", "vae", "vae_and_axes"}
    assert cell["auroc"]["axes, density_ratio"]["mean"] > 0.7
    text = arms_page({"collections": [result], "command": "c", "commit": "d00d", "seconds": 1.0})
    assert "vae_and_axes" in text
