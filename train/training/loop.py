"""The training loop, with checkpoint and resume.

A run is a directory:

    config.json       preset, seed, precision, data and commit: everything that decides the result
    checkpoint.pt     weights, optimizer, random state and step: enough to continue as if never stopped
    unfolding.json    the report of the alignment (train/alignment/align_latents.py), where the preset has that stage
    metrics.jsonl     a line every LOG_EVERY steps and at the end: terms (nats per image), their weights, the speed
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from train.alignment.align_latents import align_signs, realign
from train.config.experiment import BetaTCVAE, Preset, record_of
from train.data.dataset import Dataset, split
from train.models.net2net import double_width
from train.models.subpixel_deconv import use_subpixel_convolution
from train.models.vae import VAE, channels_last
from train.objectives.schedule import ForwardPass, compute_loss
from train.objectives.ssim import structural_similarity
from train.training.allocator import keep_freed_memory
from train.training.checkpoint import (
    CHECKPOINT,
    METRICS,
    append_filter,
    build_model,
    load_config,
    network_at,
    prepare_run,
    save,
    write_json,
)
from train.training.shards import open_shards

LOG_EVERY = 50
CHECKPOINT_EVERY = 500  # a multiple of LOG_EVERY, so that no logging window spans a checkpoint

Precision = Literal["auto", "fp32", "bf16"]


def run(
    preset: Preset,
    dataset: Dataset,
    directory: Path,
    *,
    seed: int = 0,
    precision: Precision = "auto",
    until: int | None = None,
    resume: bool = False,
) -> None:
    """Train `preset` on the training split of `dataset` to its end, or to step `until`.

    With `resume` the run in `directory` continues from its checkpoint. Precision `auto` then means the precision of
    that run. On the same machine with the same number of threads, the result equals that of an uninterrupted run bit
    for bit.

    Raises FileExistsError where a run would be overwritten. Raises ValueError where the run to resume has another
    configuration; fields of the preset that only matter in later stages may differ.
    """
    begun = resume and precision == "auto" and (directory / CHECKPOINT).exists()
    config = {
        "preset": record_of(preset),
        "seed": seed,
        "precision": load_config(directory)["precision"] if begun else resolve_precision(precision),
        "data": {"name": dataset.name, "source": dataset.source, "images": len(dataset.images)},
    }
    step = prepare_run(directory, config, resume)
    indices = torch.from_numpy(split(len(dataset.images)).train)
    images_of = torch.from_numpy(dataset.images)

    keep_freed_memory()
    torch.manual_seed(seed)
    state = torch.load(directory / CHECKPOINT, weights_only=True) if step else None
    model = _optimize_for_cpu(build_model(preset, state) if state else VAE(dataset.image_shape, network_at(preset, 0)))
    optimizer = build_optimizer(model, preset, decoder_alone=preset.scheduled(step - 1) >= preset.steps)
    if state:
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])

    end = preset.most_steps if until is None else min(until, preset.most_steps)
    window: list[tuple[float, ...]] = []
    started = time.perf_counter()
    bar = tqdm(total=preset.most_steps, initial=step, desc=preset.name, unit="step", mininterval=2)
    bf16 = config["precision"] == "bf16"
    with bar, (directory / METRICS).open("a") as log, open_shards() as shards:
        while step < end:
            if step == preset.narrow_steps and step > 0:
                model = _optimize_for_cpu(double_width(model, preset.network))
                optimizer = build_optimizer(model, preset)
            if step == preset.folded_steps and isinstance(preset.objective, BetaTCVAE) and step > 0:
                with shards.suspended():
                    model, report = align_signs(
                        model, preset.network, dataset.images, indices.numpy(), preset.objective, seed=seed
                    )
                write_json(directory / "unfolding.json", report)
                model = _optimize_for_cpu(model)
                optimizer = build_optimizer(model, preset)
            if step == preset.steps:
                append_filter(model, preset)
            if step == preset.total_steps:  # only the second look is left
                report = json.loads((directory / "unfolding.json").read_text())
                if report.get("aligned", True):
                    with shards.suspended():
                        report |= realign(model, dataset.images, indices.numpy(), report, seed=seed)
                    write_json(directory / "unfolding.json", report)
                if not report["aligned"]:
                    break
                optimizer = build_optimizer(model, preset)
            scheduled = preset.scheduled(step)
            if scheduled == preset.steps:
                optimizer = build_optimizer(model, preset, decoder_alone=True)
            rate = learning_rate(preset, scheduled)
            for group in optimizer.param_groups:
                group["lr"] = rate
            rows = indices[torch.randint(len(indices), (preset.training_batch,))]
            images = images_of[rows].permute(0, 3, 1, 2).float() / 255  # (M, C, H, W), channels last in memory
            mean, logvar = shards.run(model.encode, model.encoder, images, bf16=bf16)  # (M, L)
            latents = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
            (logits,) = shards.run(model.decode, model.decoder, latents, bf16=bf16)  # (M, C, H, W)
            through = ForwardPass(images, logits, latents, mean, logvar)
            loss, terms, weights = compute_loss(preset.objective, through, len(indices), scheduled)
            if preset.structure and scheduled >= preset.steps:
                loss = loss + preset.structure * (1 - structural_similarity(images, logits.sigmoid()))
            model.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients, error_if_nonfinite=True)
            if preset.gradient_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(model.parameters(), preset.gradient_norm, norm)
            optimizer.step()
            step += 1
            bar.update()

            window.append((*(term.item() for term in terms), loss.item(), norm.item()))
            if step % LOG_EVERY == 0 or step in (preset.total_steps, preset.most_steps):
                record = dict(zip((*terms._fields, "loss", "gradient_norm"), _means(window), strict=True))
                record |= {"step": step, **weights, "learning_rate": rate}
                record["images_per_second"] = len(window) * preset.training_batch / (time.perf_counter() - started)
                log.write(json.dumps(record) + "\n")
                log.flush()
                bar.set_postfix_str(", ".join(f"{name} {record[name]:.2f}" for name in terms._fields))
                window, started = [], time.perf_counter()
            if step % CHECKPOINT_EVERY == 0 or step in (preset.total_steps, end):
                save(directory, model, optimizer, step)


def learning_rate(preset: Preset, step: int) -> float:
    """Return the learning rate at `step`: constant until `decay_from`, then a half cosine to the final rate.

    See Loshchilov & Hutter 2017. The decoder's own steps restart at the full rate and decay from their first step on.
    """
    if step < preset.steps or not preset.decoder_steps:
        start = preset.decay_from * preset.steps
        progress = max(0.0, (step - start) / (preset.steps - start))
    else:
        progress = (step - preset.steps) / preset.decoder_steps
    span = preset.learning_rate - preset.final_learning_rate
    return preset.final_learning_rate + span * (1 + math.cos(math.pi * progress)) / 2


def resolve_precision(precision: Precision) -> Literal["fp32", "bf16"]:
    """Resolve `auto`: bf16 autocast where the CPU multiplies bf16 (AVX512-BF16 or AMX), fp32 elsewhere.

    Weights, Adam's averages, the latents and the loss stay float32 in both cases. `tests/benchmarks/training_speed.py`
    measures the gain in speed and shows that the losses agree within noise.
    """
    if precision == "auto":
        multiplies = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if multiplies else "fp32"
    return precision


def build_optimizer(model: VAE, preset: Preset, *, decoder_alone: bool = False) -> torch.optim.Optimizer:
    model.encoder.requires_grad_(not decoder_alone)
    trained = model.decoder if decoder_alone else model
    return torch.optim.Adam(trained.parameters(), lr=preset.learning_rate, fused=True)


def _optimize_for_cpu(model: VAE) -> VAE:
    """Return the same model in the form that the CPU computes fastest."""
    use_subpixel_convolution(model.decoder)
    return channels_last(model)


def _means(rows: list[tuple[float, ...]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]
