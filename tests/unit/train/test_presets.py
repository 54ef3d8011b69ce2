from __future__ import annotations

import json
from pathlib import Path

import pytest

from train.config.experiment import BetaTCVAE, BetaVAE, CapacityVAE, Network, from_record, record_of
from train.config.overrides import override, resize, shorten
from train.config.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    preset = PRESETS[name]()
    assert preset.name == name
    assert from_record(json.loads(json.dumps(record_of(preset)))) == preset


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


def preset_record(name):
    return json.loads(Path(f"train/results/{name}/metrics.json").read_text())["config"]["preset"]


def test_the_run_that_ships_is_of_the_preset():
    assert from_record(preset_record("shapes3d_beta_tcvae")) == PRESETS["shapes3d_beta_tcvae"]()


@pytest.mark.parametrize("name", sorted(path.parent.name for path in Path("train/results").glob("*/metrics.json")))
def test_the_record_of_every_kept_run_still_loads(name):
    assert from_record(preset_record(name)).network == PRESETS[name]().network


def test_every_experiment_of_the_table_is_a_preset():
    made = {name: make() for name, make in PRESETS.items()}
    assert {preset.dataset for preset in made.values()} == {"mnist", "dsprites", "shapes3d", "folder"}
    steps = {name: (preset.total_steps, preset.training_batch) for name, preset in made.items()}
    assert steps["mnist_vae"] == (18_900, 100)
    assert steps["dsprites_gamma_vae_mlp"] == (40_000, 128)
    assert steps["dsprites_gamma_vae_cnn_decay"] == (50_000, 128)
    assert steps["dsprites_beta_tcvae"] == (60_000, 256)
    betas = [made[f"dsprites_beta_vae_{beta}"].objective for beta in ("1", "4", "2_5")]
    assert betas == [BetaVAE(1.0), BetaVAE(4.0), BetaVAE(2.5)]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("steps", [1, 7, 200])
def test_every_preset_can_be_shortened(name, steps):
    preset = PRESETS[name]()
    short = shorten(preset, steps)
    assert abs(short.total_steps - steps) <= 3
    assert short.narrow_steps < (short.folded_steps or short.steps) <= short.steps
    if steps == 200 and isinstance(preset.objective, CapacityVAE):
        share = preset.objective.capacity_steps / preset.steps
        assert short.objective.capacity_steps == round(200 * share)


def test_no_preset_can_be_shortened_to_nothing():
    with pytest.raises(ValueError, match="at least 1 step"):
        shorten(PRESETS["mnist_vae"](), 0)


@pytest.mark.parametrize(
    ("size", "features"), [(28, (32, 64)), (64, (32, 64, 128, 256)), (128, (32, 64, 128, 256, 256))]
)
def test_the_network_has_as_many_convolutions_as_the_size_allows(size, features):
    preset = resize(PRESETS["folder"](), size, 1)
    assert (preset.network.channels, preset.image_shape) == (features, (size, size, 1))


@pytest.mark.parametrize(
    ("size", "channels", "message"), [(30, 3, "multiple of 4"), (8, 3, "halved"), (64, 4, "channel")]
)
def test_sizes_that_no_network_takes_are_refused(size, channels, message):
    with pytest.raises(ValueError, match=message):
        resize(PRESETS["folder"](), size, channels)


def test_impossible_objectives_and_networks_are_refused():
    for make in (
        lambda: BetaVAE(-1.0),
        lambda: CapacityVAE(gamma=-1, capacity=25, capacity_steps=10),
        lambda: CapacityVAE(gamma=1, capacity=25, capacity_steps=0),
        lambda: CapacityVAE(gamma=1, capacity=25, capacity_steps=10, final_gamma=0.5),
        lambda: Network(hidden=()),
        lambda: Network(latent_dim=0),
    ):
        with pytest.raises(ValueError, match=r"at least|go together|hidden layer"):
            make()


@pytest.mark.parametrize("setting", ["folded_steps=17_000", "folded_steps=25_000"])
def test_unfolding_is_a_stage_of_its_own(setting):
    with pytest.raises(ValueError, match="must lie between narrow_steps and steps"):
        override(PRESETS["shapes3d_beta_tcvae"](), setting)


def test_only_what_was_unfolded_gets_a_second_look():
    with pytest.raises(ValueError, match="set folded_steps too"):
        override(PRESETS["shapes3d_beta_tcvae"](), "folded_steps=0")


def test_a_run_is_done_when_its_second_look_is():
    preset = PRESETS["shapes3d_beta_tcvae"]()
    assert [preset.last_step(aligned) for aligned in (None, False, True)] == [42_000, 31_000, 42_000]
    without = override(preset, "second_look=False")
    assert without.last_step(None) == without.most_steps == 31_000


def test_only_the_latents_of_beta_tcvae_are_unfolded():
    with pytest.raises(ValueError, match="only latents of BetaTCVAE"):
        override(PRESETS["mnist_vae"](), "folded_steps=100")


def test_a_value_of_the_wrong_type_is_refused():
    with pytest.raises(ValueError, match=r"network\.hidden"):
        override(PRESETS["mnist_vae"](), "network.hidden=400")
