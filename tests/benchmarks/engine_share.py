"""The rate of the local engine as a share of that of decoding and networks alone, in this process.

    python tests/benchmarks/engine_share.py FOLDER [--bundle NAME|PATH] [--images 8192] [--rounds 5] [--out FILE.json]

Each round does the same image files three times: decoded and encoded, with nothing else; by pass one of the engine,
which writes latents; and by both passes, with a table of scores. Each of them loads its own networks and starts its own
workers, in this process. A share is what decoding and networks alone take, over what the engine takes: of wall clock,
and of CPU seconds with those of the workers. Shares are medians over the rounds, whose order changes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]
from measurements import save
from offline import cpu_seconds

from service.api.options import ScoreOptions
from service.bundle.store import Bundle
from service.cli.commands.score_large import Highlights
from service.decoding.pool import DecodePool
from service.images.decode_budget import DecodeBudget
from service.inference.local import LocalNetworks
from service.offline.engines.local import LocalEngine
from service.offline.engines.shard_encoder import Uploads
from service.offline.engines.work import Work, collect_scores
from service.offline.engines.work_folder import describe_work, open_work_folder
from service.offline.in_process import load_bundle, local_settings
from service.offline.inputs.source_table import SourceTable
from service.offline.inputs.sources import find_sources
from service.offline.scores_table import ScoresWriter
from service.pipeline.chunked_inference import CHUNK_ROWS, CHUNKS_IN_FLIGHT

OPTIONS = {"attributions": "top"}
ALONE = "decoding and networks"


async def decode_and_encode(bundle: Bundle, sources: SourceTable) -> None:
    """Decode and encode all images, with networks and workers that start and end here."""
    decoder = DecodePool(local_settings())
    try:
        await encode_all(bundle, sources, LocalNetworks(bundle), decoder)
    finally:
        decoder.close()


async def encode_all(bundle: Bundle, sources: SourceTable, networks: LocalNetworks, decoder: DecodePool) -> None:
    """Decode and encode all images, in the chunks of a request."""
    uploads, slots = Uploads(sources), asyncio.Semaphore(CHUNKS_IN_FLIGHT)
    encode = networks.encode_checked if bundle.manifest.screen is None else networks.encode_screened

    async def run(start: int) -> None:
        async with slots:
            chunk = uploads[start : start + CHUNK_ROWS]
            rows = await decoder.read(chunk, bundle.manifest.image, "fit", DecodeBudget.unlimited())
            await encode(rows.pixels)

    await asyncio.gather(*(run(start) for start in range(0, len(uploads), CHUNK_ROWS)))


def run_engine(bundle: Bundle, sources: SourceTable, *, scores: bool) -> None:
    """Run pass one in a new folder, and with `scores` pass two and the table as well."""
    manifest = describe_work(bundle.manifest.bundle_id, OPTIONS, sources, [], 4096)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        with open_work_folder(folder / "work", manifest) as opened:
            work = Work(bundle, ScoreOptions.model_validate(OPTIONS), [], sources, opened)
            engine = LocalEngine(work)
            engine.encode()
            if scores:
                engine.score()
                with ScoresWriter(folder / "scores.parquet") as writer:
                    collect_scores(work, [writer, Highlights(20)])


def measure(run: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds of wall clock and of CPU."""
    began, cpu = time.monotonic(), cpu_seconds()
    run()
    return time.monotonic() - began, cpu_seconds() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--bundle")
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    sources = find_sources([arguments.folder]).images[: arguments.images]
    ways: dict[str, Callable[[], None]] = {
        ALONE: lambda: asyncio.run(decode_and_encode(bundle, sources)),
        "pass one": lambda: run_engine(bundle, sources, scores=False),
        "both passes and the table": lambda: run_engine(bundle, sources, scores=True),
    }
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(arguments.rounds):
        names = list(ways)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            costs[name].append(measure(ways[name]))
            print(number, name, *(round(each, 2) for each in costs[name][-1]), flush=True)
    results = {"images": len(sources), "rounds": arguments.rounds}
    for name in ways:
        wall, cpu = ([each[at] for each in costs[name]] for at in (0, 1))
        alone = [[each[at] for each in costs[ALONE]] for at in (0, 1)]
        results[name] = {
            "images per CPU second": round(len(sources) / median(cpu)),
            "share of wall clock": round(median(a / b for a, b in zip(alone[0], wall, strict=True)), 3),
            "share of CPU": round(median(a / b for a, b in zip(alone[1], cpu, strict=True)), 3),
        }
        print(name, results[name])
    save(arguments.out, results)


if __name__ == "__main__":
    main()
