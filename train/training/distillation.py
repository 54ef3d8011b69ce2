"""Distillation of a bundle's encoder: it learns to place treated images where it placed the clean ones.

The encoder of the bundle is the teacher. The student begins as the same network and sees images with random nuisances
(`train/training/augmentation.py`); its targets are the teacher's mean and logvar of the clean images. The decoder stays
as it is. What the latents mean does not change, so the model keeps its disentanglement, and the images of a camera that
moved or of another codec are compared with each other by what they show.

The result is a run like any other: `python -m train evaluate` measures it and `python -m export` exports it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from service.bundle.store import Bundle
from train.config.experiment import from_record
from train.models.from_bundle import load_vae, preset_of
from train.models.inference import encode, to_tensor
from train.models.vae import VAE, channels_last
from train.provenance import commit
from train.training.allocator import keep_freed_memory
from train.training.augmentation import augment
from train.training.checkpoint import CHECKPOINT, CONFIG, METRICS, load_config, save, write_json
from train.training.loop import resolve_precision
from train.training.shards import open_shards

LOG_EVERY, CHECKPOINT_EVERY = 50, 100
# Misses are counted in standard deviations of the posterior, down to this one.
NARROWEST = 0.02
LOGVAR_WEIGHT = 0.3
WARM_UP_STEPS = 100
EXACT_SHARE = 0.15
TARGETS = "targets.npy"
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Distillation:
    """How an encoder is distilled.

    The learning rate is constant, and falls from step `decay_from * steps` on. `clean_share` of each training batch is
    left without nuisances. `images` of the training split are used. With `tolerance`, in pixels, the foreign check of
    the bundle excuses what the encoder does: see `service.core.population.Familiarity`.
    """

    steps: int = 8_000
    training_batch: int = 128
    learning_rate: float = 5e-4
    final_learning_rate: float = 5e-6
    decay_from: float = 0.5
    clean_share: float = 0.25
    images: int = 150_000
    tolerance: int = 2

    def __post_init__(self) -> None:
        if self.steps < 1 or self.training_batch < 1 or self.images < 1 or not 0 <= self.clean_share < 1:
            raise ValueError(f"distillation needs steps, images and a clean share below 1, got {self}")


class TreatedImages(Dataset[Batch]):
    """Training batches by their number: treated images float32 (M, C, H, W), and their rows (M,) among `images`.

    A batch depends on the seed and its number alone, so that a run that was stopped goes on with the same ones.
    """

    def __init__(self, images: NDArray[np.uint8], recipe: Distillation, seed: int) -> None:
        self.images, self.recipe, self.seed = images, recipe, seed

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.recipe.steps

    def __getitem__(self, number: int) -> Batch:
        """Return the batch of that number."""
        rng = np.random.default_rng([self.seed, number])
        rows = rng.integers(0, len(self.images), self.recipe.training_batch)
        clean = round(self.recipe.clean_share * len(rows))
        treated = [augment(self.images[row], rng) for row in rows[clean:]]
        batch = np.concatenate([self.images[rows[:clean]], np.array(treated)])
        return to_tensor(batch), torch.from_numpy(rows)


def distill(
    bundle: Bundle,
    images: NDArray[np.uint8],
    data: dict[str, Any],
    directory: Path,
    recipe: Distillation,
    *,
    seed: int = 0,
    resume: bool = False,
    workers: int = 1,
) -> VAE:
    """Distil the encoder of `bundle` on `images` (N, H, W, C) of its training data; write a run to `directory`.

    `data` says what the images are, as in any run's config.json. With `resume` the run there goes on. Raises
    FileExistsError where a run would be overwritten, and ValueError where another one would be resumed.
    """
    preset, precision = preset_of(bundle), resolve_precision("auto")
    base = {"bundle_id": bundle.manifest.bundle_id, "seed": seed, **asdict(recipe)}
    done = _prepare(directory, {**_training_of(bundle), "data": data, "distillation": base}, resume)
    keep_freed_memory()
    torch.manual_seed(seed)
    model = channels_last(load_vae(bundle))
    targets = torch.from_numpy(_targets(model, images, directory / TARGETS))  # (N, 2, L)
    model.encoder.requires_grad_(True)
    optimizer = torch.optim.Adam(model.encoder.parameters(), lr=recipe.learning_rate, fused=True)
    if done:
        state = torch.load(directory / CHECKPOINT, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])

    batches: Iterable[Batch] = DataLoader(
        TreatedImages(images, recipe, seed), batch_size=None, sampler=range(done, recipe.steps), num_workers=workers
    )
    window: list[float] = []
    started = time.perf_counter()
    bar = tqdm(batches, desc=f"distil {preset.name}", initial=done, total=recipe.steps, unit="step", mininterval=5)
    with (directory / METRICS).open("a") as log, open_shards() as shards:
        for step, (treated, rows) in enumerate(bar, start=done):
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(recipe, step)
            target = targets[rows]
            # The last steps are exact: a posterior is narrower than what bf16 resolves.
            rounded = precision == "bf16" and step < (1 - EXACT_SHARE) * recipe.steps
            images_seen = treated.contiguous(memory_format=torch.channels_last)
            mean, logvar = shards.run(model.encode, model.encoder, images_seen, bf16=rounded)
            loss = missed(mean.float(), logvar.float(), target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.encoder.parameters(), 100.0, error_if_nonfinite=True)
            optimizer.step()
            window.append(loss.item())
            if (step + 1) % LOG_EVERY == 0 or step + 1 == recipe.steps:
                speed = len(window) * recipe.training_batch / (time.perf_counter() - started)
                record = {"step": step + 1, "missed": float(np.mean(window)), "images_per_second": speed}
                log.write(json.dumps(record) + "\n")
                log.flush()
                bar.set_postfix_str(f"missed {record['missed']:.2f}")
                window, started = [], time.perf_counter()
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == recipe.steps:
                save(directory, model, optimizer, preset.most_steps + step + 1)
    return model.eval()


def _training_of(bundle: Bundle) -> dict[str, Any]:
    """Return how `bundle` was trained. If it was distilled, that is the last of its `earlier_distillations`."""
    training: dict[str, Any] = dict(bundle.manifest.training)
    if "distillation" in training:
        earlier = training.get("earlier_distillations", [])
        training["earlier_distillations"] = [*earlier, training.pop("distillation")]
    return training


def _targets(teacher: VAE, images: NDArray[np.uint8], cache: Path) -> NDArray[np.float32]:
    """Return the teacher's latents (N, 2, L) of the clean images; they are kept, for a run that goes on."""
    if not cache.exists():
        np.save(cache, encode(teacher, images, np.arange(len(images))))
    return np.asarray(np.load(cache), dtype=np.float32)


