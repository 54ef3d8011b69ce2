"""What an evaluation says about a model that learned, one that collapsed, and one that draws blanks."""

from __future__ import annotations

import pytest

from train.evaluation.diagnosis import diagnose, explained_share


def evaluation(nll: float, live: int) -> dict:
    kl = [2.0] * live + [0.0] * (10 - live)
    return {
        "latent_kl": kl,
        "metrics": {"reconstruction_nll": nll, "perfect_nll": 40.0, "mean_image_nll": 240.0, "live_latents": live},
    }


def test_a_model_that_learned_earns_no_remark():
    assert diagnose(evaluation(60.0, 10)) == []


def test_dead_latents_are_counted():
    (remark,) = diagnose(evaluation(60.0, 4))
    assert "6 of 10 latents are dead" in remark
    assert "no use for more than 4" in remark


def test_a_collapsed_model_is_called_one():
    collapsed, blank = diagnose(evaluation(239.0, 0))
    assert "posterior collapse" in collapsed
    assert "blank" in blank


def test_missing_detail_is_noted():
    assert "only 40%" in diagnose(evaluation(160.0, 10))[0]


def test_the_share_explained_runs_from_the_mean_image_to_the_image_itself():
    assert explained_share(evaluation(240.0, 0)["metrics"]) == 0
    assert explained_share(evaluation(40.0, 1)["metrics"]) == 1
    same = {"reconstruction_nll": 5.0, "perfect_nll": 5.0, "mean_image_nll": 5.0}
    assert explained_share(same) == pytest.approx(0)
