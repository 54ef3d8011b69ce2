from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from train.presets import PRESETS, BetaTCVAE, from_record, override


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    preset = PRESETS[name]()
    assert preset.name == name
    assert from_record(json.loads(json.dumps(asdict(preset)))) == preset


def test_override_changes_one_field():
    preset = PRESETS["shapes3d_beta_tcvae"]()
    changed = override(override(preset, "objective.beta=8"), "steps=50_000")
    assert (changed.objective.beta, changed.steps) == (8, 50_000)
    assert changed.network == preset.network


@pytest.mark.parametrize("setting", ["beta=8", "objective.bet=8", "steps", "optimizer.lr=1"])
def test_unknown_fields_are_refused_with_the_known_ones(setting):
    with pytest.raises(ValueError, match=r"objective\.beta"):
        override(PRESETS["shapes3d_beta_tcvae"](), setting)


def test_impossible_values_are_refused_before_anything_runs():
    with pytest.raises(ValueError, match="at least 1 step"):
        override(PRESETS["shapes3d_beta_tcvae"](), "steps=0")
    with pytest.raises(ValueError, match="pressure"):
        BetaTCVAE(pressure=0.5)