def missed(mean: Tensor, logvar: Tensor, target: Tensor) -> Tensor:
    """Return how far `mean` and `logvar` (M, L) miss `target` (M, 2, L), in posterior standard deviations."""
    wanted, wanted_logvar = target.unbind(1)
    deviation = torch.exp(0.5 * wanted_logvar).clamp(min=NARROWEST)
    loss: Tensor = ((mean - wanted) / deviation).abs() + LOGVAR_WEIGHT * (logvar - wanted_logvar).abs()
    return loss.sum(1).mean()


def _learning_rate(recipe: Distillation, step: int) -> float:
    """Return the rate at `step`: a linear warm-up, a constant, then a half cosine to the final rate."""
    span = recipe.learning_rate - recipe.final_learning_rate
    progress = max(0.0, (step / recipe.steps - recipe.decay_from) / (1 - recipe.decay_from))
    rate = recipe.final_learning_rate + span * (1 + math.cos(math.pi * progress)) / 2
    return rate * min(1.0, (step + 1) / WARM_UP_STEPS)


def _prepare(directory: Path, config: dict[str, Any], resume: bool) -> int:
    """Create the run's directory, or check the one to resume. Return the number of steps that are done."""
    if not (directory / CHECKPOINT).exists():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / METRICS).unlink(missing_ok=True)
        write_json(directory / CONFIG, {**config, "commit": commit(), "torch": torch.__version__})
        return 0
    if not resume:
        raise FileExistsError(f"{directory} already holds a run: resume it with --resume, or choose another --out")
    before = load_config(directory)
    preset = from_record(before["preset"])
    step: int = torch.load(directory / CHECKPOINT, weights_only=True)["step"] - preset.most_steps
    was, now = before.get("distillation", {}), config["distillation"]
    # As long as the rate is constant the length of the recipe has had no effect, and may still change.
    length = was.get("steps") if step > was.get("decay_from", 0) * was.get("steps", 0) else now["steps"]
    if {**was, "steps": length} != now:
        raise ValueError(f"{directory} was begun with another bundle, seed or recipe: resume it with the same")
    write_json(directory / CONFIG, {**before, "distillation": now})
    lines = (directory / METRICS).read_text().splitlines(keepends=True)
    (directory / METRICS).write_text("".join(line for line in lines if json.loads(line)["step"] <= step))
    return step
