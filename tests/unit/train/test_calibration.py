"""The calibration benchmark: its batches are what it says, and its report counts right."""

import numpy as np
import pytest

pytest.importorskip("tqdm")
pytest.importorskip("matplotlib")

from train.benchmarks.calibration import (
    BY_CHANCE,
    CAUSES,
    KINDS,
    SIZES,
    SIZES_BY_CHANCE,
    Cell,
    Outcome,
    draw,
    list_cells,
    measure,
)
from train.benchmarks.calibration_summary import (
    calibration_error,
    report,
    report_by_chance,
    report_by_reliability,
    report_by_share,
)
from train.reports.calibration import draw_found, draw_reliability, page


def test_every_kind_and_size_is_measured_clean_and_with_outliers_of_every_cause():
    cells = list_cells()
    assert len(set(cells)) == len(cells)
    for kind in KINDS:
        for size in SIZES:
            of_size = [cell for cell in cells if (cell.kind, cell.size) == (kind, size)]
            assert {cell.cause for cell in of_size} == {"none", *CAUSES}
            assert max(cell.outliers for cell in of_size) == round(0.35 * size)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_depends_on_seed_and_number_only(kind):
    cell = Cell(kind, 50, 5, "several")
    first, again, other = draw(cell, 1, 2), draw(cell, 1, 2), draw(cell, 1, 3)
    np.testing.assert_array_equal(first.latents, again.latents)
    assert not np.array_equal(first.latents, other.latents)
    assert first.latents.shape == (50, 2, 6)
    assert first.is_outlier.sum() == 5
    assert not draw(Cell(kind, 50, 0, "none"), 1, 2).is_outlier.any()


def test_copies_are_copies_and_one_cause_is_close():
    copies, one = (draw(Cell("rule", 50, 10, cause), 0, 0) for cause in ("copies", "one"))
    assert len(np.unique(copies.latents[copies.is_outlier], axis=0)) == 1
    assert one.latents[one.is_outlier][:, 0].std(axis=0).max() < 0.3


def test_calibration_error_is_that_of_its_definition():
    probability = np.array([0.02, 0.02, 0.9, 0.9, 0.9, 0.9])
    truth = np.array([False, False, True, True, True, False])
    assert calibration_error(probability, truth) == pytest.approx(2 / 6 * 0.02 + 4 / 6 * abs(0.9 - 0.75))


def outcome(cell, flagged, is_reliable=True, warns_of_kinds=False):
    """Return an outcome of four images, the last of which is the outlier if there is one."""
    truth = np.array([False, False, False, cell.outliers > 0])
    flags = np.array(flagged, dtype=bool)
    return Outcome(cell, truth, np.where(flags, 0.9, 0.1), flags, flags, True, is_reliable, warns_of_kinds)


def test_the_report_counts_flags_discoveries_and_silence():
    clean, dirty = Cell("rule", 20, 0, "none"), Cell("rule", 20, 1, "one")
    (entry,) = report(
        [
            outcome(clean, [0, 0, 0, 0]),
            outcome(clean, [1, 0, 0, 0]),
            outcome(dirty, [0, 0, 0, 1]),
            outcome(dirty, [0, 0, 1, 0]),
        ]
    )
    assert (entry["kind"], entry["size"], entry["cause"], entry["batches"]) == ("rule", 20, "one", 4)
    assert entry["clean_flagged"] == 1 / 8
    assert entry["clean_with_discoveries"] == entry["clean_with_many_flags"] == 0.5
    assert entry["many_flags_called_reliable"] == 1
    assert entry["by_outliers"]["1"] == {
        "separated": 1.0,
        "found_where_separated": 0.5,
        "false_discovery_proportion": 0.5,
        "missed_silently": 0.5,
    }


def test_calibration_by_share_is_over_all_kinds_and_causes():
    outcomes = [
        outcome(Cell("rule", 20, 1, "one"), [0, 0, 0, 1]),
        outcome(Cell("gaussian", 20, 1, "several"), [0, 0, 0, 0]),
        outcome(Cell("rule", 50, 0, "none"), [0, 0, 0, 0]),
    ]
    dirty, clean = report_by_share(outcomes)
    assert (dirty["size"], dirty["share"]) == (20, 0.05)
    assert dirty["mean_probability"] == pytest.approx((0.9 + 7 * 0.1) / 8)
    assert (clean["share"], clean["calibration_error"]) == (0, pytest.approx(0.1))


def test_reliable_batches_are_reported_apart():
    clean, dirty, alike = (Cell("rule", 20, count, cause) for count, cause in ((0, "none"), (1, "several"), (1, "one")))
    (entry,) = report_by_reliability(
        [
            outcome(clean, [0, 0, 0, 0]),
            outcome(clean, [1, 0, 0, 0], is_reliable=False),
            outcome(dirty, [0, 0, 1, 1]),
            outcome(alike, [0, 0, 0, 1]),
        ]
    )
    assert (entry["kind"], entry["size"], entry["reliable"]) == ("rule", 20, 0.75)
    assert entry["flagged_reliable"] == pytest.approx(2 / 3)
    assert entry["clean_with_discoveries"] == entry["discoveries_silently_false"] == 0
    assert entry["false_discoveries_several"] == 0.5
    assert entry["false_discoveries_alike"] == 0
    assert entry["calibration_error"] == pytest.approx((8 + 1) / 12 * 0.1 + 3 / 12 * abs(0.9 - 2 / 3), abs=0.02)

    (silent,) = report_by_reliability([outcome(clean, [0, 0, 0, 0], is_reliable=False)])
    assert (silent["reliable"], silent["flagged_reliable"], silent["calibration_error"]) == (0, None, None)


