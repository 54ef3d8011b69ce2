"""The benchmark on made-up latents, one a factor, where every answer is known."""

import json

import numpy as np
import pytest

pytest.importorskip("tqdm")
pytest.importorskip("matplotlib")

from service.core.population import Population
from train.benchmarks.baselines import FLAGGING, METHODS, SLOW, Material
from train.benchmarks.contexts import LEVELS, STRATA
from train.benchmarks.outliers import (
    CLEAN,
    OUTLIERS,
    SINGLE_STRATA,
    Cell,
    draw,
    list_cells,
    measure,
    report,
    report_by_fixed,
    run,
    select,
)
from train.reports.tables import markdown

K = len(LEVELS)


@pytest.fixture(scope="module")
def material():
    """Six latents that follow a factor each and a dead one; pixels and reconstructions tell nothing."""
    rng = np.random.default_rng(0)
    factors = rng.integers(0, LEVELS, (30_000, K))
    mean = np.zeros((len(factors), K + 1))
    mean[:, :K] = (factors - (LEVELS - 1) / 2) / (LEVELS / 3.5) + 0.02 * rng.standard_normal(factors.shape)
    latents = np.stack([mean, np.full_like(mean, -6.0)], axis=1).astype(np.float32)
    return Material(
        latents,
        factors,
        Population.from_latents(latents),
        rng.random(len(factors)),
        rng.standard_normal((len(factors), 5)),
        np.array([*range(K), -1]),
    )


def test_every_size_is_measured_clean_and_in_every_stratum():
    listed = list_cells()
    assert len(set(listed)) == len(listed)
    for size in (20, 50, 350, 2000):
        assert Cell(CLEAN, size, 0) in listed
        for stratum in STRATA:
            shares = [cell.outliers / size for cell in listed if (cell.stratum, cell.size) == (stratum, size)]
            assert min(shares) <= max(0.01, 1 / size) + 0.002
            for share in (0.07, 0.2, 0.35):
                assert min(abs(share - each) for each in shares) < 0.035
    for size, outliers in ((350, 25), (350, 4), (50, 5), (350, 90), (20, 2)):
        assert outliers in OUTLIERS[size]


def test_a_context_depends_on_seed_and_number_only(material):
    cell = Cell("adjacent_level", 50, 5)
    first, again = (draw(cell, material.factors, 3, 7) for _ in range(2))
    np.testing.assert_array_equal(first.rows, again.rows)
    for other in (draw(cell, material.factors, 3, 8), draw(cell, material.factors, 4, 7)):
        assert not np.array_equal(first.rows, other.rows)
    assert first.is_outlier.sum() == 5
    assert not draw(Cell(CLEAN, 50, 0), material.factors, 3, 7).is_outlier.any()


@pytest.mark.parametrize("stratum", [*SINGLE_STRATA, "any_difference"])
def test_what_can_be_known_is_found_and_named(material, stratum):
    cell = Cell(stratum, 350, 25)
    outcome = measure(material, cell, draw(cell, material.factors, 0, 0))
    assert set(outcome.auroc) == set(METHODS)
    assert outcome.auroc["mixture"] > 0.99
    assert outcome.average_precision["mixture"] > 0.9
    assert outcome.auroc["oracle"] > 0.99
    assert 0.3 < outcome.auroc["reconstruction"] < 0.7
    assert 0.3 < outcome.auroc["pixel_pca"] < 0.7
    assert outcome.auroc["ensemble"] > 0.99
    assert outcome.auroc["density_ratio"] > 0.99
    assert outcome.flags["mixture"].outliers > 0.9
    for name in FLAGGING:
        assert outcome.flags[name].inliers < 0.02
    if stratum in SINGLE_STRATA:
        assert outcome.named > 0.9
    else:
        assert np.isnan(outcome.named)


def test_a_latent_under_a_wrong_name_is_noticed(material):
    cell = Cell("single_factor", 350, 25)
    renamed = material._replace(latent_factors=np.roll(material.latent_factors, 1))
    assert measure(renamed, cell, draw(cell, material.factors, 0, 0)).named < 0.2


