"""Batches of digits: what they are made of, what the pipeline makes of them, and what is reported."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from service.api.options import ScoreOptions
from service.api.requests import ImagesRequest
from service.bundle import store
from service.images.decode import Upload
from service.inference.local import LocalNetworks
from service.inference.onnx_runtime import OnnxNetworks
from service.pipeline.pipeline import Pipeline
from service.settings import Settings
from train.__main__ import main
from train.benchmarks import digits, outliers
from train.benchmarks.baselines import METHODS, SLOW
from train.data import mnist
from train.reports import digits as digits_report

DIGITS = Path("tests/data/mnist")
BUNDLE = Path("service/bundles/mnist")


@pytest.fixture(scope="module")
def dataset():
    return mnist.load(DIGITS)


@pytest.fixture(scope="module")
def material(dataset):
    served = store.load(BUNDLE)
    return outliers.prepare(served, OnnxNetworks(served), dataset)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """The tests' 500 digits are too few for the real cells."""
    monkeypatch.setattr(digits, "OTHERS", {12: (1, 4)})
    monkeypatch.setattr(digits, "CLEAN_CONTEXTS", 1)
    monkeypatch.setattr(digits, "REFERENCE", 10)
    monkeypatch.setattr(digits_report, "REFERENCE", 10)
    monkeypatch.setattr(digits_report, "SHOWN", digits.ContextSpec(20, 3, 3, 8, 0))


def test_a_context_holds_what_its_recipe_says_and_no_image_twice(dataset):
    labels = dataset.labels
    context, reference = digits.draw(digits.ContextSpec(12, 4, 3, 8, 0), labels, seed=0)
    assert (labels[context.rows[context.is_outlier]] == 8).all()
    assert context.is_outlier.sum() == 4
    assert (labels[context.rows[~context.is_outlier]] == 3).all()
    assert (labels[reference] == 3).all()
    assert len({*context.rows, *reference}) == 12 + 10
    again, other = (digits.draw(digits.ContextSpec(12, 4, 3, 8, index), labels, seed=0).context for index in (0, 1))
    np.testing.assert_array_equal(context.rows, again.rows)
    assert not np.array_equal(context.rows, other.rows)


def test_every_pair_weighs_the_same():
    listed = digits.list_specs(2)
    assert len(set(listed)) == len(listed) == 10 * 2 + 2 * 90 * 2
    clean = [spec for spec in listed if spec.others == 0]
    assert all(spec.normal == spec.other for spec in clean)
    assert {(spec.normal, spec.other) for spec in listed if spec.others} == set(digits.PAIRS)


@pytest.mark.parametrize("foreign", [False, True], ids=["digits alone", "noise among them"])
@pytest.mark.parametrize("referred", [False, True], ids=["by itself", "with a reference"])
@pytest.mark.parametrize("estimator", ["density_ratio", "mixture"])
def test_what_is_measured_is_what_the_pipeline_answers(dataset, material, estimator, referred, foreign):
    context, reference = digits.draw(digits.ContextSpec(12, 4, 1, 7, 0), dataset.labels, seed=3)
    rows = context.rows
    images = dataset.images.copy()
    if foreign:
        images[rows[0]] = np.random.default_rng(0).integers(0, 256, images.shape[1:])
    served = store.load(BUNDLE)
    if foreign:
        material = outliers.prepare(served, OnnxNetworks(served), replace(dataset, images=images))
    pipeline = Pipeline(served, LocalNetworks(served), Settings())
    request = ImagesRequest(
        [Upload(str(row), partial(images.__getitem__, row)) for row in rows],
        [Upload(str(row), partial(images.__getitem__, row)) for row in reference] if referred else None,
        (),
        ScoreOptions(estimator=estimator),
    )
    answer = asyncio.run(pipeline.score(request)).whole()
    scores = digits.score_as_served(material, rows, estimator, reference if referred else None)
    assert [item.is_outlier for item in answer.items] == scores.is_outlier.tolist()
    assert [item.rank for item in answer.items] == scores.rank.tolist()
    np.testing.assert_allclose(
        [item.outlier_score for item in answer.items], scores.outlier_score, rtol=1e-4, atol=1e-5
    )
    assert [item.is_foreign for item in answer.items] == [foreign, *[False] * 11]


def test_zeros_among_ones_are_found(dataset, material):
    outcome = digits.measure(material, dataset.labels, digits.ContextSpec(30, 3, 1, 0, 0), seed=0)
    assert set(outcome.auroc) == {*METHODS, *map(digits.with_reference, digits.FLAGGING)}
    assert outcome.auroc["density_ratio"] > 0.9
    assert outcome.flagged["density_ratio, reference"].others > 0.5
    fewer = digits.measure(material, dataset.labels, digits.ContextSpec(30, 3, 1, 0, 0), seed=0, slow=False)
    assert set(outcome.auroc) - set(fewer.auroc) == set(SLOW)


def test_in_a_clean_batch_only_flags_are_counted(dataset, material):
    outcome = digits.measure(material, dataset.labels, digits.ContextSpec(30, 0, 1, 1, 0), seed=0)
    assert outcome.auroc == {}
    assert 0 <= outcome.flagged["density_ratio"].inliers < 0.3
    assert np.isnan(outcome.flagged["density_ratio"].others)


def test_the_flags_of_any_default_are_counted(dataset, material, monkeypatch):
    monkeypatch.setattr(digits, "PAIRS", ((1, 0),))
    monkeypatch.setattr(digits, "DIGITS", 2)
    default = "leave_one_out"
    result = digits.report(digits.run(material, dataset.labels, 1, 0, default), default)
    assert default not in digits.FLAGGING
    for cell in (*result["cells"], *result["clean"]):
        assert {default, digits.with_reference(default)} < set(cell["flagged"])
    assert result["cells"][0]["methods"][digits.with_reference(default)]["auroc"]["mean"] > 0.5


def test_the_command_writes_numbers_a_table_and_figures(tmp_path, capsys, monkeypatch):
    arguments = ["digits", str(BUNDLE), "--data", str(DIGITS), "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "this needs all of MNIST" in capsys.readouterr().err
    monkeypatch.setattr("train.data.dataset.HELD_OUT_SHARE", 0.48)
    monkeypatch.setattr(digits, "REFERENCE", 2)
    monkeypatch.setattr(digits, "PAIRS", ((3, 8), (1, 7), (0, 6)))
    monkeypatch.setattr(digits_report, "SHOWN", digits.ContextSpec(12, 3, 3, 8, 0))
    assert main(arguments) == 0
    result = json.loads((tmp_path / "digits.json").read_text())
    assert [(cell["size"], cell["others"], cell["contexts"]) for cell in result["cells"]] == [(12, 1, 3), (12, 4, 3)]
    default = result["default_estimator"]
    areas = [cell["methods"][default]["auroc"]["mean"] for cell in result["cells"]]
    of_pairs = [pair[default] for row in result["pairs"] for pair in row if pair]
    assert np.mean(areas) == pytest.approx(np.mean(of_pairs))
    assert result["clean"][0]["contexts"] == 10
    assert len(result["clean"][0]["flagged"]["mixture"]["by_digit"]) == 10
    assert {path.name for path in tmp_path.iterdir()} == {"digits.json", "README.md", "batch.png", "pairs.png"}
    text = (tmp_path / "README.md").read_text()
    assert f" | {areas[1]:.3f} / " in next(line for line in text.splitlines() if line.startswith("| 12/4 | 3 |"))
    assert f"default is `{default}`" in text
    assert capsys.readouterr().out.strip() == text.strip()
