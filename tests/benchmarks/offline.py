"""CPU seconds and memory of scoring many images in two passes, by the number of images.

    python tests/benchmarks/offline.py [--images 10000 --images 100000 --images 1000000] [--pass one|two]

Pass one is measured without what each image costs: tiny arrays, decoded by the workers as ever, and networks that
return simulated latents. What is left is the bookkeeping. Pass two, and the table of scores after it, starts from
simulated latents: one group of normal images with 3% misfits. Each size runs in a process of its own, whose highest
resident size is given, with the sources in memory; workers that decode are not counted in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]
from measurements import save
from merging import simulate

from service.api.options import ScoreOptions
from service.bundle.store import Bundle
from service.cli.commands.score_large import Highlights
from service.core.detect.ood import OodCheck
from service.images.reading import Reading
from service.images.spec import Uint8Array
from service.inference.protocol import CheckedLatents
from service.offline.engines import shard_encoder
from service.offline.engines.latent_shards import Segment, write_shard
from service.offline.engines.local import LocalEngine
from service.offline.engines.work import Work, collect_scores
from service.offline.engines.work_folder import describe_work, open_work_folder
from service.offline.in_process import load_bundle
from service.offline.inputs.source_table import SourceTable, TableBuilder
from service.offline.inputs.stored_files import Kind
from service.offline.scores_table import ScoresWriter
from service.pipeline.batch import EncodedImages

MISFITS = 0.03
# Different tiny arrays, and simulated latents, that are repeated.
REPEATED, SIDE = 4096, 8


class SimulatedNetworks:
    """In place of a bundle's networks: latents of normal images with some misfits, whatever the images are."""

    def __init__(self, bundle: Bundle, *, require_gpu: bool) -> None:
        self.capabilities = bundle.manifest.capabilities
        latents, _ = simulate(bundle.population, REPEATED, MISFITS, np.random.default_rng(0))
        self._latents = latents.astype(np.float32)

    async def encode_checked(self, images: Uint8Array) -> CheckedLatents:
        return CheckedLatents(self._latents[: len(images)], np.zeros(len(images), np.float32))

    encode_screened = encode_checked


def list_sources(folder: Path, count: int) -> SourceTable:
    """Return so many images: rows of one small array, again and again."""
    path = folder / "images.npy"
    if not path.exists():
        np.save(path, np.random.default_rng(0).integers(0, 255, (REPEATED, SIDE, SIDE, 3), np.uint8))
    builder = TableBuilder()
    for number in range(count):
        row = number % REPEATED
        builder.add(Kind.ARRAY_ROW, str(folder), f"images.npy[{row}]", row=row)
    return builder.build(len(str(folder)), None)[0]


def write_latents(work: Work) -> None:
    """Write every shard of pass one, simulated."""
    random = np.random.default_rng(0)
    for number in work.shards:
        count = len(work.take_shard(number))
        latents, _ = simulate(work.bundle.population, count, MISFITS, random)
        check = OodCheck(np.full(count, 0.8), np.full(count, 1.0), "mean squared error")
        images = EncodedImages([""] * count, latents.astype(np.float32), np.empty((0, 0, 0, 0), np.uint8), check, {})
        write_shard(work.folder.latents(number), {"": Segment(images, Reading())})


def measure(which: str, count: int, folder: Path) -> dict[str, float]:
    """Measure one pass in this process."""
    bundle, options = load_bundle(None), {"attributions": "top"}
    sources = list_sources(folder, count)
    manifest = describe_work(bundle.manifest.bundle_id, options, sources, [], 4096)
    shard_encoder.LocalNetworks = SimulatedNetworks  # type: ignore[misc, assignment]
    with open_work_folder(folder / "work", manifest) as opened:
        work = Work(bundle, ScoreOptions.model_validate(options), [], sources, opened)
        began, cpu = time.monotonic(), cpu_seconds()
        engine = LocalEngine(work)
        if which == "one":
            engine.encode()
        else:
            engine.score()
            with ScoresWriter(folder / "scores.parquet") as writer:
                collect_scores(work, [writer, Highlights(20)])
        return {
            "images": count,
            "CPU seconds": round(cpu_seconds() - cpu, 1),
            "seconds": round(time.monotonic() - began, 1),
            "MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }


def cpu_seconds() -> float:
    """Return the CPU seconds of this process, and of its workers that have ended."""
    return sum(
        getattr(resource.getrusage(who), name)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        for name in ("ru_utime", "ru_stime")
    )


def prepare(count: int, folder: Path) -> None:
    """Write the latents that pass two starts from."""
    bundle, options = load_bundle(None), {"attributions": "top"}
    sources = list_sources(folder, count)
    manifest = describe_work(bundle.manifest.bundle_id, options, sources, [], 4096)
    with open_work_folder(folder / "work", manifest) as opened:
        write_latents(Work(bundle, ScoreOptions.model_validate(options), [], sources, opened))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, action="append")
    parser.add_argument("--pass", dest="passes", choices=("one", "two"), action="append")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.inside:
        what, count, folder = arguments.inside
        print(
            json.dumps(
                prepare(int(count), Path(folder)) if what == "prepare" else measure(what, int(count), Path(folder))
            )
        )
        return
    results: dict[str, list[dict[str, Any]]] = {}
    for which in arguments.passes or ("one", "two"):
        for count in arguments.images or (10_000, 100_000, 1_000_000):
            with tempfile.TemporaryDirectory() as folder:
                # Latents are simulated by another process: that takes memory of its own.
                for what in ("prepare", "two") if which == "two" else ("one",):
                    command = [sys.executable, __file__, "--inside", what, str(count), folder]
                    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            results.setdefault(f"pass {which}", []).append(json.loads(ended.stdout))
            print(f"pass {which}", results[f"pass {which}"][-1], flush=True)
    save(arguments.out, results)


if __name__ == "__main__":
    main()
