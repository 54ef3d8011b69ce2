"""The engine of a Ray cluster: the steps of both passes in pools of actors, by Ray Data.

Each actor holds what its steps need: the networks, or the merged context. Steps read and write files of the work's
folder, which all machines see; between processes go only their numbers. The sources lie in Ray's object store, once on
each machine. A step that dies with its actor is done again by another one, and a new driver goes on with the files.
Groups need no shuffle: sources are sorted by group before they are cut into shards, so that the latents of a group lie
in neighbouring files.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import FrameType
from typing import Any

from service.bundle import store
from service.errors import InvalidInput, MisfitError, first_line
from service.offline.engines.latent_shards import TYPES
from service.offline.engines.partition_scorer import PartitionScorer
from service.offline.engines.shard_encoder import ShardEncoder
from service.offline.engines.work import Progress, Work, find_unmeasured
from service.settings import PREFIX

# Does a step by its number.
Steps = Callable[[int], Coroutine[Any, Any, None]]
# How often an actor is started again, and a step begun again whose actor was lost. Ray itself has no limits: a group
# that is too large for the memory of a machine would be begun for ever.
RESTARTS, RETRIES = 100, 5
# Settings of a server, whose files the machines of a cluster need not have.
SERVER_FILES = ("_FILE", "_CERT", "_KEY")
INSTALL = 'pip install "misfit[ray]"'


@dataclass(frozen=True)
class ActorPool:
    """How many actors there are, and the CPUs and GPUs that Ray reserves for each."""

    actors: int = 2
    cpus: float = 1.0
    gpus: float = 0.0


class Actor:
    """Does the steps of one pass in a process of its own. Errors go to the driver as values: Ray would wrap them."""

    def __init__(self, work: Work, cpus: float) -> None:
        # What decodes and what computes starts as many workers as there are CPUs: those of this actor.
        os.environ["LOKY_MAX_CPU_COUNT"] = str(max(int(cpus), 1))
        self._work, self._runner = work, asyncio.Runner()
        self._steps: Steps | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Do the steps of a batch {"number": (n,)}. Return {"number": ..., "error": JSON or ""}."""
        numbers = [int(number) for number in batch["number"]]
        return {"number": numbers, "error": [self._run(number) for number in numbers]}

    def prepare(self) -> Steps:
        """Return what does the steps. Raises MisfitError and OSError."""
        raise NotImplementedError

    def _run(self, number: int) -> str:
        try:
            if self._steps is None:
                self._steps = self._runner.run(self._prepare())
            self._runner.run(self._steps(number))
        except MisfitError as error:
            return json.dumps([error.code, error.message, error.hint])
        except OSError as error:
            return json.dumps(["os_error", error.errno, error.strerror or str(error), error.filename])
        return ""

    async def _prepare(self) -> Steps:
        return self.prepare()


class EncodingActor(Actor):
    """Pass one."""

    def prepare(self) -> Steps:
        return self._open().encode

    def _open(self) -> ShardEncoder:
        """Load the networks. Raises InvalidInput where the bundle is another one here."""
        directory, expected = self._work.bundle.directory, self._work.bundle.manifest.bundle_id
        if (there := store.load(directory).manifest.bundle_id) != expected:
            raise InvalidInput(
                f"{directory} on a machine of the cluster is bundle {there[:12]}..., expected {expected[:12]}....",
                "Run the same image on all machines, or keep the bundle in a folder that they share.",
            )
        return ShardEncoder(self._work)


class CompletingActor(EncodingActor):
    """Measures what the screen of pass one left out."""

    def prepare(self) -> Steps:
        return self._open().complete


class ScoringActor(Actor):
    """Pass two."""

    def prepare(self) -> Steps:
        return PartitionScorer(self._work).score


