"""Images a second of the training loop beside the loop that anyone would write first, and whether both learn alike.

    python tests/benchmarks/training_speed.py

The plain loop is eager float32: contiguous images (N, C, H, W), already floats, taken by index; Adam as it comes;
the same network from the same seed, the same objective, the same training batches and noise. Both loops run in
processes of their own and take turns, a block of steps each, so that whatever else the machine does weighs on both
alike; the ratio is that of the medians over the blocks. Ours is `train.training.loop.run` itself, stopped and resumed.
A third process trains the plain loop on other batches with other noise: what its losses differ by is the noise
against which ours are held.

On a machine that works at other things, `--clock cpu --threads 1` counts the time of the process instead of the wall's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from train.config.experiment import Preset
from train.config.presets import PRESETS
from train.data import mnist
from train.data.dataset import Dataset, split
from train.data.dsprites import dataset as dsprites
from train.data.shapes3d import dataset as shapes3d
from train.models.vae import VAE
from train.objectives.schedule import ForwardPass, compute_loss
from train.provenance import commit
from train.training import loop

IMAGES = 4096
GEOMETRIES = 32  # of 3D Shapes: each takes a while to trace
RESULT = Path("train/results/training_speed.json")
NETWORKS = {
    "shapes3d_beta_tcvae_plain": "convolutions of 32-64-128-256",
    "dsprites_gamma_vae_cnn": "convolutions of 32-32-32-32",
    "dsprites_beta_tcvae": "the same, training batches of 256",
    "dsprites_beta_vae_1": "perceptrons of 4096-1024-256-64",
    "mnist_vae": "perceptrons of 784-400",
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Block(NamedTuple):
    images_per_second: float
    loss: float  # mean over the block's steps


class Plan(NamedTuple):
    preset: str
    block: int  # steps
    blocks: int
    threads: int
    clock: str


def dataset_of(name: str) -> Dataset:
    """Some thousand images of each data set, drawn here; of MNIST the digits that the tests have."""
    rng = np.random.default_rng(0)
    if name == "mnist":
        return mnist.load(Path(__file__).parents[1] / "data" / "mnist")
    module = {"dsprites": dsprites, "shapes3d": shapes3d}[name]
    factors = rng.integers(module.FACTOR_SIZES, size=(IMAGES, len(module.FACTOR_SIZES)))
    if name == "shapes3d":
        factors[:, 3:] = rng.permutation(factors[:GEOMETRIES, 3:])[np.arange(IMAGES) % GEOMETRIES]
    images = module.frames(factors)
    if name == "dsprites":
        images = dsprites.WHITE * images[..., None]
    return Dataset(images, factors, module.FACTOR_NAMES, module.FACTOR_SIZES, name, "rendered")


def plain(parent: Connection, plan: Plan, seed: int) -> None:
    """The loop that anyone would write first; a block at every word of the parent's. `seed` is of batches and noise."""
    torch.set_num_threads(plan.threads)
    clock = CLOCKS[plan.clock]
    preset = PRESETS[plan.preset]()
    dataset = dataset_of(preset.dataset)
    data = torch.from_numpy(dataset.images[split(len(dataset.images)).train])
    data = (data.permute(0, 3, 1, 2).float() / 255).contiguous()
    torch.manual_seed(0)
    model = VAE(dataset.image_shape, preset.network)
    if seed:
        torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=preset.learning_rate)
    parent.send(None)
    for number in range(plan.blocks):
        parent.recv()
        losses, start = [], clock()
        for step in range(number * plan.block, (number + 1) * plan.block):
            images = data[torch.randint(len(data), (preset.training_batch,))]
            mean, logvar = model.encode(images)
            latents = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
            through = ForwardPass(images, model.decode(latents), latents, mean, logvar)
            loss, _, _ = compute_loss(preset.objective, through, len(data), step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        rate = plan.block * preset.training_batch / (clock() - start)
        parent.send(Block(rate, sum(losses) / len(losses)))


def ours(parent: Connection, plan: Plan, seed: int) -> None:
    """`train.training.loop.run`, stopped after every block; what it says of its speed and its losses."""
    torch.set_num_threads(plan.threads)
    loop.LOG_EVERY = loop.CHECKPOINT_EVERY = plan.block
    loop.time = SimpleNamespace(perf_counter=CLOCKS[plan.clock])
    preset = PRESETS[plan.preset]()
    dataset = dataset_of(preset.dataset)
    parent.send(None)
    with tempfile.TemporaryDirectory() as directory:
        for number in range(plan.blocks):
            parent.recv()
            loop.run(preset, dataset, Path(directory), seed=seed, until=(number + 1) * plan.block, resume=number > 0)
            record = json.loads((Path(directory) / "metrics.jsonl").read_text().splitlines()[-1])
            parent.send(Block(record["images_per_second"], record["loss"]))


def measure(plan: Plan) -> dict[str, Any]:
    """Both loops, and the plain one with another seed, block by block in turn."""
    spawn = multiprocessing.get_context("spawn")
    blocks: dict[str, list[Block]] = {"plain": [], "ours": [], "plain, other batches": []}
    workers = []
    for target, seed in ((plain, 0), (ours, 0), (plain, 1)):
        here, there = spawn.Pipe()
        workers.append((here, spawn.Process(target=target, args=(there, plan, seed), daemon=True)))
        workers[-1][1].start()
        there.close()
        here.recv()
    for _ in range(plan.blocks):
        for (connection, _), measured in zip(workers, blocks.values(), strict=True):
            connection.send(None)
            measured.append(connection.recv())
    for _, process in workers:
        process.join()
    return _report(PRESETS[plan.preset](), plan, blocks)


def _report(preset: Preset, plan: Plan, blocks: dict[str, list[Block]]) -> dict[str, Any]:
    timed = {name: [block.images_per_second for block in measured[1:]] for name, measured in blocks.items()}
    rates = {name: median(of_blocks) for name, of_blocks in timed.items()}
    losses = {name: np.array([block.loss for block in measured]) for name, measured in blocks.items()}
    apart = {name: np.abs(values - losses["plain"]) / np.abs(losses["plain"]) for name, values in losses.items()}
    return {
        "network": NETWORKS[preset.name],
        "training_batch": preset.training_batch,
        "steps": plan.block * plan.blocks,
        "block": plan.block,
        "images_per_second": {name: round(rates[name], 1) for name in ("plain", "ours")},
        "ratio": round(rates["ours"] / rates["plain"], 3),
        "ratio_quartiles": np.quantile(np.divide(timed["ours"], timed["plain"]), [0.25, 0.75]).round(3).tolist(),
        "loss": {name: values.round(3).tolist() for name, values in losses.items()},
        "loss_apart": {
            name: {"median": float(f"{np.median(values):.2g}"), "highest": float(f"{values.max():.2g}")}
            for name, values in apart.items()
            if name != "plain"
        },
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=list(NETWORKS), help=f"of {', '.join(NETWORKS)}; default: all")
    parser.add_argument("--block", type=int, default=10, help="steps of a loop before the next has its turn")
    parser.add_argument("--blocks", type=int, default=20, help="of each loop")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if unknown := set(options.presets) - set(NETWORKS):
        parser.error(f"no such network here: {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    if options.clock == "cpu" and options.threads != 1:
        parser.error("the time of a process counts waiting threads too: --clock cpu needs --threads 1")

    os.environ["TQDM_DISABLE"] = "1"  # read where the processes import it
    result: dict[str, Any] = {
        "commit": commit(),
        "torch": torch.__version__,
        "processor": _processor(),
        "bf16": loop.resolve_precision("auto") == "bf16",
        "threads": options.threads,
        "clock": options.clock,
        "networks": {},
    }
    for name in options.presets:
        measured = measure(Plan(name, options.block, options.blocks, options.threads, options.clock))
        result["networks"][name] = measured
        rates, apart = measured["images_per_second"], measured["loss_apart"]
        print(
            f"{name}: plain {rates['plain']:.0f}, ours {rates['ours']:.0f} images/s, {measured['ratio']:.2f} times "
            f"as fast; losses apart by {apart['ours']['median']:.2%} in the median, {apart['ours']['highest']:.2%} at "
            f"most (other batches: {apart['plain, other batches']['median']:.2%}, "
            f"{apart['plain, other batches']['highest']:.2%})",
            flush=True,
        )
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(options.out, file=sys.stderr)


if __name__ == "__main__":
    main()
