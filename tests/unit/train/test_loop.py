"""The training loop on a data set of coloured squares: it learns, and resuming changes nothing."""

from __future__ import annotations

import json
import platform
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from train.alignment.align_latents import keep_latents  # noqa: E402
from train.config.experiment import BetaTCVAE, BetaVAE, CapacityVAE, Network, Preset  # noqa: E402
from train.data.dataset import Dataset  # noqa: E402
from train.models.bilateral_filter import SeparableBilateral  # noqa: E402
from train.training import checkpoint, loop  # noqa: E402
from train.training.allocator import keep_freed_memory  # noqa: E402

PRESET = Preset(
    name="tiny",
    dataset="squares",
    network=Network(channels=(8, 8), hidden=(16,), latent_dim=3),
    objective=BetaTCVAE(pressure=4, pressure_steps=20),
    steps=60,
    training_batch=16,
    learning_rate=3e-3,
    final_learning_rate=1e-3,
    decay_from=0.5,
    gradient_norm=1000.0,
)


@pytest.fixture(scope="module")
def squares() -> Dataset:
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(4, size=200), rng.integers(4, size=200)], axis=1)
    images = np.zeros((200, 8, 8, 3), dtype=np.uint8)
    for image, (place, shade) in zip(images, factors, strict=True):
        image[2 * place : 2 * place + 2] = 60 * (shade + 1)
    return Dataset(images, factors, ("place", "shade"), (4, 4), "squares", "rendered")


@pytest.fixture(autouse=True)
def frequent_checkpoints(monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 10)
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 20)


def records(directory):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "images_per_second"} for line in lines]


