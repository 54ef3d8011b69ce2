"""Training's share of the cores beside other work: steps a second beside 0, 1 and 6 busy processes.

    python tests/benchmarks/training_share.py

The fair share is what the same work gets where nothing waits: one training for each core, each with one thread and its
part of the training batch. Ours is `train.training.loop.run` with as many threads. Two more arms split every operation
over OpenMP's threads instead, which spin at their barriers or, with OMP_WAIT_POLICY=PASSIVE, sleep. All take turns, a
block of steps each, so that whatever else the machine does weighs on all alike; a ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from train.config.presets import PRESETS
from train.data.dataset import Dataset
from train.provenance import command, commit
from train.training import loop
from train.training.shards import Shards

PRESET = "shapes3d_beta_tcvae_plain"
RESULT = Path("train/results/training_share.json")
BUSY = (0, 1, 6)
# By arm: whether the loop shards the batch, and the environment.
ARMS: dict[str, tuple[bool, dict[str, str]]] = {
    "ours": (True, {}),
    "OpenMP": (False, {}),
    "OpenMP, passive": (False, {"OMP_WAIT_POLICY": "PASSIVE"}),
}


@contextlib.contextmanager
def unsharded() -> Iterator[Shards]:
    """Hand out one shard, whose operations OpenMP splits."""
    with ThreadPoolExecutor(1) as pool:
        yield Shards(pool, 1)


def train(parent: Connection, threads: int, parts: int, is_sharded: bool, block: int) -> None:
    """Train `block` steps at every word of the parent's, on 1 / `parts` of the training batch; send steps a second."""
    torch.set_num_threads(threads)
    loop.LOG_EVERY = loop.CHECKPOINT_EVERY = block
    if not is_sharded:
        loop.open_shards = unsharded
    preset = PRESETS[PRESET]()
    preset = replace(preset, training_batch=preset.training_batch // parts)
    images = np.random.default_rng(0).integers(0, 256, (1024, 64, 64, 3), dtype=np.uint8)
    dataset = Dataset(images, np.zeros((1024, 1), np.int64), ("none",), (1,), "noise", "drawn")
    with tempfile.TemporaryDirectory() as directory:
        done = 0
        while parent.recv():
            done += block
            loop.run(preset, dataset, Path(directory), until=done, resume=done > block)
            record = json.loads((Path(directory) / "metrics.jsonl").read_text().splitlines()[-1])
            parent.send(record["images_per_second"] / preset.training_batch)


def start(count: int, *arguments: Any) -> list[Connection]:
    """Start `count` processes of `train`, trained for a block each; return their connections."""
    spawn, connections = multiprocessing.get_context("spawn"), []
    for _ in range(count):
        here, there = spawn.Pipe()
        spawn.Process(target=train, args=(there, *arguments), daemon=True).start()
        connections.append(here)
    rate(connections)
    return connections


def rate(connections: list[Connection]) -> float:
    """Train a block in all processes at once; return the mean of their steps a second."""
    for connection in connections:
        connection.send(True)
    return float(np.mean([connection.recv() for connection in connections]))


def measure(threads: int, block: int, turns: int) -> list[dict[str, Any]]:
    """Return an entry for each number of busy processes."""
    arms = {"fair": start(threads, 1, threads, True, block)}
    for name, (is_sharded, environment) in ARMS.items():
        os.environ.update(environment)
        arms[name] = start(1, threads, 1, is_sharded, block)
        for key in environment:
            del os.environ[key]
    entries = []
    for count in BUSY:
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        rates: dict[str, list[float]] = {name: [] for name in arms}
        try:
            for _ in range(turns):
                for name, connections in arms.items():
                    rates[name].append(rate(connections))
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
            connection.send(False)
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--block", type=int, default=5, help="steps of an arm before the next has its turn")
    parser.add_argument("--turns", type=int, default=5, help="of each arm")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"  # read where the processes import it
    result = {
        "command": command(),
        "commit": commit(),
        "torch": torch.__version__,
        "preset": PRESET,
        "threads": options.threads,
        "load_before": os.getloadavg()[0],
        "beside": measure(options.threads, options.block, options.turns),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
