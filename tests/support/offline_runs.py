"""`misfit score` of a small tree by an engine, in a process that somebody ends in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from serving import ROOT

from service.api.score_records import ScoresTable
from service.offline.scores_table import read_scores

BATCH = ROOT / "tests/data/shapes3d_batch.zip"
OPTIONS = ("--by", "folder", "--nearest", "1")
# On a busy machine Ray gives up starting after 30 seconds: then the command is run again.
STARTS = 4
# The command with shards of a few images. Its first two arguments say how many, and who is ended when:
#   driver, tree, interrupt encoding|scoring  this process, all of them, or Ctrl-C, after the first step of a pass
#   worker  the workers that decode, after every step; of Ray, an actor in each pass
#   before a shard has its name, while scores are written   this process
PROGRAM = """
import os, signal, sys
from contextlib import contextmanager
import psutil
from service.cli.commands import score_large
from service.offline import table_formats
from service.offline.engines import ray_data, work
work.SHARD_IMAGES, who, calls = int(sys.argv.pop(1)), sys.argv.pop(1), 0

def end(at):
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), signal.SIGKILL)

def dies_once(actor, marker):
    class DiesOnce(actor):
        def __call__(self, batch):
            if not os.path.exists(marker):
                open(marker, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)
    return DiesOnce

@contextmanager
def end_at_progress(label, total, quiet=False):
    def advance(count):
        if not count or label not in who and who != "worker":
            return
        if who.startswith(("tree", "worker")):
            for process in psutil.Process().children(recursive=True):
                process.kill()
        if who != "worker":
            os.kill(os.getpid(), signal.SIGINT if who.startswith("interrupt") else signal.SIGKILL)
    yield advance

replace, write = os.replace, table_formats.Parquet.write
if who == "worker" and "ray" in sys.argv:
    ray_data.EncodingActor = dies_once(ray_data.EncodingActor, os.environ["MARKER"] + ".encoding")
    ray_data.ScoringActor = dies_once(ray_data.ScoringActor, os.environ["MARKER"] + ".scoring")
elif who.startswith(("driver", "tree", "interrupt", "worker")):
    score_large.show_progress = end_at_progress
elif who == "before a shard has its name":
    def before(source, target):
        if str(target).endswith(".parquet"):
            end(3)
        replace(source, target)
    os.replace = before
elif who == "while scores are written":
    def writing(self, rows):
        write(self, rows)
        end(2)
    table_formats.Parquet.write = writing
from service.cli.main import cli
cli()
"""


def write_tree(path: Path) -> Path:
    """Write three groups, whose borders are no borders of shards, and a group of what cannot be read.

    One has such an image, and one a foreign image: there the errors that the screen leaves out matter.
    """
    with zipfile.ZipFile(BATCH) as archive:
        for number, name in enumerate(archive.namelist()):
            file = path / "abc"[number // 21] / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(archive.read(name))
    for group in ("a", "none"):
        (path / group).mkdir(exist_ok=True)
        (path / group / "broken.png").write_bytes(b"nothing")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path / "b/noise.png")
    return path


def score_by_requests(tree: Path, out: Path) -> ScoresTable:
    """Return the scores of one request for each group."""
    command = [sys.executable, "-m", "service.cli", "score", str(tree), *OPTIONS, "--out", str(out)]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)
    return read_scores(out)


def score(
    tree: Path, out: Path, work: Path, images: int, who: str, *options: object
) -> subprocess.CompletedProcess[str]:
    """Score by an engine, with shards of so many images. `who` is ended, as PROGRAM says, or "nobody"."""
    arguments = ["score", tree, *OPTIONS, "--out", out, "--work", work, *options]
    command = [sys.executable, "-c", PROGRAM, str(images), who, *map(str, arguments)]
    for _ in range(STARTS):
        ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        if "Ray does not start" not in ended.stderr:
            break
    return ended


def environment() -> dict[str, str]:
    """Return the variables of a process that imports this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}
