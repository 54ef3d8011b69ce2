"""The files of a run: its configuration, and the checkpoint that training resumes from.

`config.json` holds the preset, seed, precision, data and commit. `checkpoint.pt` holds plain data and tensors only, so
that `torch.load(weights_only=True)` reads it.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from train.config.experiment import Network, Preset, from_record
from train.models.bilateral_filter import SeparableBilateral
from train.models.net2net import half_width
from train.models.vae import VAE
from train.provenance import commit

CONFIG, CHECKPOINT, METRICS = "config.json", "checkpoint.pt", "metrics.jsonl"


def load_config(directory: Path) -> dict[str, Any]:
    """Return the `config.json` of a run. Raises FileNotFoundError where `directory` holds none."""
    config: dict[str, Any] = json.loads((directory / CONFIG).read_text())
    return config


def load_model(directory: Path) -> VAE:
    """Return the model of a run's last checkpoint: float32, on the CPU, in evaluation mode."""
    config = load_config(directory)
    preset = from_record(config["preset"])
    state = torch.load(directory / CHECKPOINT, weights_only=True)
    return build_model(preset, state).eval()


def build_model(preset: Preset, state: dict[str, Any]) -> VAE:
    """Build the model of a checkpoint of a run of `preset`. It may have dropped some of the preset's latents."""
    network = network_at(preset, state["step"])
    latent_dim = state["model"]["decoder.0.weight"].shape[1]
    model = VAE(tuple(state["image_shape"]), replace(network, latent_dim=latent_dim))
    if state["step"] > preset.steps:
        append_filter(model, preset)
    model.load_state_dict(state["model"])
    return model


def network_at(preset: Preset, step: int) -> Network:
    """Return the network that is trained after `step` training batches: of half width during `narrow_steps`."""
    return half_width(preset.network) if step <= preset.narrow_steps and preset.narrow_steps else preset.network


def append_filter(model: VAE, preset: Preset) -> None:
    """Append the bilateral filter to the decoder where the preset asks for one."""
    if preset.bilateral_radius:
        model.decoder.append(SeparableBilateral(preset.bilateral_radius))


def save(directory: Path, model: VAE, optimizer: torch.optim.Optimizer, step: int) -> None:
    partial = directory / "checkpoint.pt.part"
    state = {
        "step": step,
        "image_shape": model.image_shape,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    torch.save(state, partial)
    os.replace(partial, directory / CHECKPOINT)


def prepare_run(directory: Path, config: dict[str, Any], resume: bool) -> int:
    """Create the run's directory, or check the one to resume. Return the step to begin with."""
    checkpoint = directory / CHECKPOINT
    if not checkpoint.exists():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / METRICS).unlink(missing_ok=True)
        record = {**config, "commit": commit(), "torch": torch.__version__}
        write_json(directory / CONFIG, record)
        return 0
    if not resume:
        raise FileExistsError(f"{directory} already holds a run: resume it with --resume, or choose another --out")
    before = load_config(directory)
    step: int = torch.load(checkpoint, weights_only=True)["step"]
    # Presets are compared, not records: the record of an older run lacks fields that came later.
    was, now = (_begun(from_record(record["preset"]), step) for record in (before, config))
    same = {"preset": was == now}
    if differing := [key for key, value in config.items() if not same.get(key, before[key] == value)]:
        raise ValueError(f"{directory} was begun with another {', '.join(differing)}: resume it with the same")
    write_json(directory / CONFIG, {**before, **config})
    lines = (directory / METRICS).read_text().splitlines(keepends=True)
    (directory / METRICS).write_text("".join(line for line in lines if json.loads(line)["step"] <= step))
    return step


def _begun(preset: Preset, step: int) -> Preset:
    """Return `preset` with the fields of later stages reset.

    They have had no effect yet at `step`, and may still change.
    """
    if step <= preset.total_steps:
        preset = replace(preset, second_look=False)
    return replace(preset, decoder_steps=0, structure=0.0, bilateral_radius=0) if step <= preset.steps else preset


def write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2) + "\n")
