"""Features of all photographs of a folder, computed once: tiles on disk, so that learning goes on where it stopped.

Memory stays the same for any number of photographs: only one tile is held by each thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np

from service.core.types import Float64Array
from service.images import properties
from service.images.conform import Note
from service.images.sample_range import SampleRange
from service.inference.features import FeatureNetwork
from service.learning import folder

# Photographs of a tile.
TILE = 64


@dataclass(frozen=True)
class Tile:
    """What is kept of up to TILE photographs.

    positions  (k,) of those that could be read, among all files
    features   (k, C) pooled
    measured   (k, P) properties
    errors     of the others, by position
    notes      by position
    """

    positions: list[int]
    features: Float64Array
    measured: Float64Array
    errors: dict[int, str]
    notes: dict[int, list[Note]]


@dataclass(frozen=True)
class FeatureCache:
    """The tiles of `files`, in a directory beside the bundle that is to be written.

    samples  how to read deep samples
    """

    files: Sequence[Path]
    directory: Path
    samples: SampleRange

    @classmethod
    def beside(cls, out: Path, files: Sequence[Path], samples: SampleRange, backbone: Path) -> FeatureCache:
        """Return the cache of these files, as they are now, with this backbone. It may hold tiles of an earlier run."""
        state = [backbone.stat().st_size, hashlib.sha256(backbone.read_bytes()).hexdigest()]
        for file in files:
            status = file.stat()
            state.append(f"{file.resolve()} {status.st_size} {status.st_mtime_ns}")
        digest = hashlib.sha256("\n".join(map(str, state)).encode("utf-8", "surrogateescape")).hexdigest()
        return cls(files, out.parent / f".{out.name}.learning-{digest[:12]}", samples)

    def fill(self, network: FeatureNetwork, progress: Callable[[int], None]) -> None:
        """Compute what is missing. `progress` is told of every so many photographs that are done."""
        self.directory.mkdir(parents=True, exist_ok=True)
        missing = []
        for start in range(0, len(self.files), TILE):
            if self._path(start).exists():
                progress(min(TILE, len(self.files) - start))
            else:
                missing.append(start)
        pool = ThreadPoolExecutor(joblib.cpu_count(), "learning")
        try:
            waiting = {pool.submit(self._compute, start, network) for start in missing}
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for task in done:
                    progress(task.result())
        finally:
            pool.shutdown(cancel_futures=True)

    def tiles(self) -> Iterator[Tile]:
        """Yield all tiles, in the order of the files."""
        for start in range(0, len(self.files), TILE):
            with np.load(self._path(start), allow_pickle=False) as arrays:
                errors = {int(position): error for position, error in json.loads(str(arrays["errors"])).items()}
                yield Tile(
                    (arrays["positions"] + start).tolist(),
                    arrays["features"].astype(np.float64),
                    arrays["measured"].astype(np.float64),
                    {start + position: error for position, error in errors.items()},
                    {start + int(position): kinds for position, kinds in json.loads(str(arrays["notes"])).items()},
                )

    def remove(self) -> None:
        """Delete the tiles: the bundle is written."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _compute(self, start: int, network: FeatureNetwork) -> int:
        files = self.files[start : start + TILE]
        photographs = folder.read(files, network.image, self.samples)
        with tempfile.NamedTemporaryFile(dir=self.directory, delete=False) as unfinished:
            np.savez(
                unfinished,
                positions=np.array(photographs.read, dtype=np.int64),
                features=network.pooled(photographs.pixels).astype(np.float32),
                measured=properties.measure(photographs.pixels, photographs.sizes),
                errors=np.array(json.dumps(photographs.errors)),
                notes=np.array(json.dumps(photographs.notes)),
            )
        os.replace(unfinished.name, self._path(start))
        return len(files)

    def _path(self, start: int) -> Path:
        return self.directory / f"{start // TILE:06}.npz"