@dataclass(frozen=True)
class RayEngine:
    """Keeps the protocol `Engine`, on the cluster of RAY_ADDRESS, or else on one of this machine alone."""

    work: Work
    pool: ActorPool = ActorPool()

    def encode(self, progress: Progress = lambda count: None) -> None:
        counts = {number: len(self.work.take_shard(number)) for number in self.work.shards}
        todo = [number for number in counts if not self.work.folder.latents(number).exists()]
        self._run(EncodingActor, self.pool, counts, todo, progress)
        unmeasured = find_unmeasured(self.work)
        self._run(CompletingActor, self.pool, dict.fromkeys(unmeasured, 0), list(unmeasured), lambda count: None)

    def score(self, progress: Progress = lambda count: None) -> None:
        counts = {number: self.work.count_images(number) for number in range(len(self.work.partitions))}
        todo = [number for number in counts if not self.work.folder.scores(number).exists()]
        # Statistics take no GPU.
        self._run(ScoringActor, ActorPool(self.pool.actors, self.pool.cpus), counts, todo, progress)

    def _run(
        self, actor: type[Actor], pool: ActorPool, counts: Mapping[int, int], todo: Sequence[int], progress: Progress
    ) -> None:
        """Do the steps `todo`; `counts` are the images of all. Raises MisfitError and OSError."""
        progress(sum(counts.values()) - sum(counts[number] for number in todo))
        if not todo:
            return
        ray = start_ray(pool)
        try:
            numbers = ray.data.from_items([{"number": number} for number in todo], override_num_blocks=len(todo))
            with warnings.catch_warnings():
                # Ray is to name these two parameters otherwise in 2.64, and has no other names for them yet.
                warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
                steps = numbers.map_batches(
                    actor,
                    fn_constructor_args=(self.work, pool.cpus),
                    batch_size=1,
                    compute=ray.data.ActorPoolStrategy(size=min(pool.actors, len(todo))),
                    num_cpus=pool.cpus,
                    num_gpus=pool.gpus,
                    max_restarts=RESTARTS,
                    max_task_retries=RETRIES,
                )
            with keep_interruptions() as check:
                for row in steps.iter_rows():
                    if row["error"]:
                        raise _to_error(json.loads(row["error"]))
                    progress(counts[row["number"]])
                    check()
                check()
        except (MisfitError, OSError):
            raise
        except Exception as error:  # of any type
            raise MisfitError(f"Ray failed: {first_line(error)}.") from error


@contextmanager
def keep_interruptions() -> Iterator[Callable[[], None]]:
    """Yield what raises KeyboardInterrupt if Ctrl-C came while the block runs.

    Ray calls Python where an exception is printed and forgotten, and Ctrl-C with it.
    """
    came = False
    usual = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.default_int_handler(number, frame)

    def check() -> None:
        if came:
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or usual is not signal.default_int_handler:  # whoever set another handler knows what comes
        yield check
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, usual)


def start_ray(pool: ActorPool) -> Any:
    """Return Ray, connected to a cluster that has room for an actor. Raises InvalidInput."""
    if find_spec("ray") is None:
        raise InvalidInput("--engine ray takes Ray.", INSTALL)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call its makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if not ray.is_initialized():
        variables = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(PREFIX) and not name.endswith(SERVER_FILES)
        }
        cluster = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": _count_cpus(pool), "include_dashboard": False}
        try:
            with _silence_native_code():
                ray.init(
                    logging_level="ERROR",
                    log_to_driver=False,
                    runtime_env={"env_vars": variables} if variables else None,
                    **cluster,
                )
        except Exception as error:  # of any type: a time-out is a plain Exception
            raise InvalidInput(
                f"Ray does not start: {first_line(error)}.",
                "Repeat the command where the machine was busy, or name a running cluster with RAY_ADDRESS.",
            ) from error
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, asked in (("CPU", pool.cpus), ("GPU", pool.gpus)):
        if asked > (most := max(machine.get(name, 0) for machine in machines)):
            raise InvalidInput(
                f"An actor takes {asked:g} {name}, and no machine of the cluster has more than {most:g}.",
                "Ask for less with --actor-cpus and --actor-gpus, or name another cluster with RAY_ADDRESS.",
            )
    return ray


@contextmanager
def _silence_native_code() -> Iterator[None]:
    """Send what native code prints on standard error nowhere while the block runs: Ray tells its level of logging."""
    sys.stderr.flush()
    before = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _count_cpus(pool: ActorPool) -> int:
    """Return the CPUs of a cluster of this machine alone: actors share them where there are more actors."""
    return max(os.cpu_count() or 1, int(pool.actors * pool.cpus))


def _to_error(content: Sequence[Any]) -> Exception:
    if content[0] == "os_error":
        return OSError(*content[1:])
    code, message, hint = content
    return TYPES[code](message, hint)