def test_it_learns(squares, tmp_path):
    loop.run(PRESET, squares, tmp_path, precision="fp32")
    first, *_, last = records(tmp_path)
    assert last["step"] == PRESET.steps
    assert last["reconstruction_nll"] < 0.8 * first["reconstruction_nll"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("narrow_steps", [0, 40], ids=["full width", "doubled on the way"])
@pytest.mark.parametrize("stop", [20, 40, 47, 60, 70])
def test_a_resumed_run_equals_one_that_never_stopped(squares, tmp_path, narrow_steps, stop, precision):
    preset = replace(PRESET, narrow_steps=narrow_steps, decoder_steps=20, bilateral_radius=2)
    loop.run(preset, squares, tmp_path / "whole", precision=precision, seed=5)
    loop.run(preset, squares, tmp_path / "parts", precision=precision, seed=5, until=stop)
    torch.randn(100)  # whatever else the process draws must not matter
    loop.run(preset, squares, tmp_path / "parts", precision=precision, seed=5, resume=True)

    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts"))
    assert parts["step"] == whole["step"] == preset.total_steps
    for name, weight in whole["model"].items():
        assert torch.equal(weight, parts["model"][name]), name
    if stop % loop.LOG_EVERY == 0:
        assert records(tmp_path / "parts") == records(tmp_path / "whole")


@pytest.mark.parametrize(
    "objective",
    [BetaVAE(4.0), CapacityVAE(10.0, 5.0, capacity_steps=30, final_gamma=2.0, decay_steps=30)],
    ids=lambda objective: type(objective).__name__,
)
@pytest.mark.parametrize("network", [PRESET.network, Network((), (32, 16), 3, leak=0.0)], ids=["cnn", "mlp"])
def test_every_objective_and_network_learns_and_resumes(squares, tmp_path, objective, network):
    preset = replace(PRESET, objective=objective, network=network)
    loop.run(preset, squares, tmp_path / "whole", precision="fp32")
    loop.run(preset, squares, tmp_path / "parts", precision="fp32", until=40)
    loop.run(preset, squares, tmp_path / "parts", precision="fp32", resume=True)
    whole = records(tmp_path / "whole")
    assert records(tmp_path / "parts") == whole
    assert whole[-1]["reconstruction_nll"] < 0.9 * whole[0]["reconstruction_nll"]
    assert checkpoint.load_model(tmp_path / "whole").latent_dim == 3


def test_a_run_of_before_a_field_existed_resumes(squares, tmp_path):
    loop.run(PRESET, squares, tmp_path, precision="fp32", until=20)
    config = json.loads((tmp_path / "config.json").read_text())
    for field in ("image_shape", "structure", "bilateral_radius"):
        del config["preset"][field]
    del config["preset"]["network"]["leak"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    loop.run(PRESET, squares, tmp_path, precision="fp32", resume=True)
    assert records(tmp_path)[-1]["step"] == PRESET.total_steps


def test_the_last_stage_trains_the_decoder_and_leaves_the_latents_as_they_were(squares, tmp_path):
    preset = replace(PRESET, decoder_steps=40)
    states = []
    for step in (preset.steps, preset.total_steps):
        loop.run(preset, squares, tmp_path, precision="fp32", until=step, resume=True)
        states.append(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"])
    for name, weight in states[0].items():
        assert torch.equal(weight, states[1][name]) == name.startswith("encoder."), name
    before, after = (record for record in records(tmp_path) if record["step"] in (preset.steps, preset.total_steps))
    assert after["reconstruction_nll"] < before["reconstruction_nll"]


@pytest.mark.parametrize("stop", [30, 40, 50, 70])
def test_the_run_goes_on_with_the_unfolded_model_stopped_or_not(squares, tmp_path, monkeypatch, stop):
    """In place of the unfolding: one latent less, and drawing numbers as it does."""

    def align_signs(model, network, images, rows, objective, *, seed):
        assert (len(images), len(rows), objective, seed) == (200, 180, preset.objective, 5)
        torch.randn(model.latent_dim)
        return keep_latents(model, torch.tensor([0, 2]), replace(network, latent_dim=2)), {"kept": [0, 2]}

    monkeypatch.setattr(loop, "align_signs", align_signs)
    preset = replace(PRESET, narrow_steps=20, folded_steps=40, decoder_steps=20)
    loop.run(preset, squares, tmp_path / "whole", precision="fp32", seed=5)
    loop.run(preset, squares, tmp_path / "parts", precision="fp32", seed=5, until=stop)
    loop.run(preset, squares, tmp_path / "parts", precision="fp32", seed=5, resume=True)
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    assert checkpoint.load_model(tmp_path / "parts").latent_dim == 2
    assert json.loads((tmp_path / "parts" / "unfolding.json").read_text()) == {"kept": [0, 2]}


UNFOLDED = {"kept": [0, 1, 2], "folded": 0, "partner": 1, "context": [2]}
LOOKING = replace(
    PRESET, narrow_steps=20, folded_steps=40, second_look=True, decoder_steps=20, structure=10.0, bilateral_radius=1
)


@pytest.fixture
def looks(monkeypatch):
    """In place of the second look: what the first latent says is turned round, and numbers are drawn."""
    said = {"aligned": True, "elsewhere": 0.2}
    seen = []

    def align(model, images, rows, report, *, seed):
        assert (len(images), len(rows), seed) == (200, 180, 5)
        assert {key: report[key] for key in UNFOLDED} == UNFOLDED
        seen.append(said["aligned"])
        if said["aligned"]:
            torch.randn(model.latent_dim)
            with torch.no_grad():
                model.decoder[0].weight[:, 0] *= -1
        return dict(said)

    monkeypatch.setattr(loop, "align_signs", lambda model, *_, seed: (model, dict(UNFOLDED)))
    monkeypatch.setattr(loop, "realign", align)
    return said, seen


@pytest.mark.parametrize("stop", [60, 80, 90, 100, 110])
def test_where_a_second_look_mends_all_after_the_fold_is_done_again_stopped_or_not(squares, tmp_path, looks, stop):
    loop.run(LOOKING, squares, tmp_path / "whole", precision="fp32", seed=5)
    loop.run(LOOKING, squares, tmp_path / "parts", precision="fp32", seed=5, until=stop)
    torch.randn(100)
    loop.run(LOOKING, squares, tmp_path / "parts", precision="fp32", seed=5, resume=True)
    whole = records(tmp_path / "whole")
    assert records(tmp_path / "parts") == whole
    assert [record["step"] for record in whole] == list(range(10, 121, 10))
    rates = {record["step"]: record["learning_rate"] for record in whole}
    assert [rates[step] for step in (90, 100, 110, 120)] == [rates[step] for step in (50, 60, 70, 80)]
    assert json.loads((tmp_path / "whole" / "unfolding.json").read_text()) == UNFOLDED | looks[0]
    # The encoder learns again, and then stays.
    loop.run(LOOKING, squares, tmp_path / "joint", precision="fp32", seed=5, until=100)
    joint, last = (checkpoint.load_model(tmp_path / name).encoder.state_dict() for name in ("joint", "whole"))
    assert all(torch.equal(joint[name], last[name]) for name in last)
    loop.run(LOOKING, squares, tmp_path / "first", precision="fp32", seed=5, until=80)
    assert not torch.equal(checkpoint.load_model(tmp_path / "first").encoder[0].weight, last["0.weight"])


def test_where_a_second_look_finds_nothing_the_run_is_done(squares, tmp_path, looks):
    said, seen = looks
    said["aligned"] = False
    loop.run(LOOKING, squares, tmp_path / "looking", precision="fp32", seed=5)
    loop.run(replace(LOOKING, second_look=False), squares, tmp_path / "not", precision="fp32", seed=5)
    assert records(tmp_path / "looking") == records(tmp_path / "not")
    assert records(tmp_path / "looking")[-1]["step"] == LOOKING.total_steps
    loop.run(LOOKING, squares, tmp_path / "looking", precision="fp32", seed=5, resume=True)
    assert seen == [False], "what it saw is kept"


def test_a_finished_run_may_still_be_looked_at(squares, tmp_path, looks):
    loop.run(replace(LOOKING, second_look=False), squares, tmp_path / "later", precision="fp32", seed=5)
    loop.run(LOOKING, squares, tmp_path / "later", precision="fp32", seed=5, resume=True)
    loop.run(LOOKING, squares, tmp_path / "whole", precision="fp32", seed=5)
    assert records(tmp_path / "later") == records(tmp_path / "whole")
    with pytest.raises(ValueError, match="another preset"):
        loop.run(replace(LOOKING, second_look=False), squares, tmp_path / "later", precision="fp32", resume=True)


def test_structure_counts_in_the_last_stage_only(squares, tmp_path):
    """There the loss is the objective and, beside it, so many nats times 1 - SSIM, which lies between 0 and 2."""
    nats = 50.0
    preset = replace(PRESET, objective=BetaVAE(1.0), decoder_steps=20)
    for structure in (0.0, nats):
        loop.run(replace(preset, structure=structure), squares, tmp_path / str(structure), precision="fp32")
    without, with_it = records(tmp_path / "0.0"), records(tmp_path / str(nats))
    for before, after in zip(without, with_it, strict=True):
        if after["step"] <= preset.steps:
            assert after == before
        else:
            assert 0.1 * nats < after["loss"] - after["reconstruction_nll"] - after["kl"] < 2 * nats
            assert before["loss"] == pytest.approx(before["reconstruction_nll"] + before["kl"])


def test_the_decoder_ends_in_a_filter_from_its_own_steps_on(squares, tmp_path):
    preset = replace(PRESET, decoder_steps=20, bilateral_radius=2)
    loop.run(preset, squares, tmp_path, precision="fp32", until=preset.steps)
    assert not isinstance(checkpoint.load_model(tmp_path).decoder[-1], SeparableBilateral)
    loop.run(preset, squares, tmp_path, precision="fp32", resume=True)
    layer = checkpoint.load_model(tmp_path).decoder[-1]
    assert isinstance(layer, SeparableBilateral)
    assert layer.radius == 2
    untrained = SeparableBilateral(2)
    for name, parameter in layer.named_parameters():
        assert not torch.equal(parameter, untrained.get_parameter(name)), f"{name} is learnt"


def test_a_killed_run_resumes_from_its_last_checkpoint_without_double_lines(squares, tmp_path):
    loop.run(PRESET, squares, tmp_path, precision="fp32", until=40)
    with (tmp_path / "metrics.jsonl").open("a") as log:  # written after the checkpoint, lost with the process
        log.write(json.dumps({"step": 50}) + "\n")
    loop.run(PRESET, squares, tmp_path, precision="fp32", resume=True)
    assert [record["step"] for record in records(tmp_path)] == [10, 20, 30, 40, 50, 60]


def test_a_run_is_never_overwritten(squares, tmp_path):
    loop.run(PRESET, squares, tmp_path, until=20)
    with pytest.raises(FileExistsError, match="--resume"):
        loop.run(PRESET, squares, tmp_path)


def test_another_configuration_is_not_resumed(squares, tmp_path):
    loop.run(PRESET, squares, tmp_path, until=20)
    with pytest.raises(ValueError, match="another seed"):
        loop.run(PRESET, squares, tmp_path, seed=1, resume=True)


def test_how_the_decoder_s_own_steps_go_may_be_settled_before_they_begin(squares, tmp_path):
    preset = replace(PRESET, decoder_steps=20, structure=10.0, bilateral_radius=1)
    loop.run(preset, squares, tmp_path / "whole", precision="fp32")
    loop.run(PRESET, squares, tmp_path / "later", precision="fp32", until=PRESET.steps)
    loop.run(preset, squares, tmp_path / "later", precision="fp32", until=PRESET.steps + 10, resume=True)
    with pytest.raises(ValueError, match="another preset"):
        loop.run(replace(preset, structure=20.0), squares, tmp_path / "later", precision="fp32", resume=True)
    loop.run(preset, squares, tmp_path / "later", precision="fp32", resume=True)
    assert records(tmp_path / "later") == records(tmp_path / "whole")
    assert checkpoint.load_config(tmp_path / "later")["preset"] == checkpoint.load_config(tmp_path / "whole")["preset"]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(squares, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        loop.run(PRESET, squares, tmp_path / name, precision="fp32", seed=seed, until=20)
    assert records(tmp_path / "a") == records(tmp_path / "b")
    assert records(tmp_path / "a") != records(tmp_path / "c")


def test_bf16_learns_what_fp32_learns(squares, tmp_path):
    """The same weights at the start, the same batches, the same noise: losses differ by rounding alone."""
    for precision in ("fp32", "bf16"):
        loop.run(PRESET, squares, tmp_path / precision, precision=precision)
    for exact, rounded in zip(*(records(tmp_path / precision) for precision in ("fp32", "bf16")), strict=True):
        assert rounded["reconstruction_nll"] == pytest.approx(exact["reconstruction_nll"], rel=0.02)
        assert rounded["loss"] != exact["loss"]


@pytest.mark.parametrize(("multiplies", "auto"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_cpu_multiplies_it(monkeypatch, multiplies, auto):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: multiplies)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert loop.resolve_precision("auto") == auto
    assert loop.resolve_precision("fp32") == "fp32"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_goes_on_in_its_precision_whatever_auto_is_by_now(squares, tmp_path, precision):
    loop.run(PRESET, squares, tmp_path, precision=precision, until=20)
    loop.run(PRESET, squares, tmp_path, until=40, resume=True)
    assert checkpoint.load_config(tmp_path)["precision"] == precision
    other = {"fp32": "bf16", "bf16": "fp32"}[precision]
    with pytest.raises(ValueError, match="another precision"):
        loop.run(PRESET, squares, tmp_path, precision=other, resume=True)


def test_freed_memory_is_kept_by_glibc_alone(monkeypatch):
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr("train.training.allocator.ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory()


def test_learning_rate_is_constant_then_a_cosine():
    rates = [loop.learning_rate(PRESET, step) for step in (0, 30, 45, 60)]
    assert rates == pytest.approx([3e-3, 3e-3, 2e-3, 1e-3])
    again = [loop.learning_rate(replace(PRESET, decoder_steps=20), step) for step in (60, 70, 80)]
    assert again == pytest.approx([3e-3, 2e-3, 1e-3])


def test_load_model_gives_the_trained_weights_in_evaluation_mode(squares, tmp_path):
    loop.run(replace(PRESET, narrow_steps=40), squares, tmp_path, until=20)
    model = checkpoint.load_model(tmp_path)
    assert not model.training
    assert model.encoder[0].out_channels == 4, "before it is doubled, the network is half as wide"
