"""Training's share of the cores beside other work: steps a second beside 0, 1 and 6 busy processes.

    python tests/benchmarks/training_share.py

The fair share is what the same work gets where nothing waits: one training for each core, each with one thread and its
part of the training batch. Ours takes the steps of `train.training.loop.run`, with shards. The other arms split every
operation over OpenMP's threads instead, which spin at their barriers, or spin shortly, or sleep. All take turns of some
seconds, so that whatever else the machine does weighs on all alike; a ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from train.config.presets import PRESETS
from train.models.vae import VAE
from train.objectives.schedule import ForwardPass, compute_loss
from train.provenance import command, commit
from train.training import loop
from train.training.allocator import keep_freed_memory
from train.training.shards import Shards, open_shards

PRESET = "shapes3d_beta_tcvae_plain"
RESULT = Path("train/results/training_share.json")
BUSY = (0, 1, 6)
# By arm: whether the loop shards the batch, and the environment.
ARMS: dict[str, tuple[bool, dict[str, str]]] = {
    "ours": (True, {}),
    "OpenMP": (False, {}),
    "OpenMP, GOMP_SPINCOUNT=1000": (False, {"GOMP_SPINCOUNT": "1000"}),
    "OpenMP, OMP_WAIT_POLICY=PASSIVE": (False, {"OMP_WAIT_POLICY": "PASSIVE"}),
}


def train(parent: Connection, threads: int, parts: int, is_sharded: bool) -> None:
    """Train for as many seconds as the parent says, on 1 / `parts` of the training batch; send steps a second."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    preset, bf16 = PRESETS[PRESET](), loop.resolve_precision("auto") == "bf16"
    batch = preset.training_batch // parts
    model = loop._optimize_for_cpu(VAE((64, 64, 3), preset.network))
    optimizer = loop.build_optimizer(model, preset)
    data = torch.randint(0, 256, (1024, 64, 64, 3), dtype=torch.uint8)
    # One shard: its operations are split over OpenMP's threads.
    one_shard = contextlib.nullcontext(Shards(ThreadPoolExecutor(1), 1))
    with open_shards() if is_sharded else one_shard as shards:
        while seconds := parent.recv():
            started, steps = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                images = data[torch.randint(len(data), (batch,))].permute(0, 3, 1, 2).float() / 255
                mean, logvar = shards.run(model.encode, model.encoder, images, bf16=bf16)
                latents = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
                (logits,) = shards.run(model.decode, model.decoder, latents, bf16=bf16)
                through = ForwardPass(images, logits, latents, mean, logvar)
                loss, _, _ = compute_loss(preset.objective, through, len(data), steps)
                model.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                steps += 1
            parent.send(steps / (time.perf_counter() - started))


def start(count: int, *arguments: Any) -> list[Connection]:
    """Start `count` processes of `train`, and train a moment; return their connections."""
    spawn, connections = multiprocessing.get_context("spawn"), []
    for _ in range(count):
        here, there = spawn.Pipe()
        spawn.Process(target=train, args=(there, *arguments), daemon=True).start()
        connections.append(here)
    rate(connections, 1)
    return connections


def rate(connections: list[Connection], seconds: float) -> float:
    """Train in all processes at once; return the mean of their steps a second."""
    for connection in connections:
        connection.send(seconds)
    return float(np.mean([connection.recv() for connection in connections]))


def measure(threads: int, seconds: float, turns: int) -> list[dict[str, Any]]:
    """Return an entry for each number of busy processes."""
    arms = {"fair": start(threads, 1, threads, True)}
    for name, (is_sharded, environment) in ARMS.items():
        os.environ.update(environment)
        arms[name] = start(1, threads, 1, is_sharded)
        for key in environment:
            del os.environ[key]
    entries = []
    for count in BUSY:
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        rates: dict[str, list[float]] = {name: [] for name in arms}
        try:
            for _ in range(turns):
                for name, connections in arms.items():
                    rates[name].append(rate(connections, seconds))
        finally:
            for process in busy:
                process.kill()
                process.wait()
        entries.append(
            {
                "busy_processes": count,
                "steps_per_second": {name: round(median(each), 3) for name, each in rates.items()},
                "of_fair_share": {
                    name: round(float(np.median(np.divide(rates[name], rates["fair"]))), 3) for name in ARMS
                },
            }
        )
        print(entries[-1], flush=True)
    for connections in arms.values():
        for connection in connections:
            connection.send(0)
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=3, help="of an arm's turn")
    parser.add_argument("--turns", type=int, default=5, help="of each arm")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    result = {
        "command": command(),
        "commit": commit(),
        "torch": torch.__version__,
        "preset": PRESET,
        "threads": options.threads,
        "load_before": os.getloadavg()[0],
        "beside": measure(options.threads, options.seconds, options.turns),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