@pytest.mark.parametrize(("kind", "spread"), [(BY_CHANCE[0], 0.15), (BY_CHANCE[1], 0.1)])
def test_kinds_by_chance_have_numbers_that_differ_from_batch_to_batch(kind, spread):
    smaller = set()
    for index in range(12):
        means = draw(Cell(kind, 20, 0, "none"), 1, index).latents[:, 0]
        gaps = np.diff(np.sort(means, axis=0), axis=0)
        axis = gaps.max(axis=0).argmax()
        if gaps[:, axis].max() > 8 * spread:
            smaller.add(min(int(gaps[:, axis].argmax()) + 1, 19 - int(gaps[:, axis].argmax())))
    assert len(smaller) > 2


def test_batches_of_kinds_by_chance_are_counted_by_their_flags_and_warnings():
    cells = [Cell(kind, size, 0, "none") for kind in BY_CHANCE for size in SIZES_BY_CHANCE]
    outcomes = [outcome(cell, [0, 0, 0, 0]) for cell in cells]
    outcomes += [
        outcome(cells[0], [1, 0, 0, 0], warns_of_kinds=True),
        outcome(cells[0], [1, 0, 0, 0], is_reliable=False, warns_of_kinds=True),
        outcome(cells[0], [1, 1, 0, 0], is_reliable=False),
    ]
    first, *others = report_by_chance(outcomes)
    assert first == {
        "kind": BY_CHANCE[0],
        "size": 20,
        "batches": 4,
        "with_many_flags": 0.75,
        "called_reliable": 1,
        "without_a_warning_of_kinds": 1,
    }
    assert [entry["with_many_flags"] for entry in others] == [0, 0, 0]


def test_a_rule_s_outliers_are_found():
    cell = Cell("rule", 50, 5, "several")
    result = measure(cell, draw(cell, 0, 0))
    assert result.separated
    assert result.flagged[result.is_outlier].mean() > 0.7
    assert not result.flagged[~result.is_outlier].any()


@pytest.mark.parametrize("kind", ["rule", "gaussian", "student_t", "laplace", "skewed", "binomial"])
@pytest.mark.parametrize("size", [20, 50])
def test_discoveries_keep_the_rate_and_probabilities_mean_what_they_say(kind, size):
    """A rate of .1, over batches of which half have outliers. Of 30 batches, 15% have 8 by chance once in 30 times."""
    clean, dirty = (
        [measure(cell, draw(cell, 4, index)) for index in range(30)]
        for cell in (Cell(kind, size, 0, "none"), Cell(kind, size, size // 10, "several"))
    )
    assert sum(each.discovered.any() for each in clean) <= 7
    false = [(each.discovered & ~each.is_outlier).sum() / max(each.discovered.sum(), 1) for each in dirty]
    assert np.mean(false) <= 0.15
    probability = np.concatenate([each.probability for each in [*clean, *dirty]])
    truth = np.concatenate([each.is_outlier for each in [*clean, *dirty]])
    assert calibration_error(probability, truth) <= 0.05


@pytest.mark.parametrize("kind", ["two_kinds", "binomial", "population"])
@pytest.mark.parametrize("size", [20, 50])
def test_the_most_normal_images_may_hide_misfits_of_one_cause(kind, size):
    cells = [Cell(kind, size, 0, "none")] * 6
    cells += [Cell(kind, size, round(share * size), cause) for share in (0.05, 0.1, 0.2, 0.35) for cause in CAUSES]
    measured = [measure(cell, draw(cell, 5, index)) for index, cell in enumerate(6 * cells)]
    probability = np.concatenate([each.probability for each in measured])
    truth = np.concatenate([each.is_outlier for each in measured])
    normal = probability < 0.1
    assert abs(probability[normal].mean() - truth[normal].mean()) <= 0.04


def test_the_page_and_the_figures_hold_every_kind(tmp_path):
    cells = [Cell(kind, size, count, cause) for kind in KINDS for size in SIZES for count, cause in [(0, "none")]]
    cells += [Cell(kind, size, 1, cause) for kind in KINDS for size in SIZES for cause in CAUSES]
    entries = report([outcome(cell, [0, 0, 0, cell.outliers]) for cell in cells])
    result = {"estimator": "ensemble", "seed": 1, "batches": 1, "seconds": 1.0, "command": "c", "commit": "d00d"}
    outcomes = [outcome(cell, [0, 0, 0, cell.outliers]) for cell in cells]
    areas = {"ensemble": 0.9, "density_ratio": 0.8}
    families = [
        {"family": "far", "contexts": 3, "auroc": areas, "reliable": 0.0, "auroc_reliable": None},
        {"family": "sprites", "contexts": 3, "auroc": areas, "reliable": 0.5, "auroc_reliable": areas},
    ]
    by_chance = [outcome(Cell(kind, size, 0, "none"), [0, 0, 0, 0]) for kind in BY_CHANCE for size in SIZES_BY_CHANCE]
    tables = {
        "by_share": report_by_share(outcomes),
        "by_reliability": report_by_reliability(outcomes),
        "by_chance": report_by_chance(by_chance),
    }
    text = page(result | {"entries": entries, "families": families} | tables)
    rows = len(entries), 2 * len(SIZES), len(KINDS) * len(SIZES), len(by_chance), len(families)
    assert text.count("\n| ") == 2 * len(rows) + sum(rows)
    assert "| far | 3 | 0.900 | 0.800 | 0.00 | - |" in text
    assert "| sprites | 3 | 0.900 | 0.800 | 0.50 | -0.100 |" in text
    for draw_figure, name in ((draw_reliability, "a.png"), (draw_found, "b.png")):
        draw_figure(entries, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5_000