def test_slow_methods_can_be_left_out(material):
    cell = Cell("single_factor", 50, 5)
    outcome = measure(material, cell, draw(cell, material.factors, 0, 0), slow=False)
    assert set(METHODS) - set(outcome.auroc) == set(SLOW)


def test_processes_change_nothing_and_the_report_is_complete(material):
    selected = [Cell(CLEAN, 20, 0), Cell("shape_only", 20, 2)]

    serial = run(material, 6, seed=1, selected=selected, processes=1)
    parallel = run(material, 6, seed=1, selected=selected, processes=2)
    entries, others = report(serial), report(parallel)
    assert json.dumps(entries) == json.dumps(others)
    clean, dirty = entries
    assert (clean["stratum"], clean["size"], clean["outliers"], clean["contexts"]) == (CLEAN, 20, 0, 6)
    assert set(clean["methods"]) == set(FLAGGING)
    for name in FLAGGING:
        assert "auroc" not in clean["methods"][name]
        assert 0 <= clean["methods"][name]["inliers_flagged"] <= 1
    assert dirty["methods"]["mixture"]["contexts"] == 6
    assert dirty["methods"]["mcd"]["contexts"] == 2
    share = dirty["methods"]["mixture"]["auroc"]["mean"] / dirty["methods"]["oracle"]["auroc"]["mean"]
    assert dirty["methods"]["mixture"]["share_of_oracle"]["mean"] == pytest.approx(share)


def test_tables_hold_every_cell_and_every_method(material):
    selected = [Cell(CLEAN, 20, 0), Cell("single_factor", 50, 5)]
    outcomes = [
        measure(material, cell, draw(cell, material.factors, 0, index)) for cell in selected for index in (0, 1)
    ]
    repairs = {"stratum": "single_factor", "outliers": 3, "inside": 1.0, "restored": 0.5, "kept": 1.0}
    result = {
        "model": "m",
        "bundle_id": "0" * 64,
        "images": 10,
        "split": "test",
        "data": "d",
        "seed": 0,
        "seconds": 1.0,
        "command": "c",
        "commit": "d00d",
        "cells": report(outcomes),
        "by_fixed": report_by_fixed(outcomes),
        "counterfactuals": [repairs | {"restored_and_kept": 0.5, "readable": 0.98}],
        "foreign": None,
    }
    text = markdown(result)
    for words in ("| clean | 20/0 | 2 ", "| single factor | 50/5 | 2 ", *METHODS, "0.980"):
        assert words in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| ")}
    assert len(widths) == 4


@pytest.mark.parametrize("stratum", ["common_cause", "copies"])
def test_outliers_of_one_cause_share_their_wrong_values(material, stratum):
    context = draw(Cell(stratum, 50, 10), material.factors, 0, 3)
    outliers = material.factors[context.rows[context.is_outlier]]
    rule = material.factors[context.inlier_pool[0], context.fixed]
    assert (outliers[:, context.fixed] == outliers[0, context.fixed]).all()
    assert (outliers[0, context.fixed] != rule).any()
    assert (len(np.unique(outliers, axis=0)) == 1) == (stratum == "copies")


def test_inliers_that_were_held_out_come_first(material):
    held_out = np.random.default_rng(0).random(len(material.factors)) < 0.3
    context = draw(Cell("single_factor", 50, 5), material.factors, 0, 1, held_out)
    inliers = context.rows[~context.is_outlier]
    expected = min(held_out[context.inlier_pool].sum(), len(inliers))
    assert held_out[inliers].sum() == expected
    assert len(np.unique(inliers)) == len(inliers)


def test_selected_rows_are_a_material_of_their_own(material):
    rows = np.arange(len(material.factors)) % 3 == 0
    part = select(material._replace(held_out=rows), rows)
    assert part.held_out is None
    np.testing.assert_array_equal(part.factors, material.factors[rows])
    assert len(part.latents) == len(part.components) == len(part.reconstruction_error) == rows.sum()
