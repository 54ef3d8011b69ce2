"""`misfit score` of many images: by the engine that keeps what is done in a folder, in bounded memory."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.api.contexts.portable import PortableContext
from service.api.options import FitOptions, ScoreOptions
from service.api.score_records import ScoreRow, TableInfo
from service.cli import flagged_files
from service.cli.commands import score_output
from service.cli.endings import WrongUsage
from service.cli.progress import show_progress
from service.cli.request import Comparison, Computing
from service.errors import readable
from service.offline.engines.work_folder import describe_work, open_work_folder, remove_work
from service.offline.inputs.source_table import Source
from service.offline.inputs.sources import Inputs
from service.offline.scores_table import ScoresWriter

if TYPE_CHECKING:
    from service.offline.engines.work import Engine, Work

# More images than a service takes in one request.
LARGE = 10_000
# Images that a report lists beside the flagged ones.
REPORTED = 10_000


@dataclass(frozen=True)
class Large:
    """How many images are scored, where the command says so.

    engine  who does it: local or ray; None where their number decides
    work    the folder that keeps what is done; None for one beside the first file of scores
    actors  processes of the Ray cluster, each with so many CPUs and GPUs
    """

    engine: str | None
    work: Path | None
    actors: int
    actor_cpus: float
    actor_gpus: float

    @property
    def is_asked_for(self) -> bool:
        return self.engine is not None or self.work is not None


class Highlights:
    """The rows that are shown and acted on, of any number: the flagged ones, the first failures, and the next ones."""

    def __init__(self, shown: int) -> None:
        self.flagged: list[ScoreRow] = []
        self.failed: list[ScoreRow] = []
        self.scored = 0
        self._others: list[tuple[float, int, ScoreRow]] = []
        self._shown, self._numbers = shown, count()

    def write(self, rows: Sequence[ScoreRow]) -> None:
        for row in rows:
            if row.error:
                if len(self.failed) < score_output.NAMED:
                    self.failed.append(row)
            elif row.is_outlier:
                self.flagged.append(row)
            elif self._shown:
                self.scored += 1
                entry = (row.outlier_probability or 0.0, -next(self._numbers), row)
                if len(self._others) < self._shown:
                    heapq.heappush(self._others, entry)
                else:
                    heapq.heappushpop(self._others, entry)

    @property
    def rows(self) -> list[ScoreRow]:
        """Return the rows that are kept."""
        return self.flagged + [row for _, _, row in self._others]


def score_large(
    options: dict[str, Any],
    computing: Computing,
    output: Any,
    inputs: Inputs,
    comparison: Comparison,
    large: Large,
) -> TableInfo:
    """Score as `misfit score` does, and print what was found. Return what is said of all. Raises WrongUsage."""
    if find_spec("pyarrow") is None:
        raise WrongUsage("More than 10,000 images take pyarrow.", 'pip install "misfit[tables]"')
    from service.offline.engines.work import SHARD_IMAGES, Work, collect_scores
    from service.offline.in_process import LocalClient, load_bundle

    if large.engine == "ray" and large.work is None and not output.out:
        raise WrongUsage("--engine ray takes a folder that all machines see.", "Name it with --work DIR.")
    if output.as_json or options.get("pages") == "all":
        raise WrongUsage("--json and --pages all are for up to 10,000 images.", "Write the scores with --out FILE.")
    bundle, contexts = load_bundle(computing.bundle), list(comparison.contexts)
    bundle = replace(bundle, directory=bundle.directory.absolute())  # a process of a cluster starts elsewhere
    inputs.check_axes(bundle.manifest.image)
    if comparison.reference is not None:
        contexts = [_fit(LocalClient(computing.bundle), comparison.reference, options)]
        options = {name: value for name, value in options.items() if name != "estimator"}
    sources = inputs.images.sort_by_group()
    portable = [context.model_dump_json() for context in contexts]
    manifest = describe_work(bundle.manifest.bundle_id, options, sources, portable, SHARD_IMAGES)
    shown = score_output.SHOWN_AT_TERMINAL if output.shown is None else output.shown
    highlights = Highlights(shown if output.html is None else max(shown, REPORTED))
    with ExitStack() as stack:
        path = large.work or _place_of_work(output.out)
        folder = stack.enter_context(
            open_work_folder(path or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="misfit-"))), manifest)
        )
        work = Work(bundle, ScoreOptions.model_validate(options), contexts, sources, folder, SHARD_IMAGES)
        engine = _make_engine(work, large)
        try:
            with show_progress("encoding", len(sources), quiet=output.quiet) as advance:
                engine.encode(advance)
            with show_progress("scoring", len(sources), quiet=output.quiet) as advance:
                engine.score(advance)
            writers = [stack.enter_context(ScoresWriter(path)) for path in output.out]
            summaries = collect_scores(work, [*writers, highlights])
        except (KeyboardInterrupt, OSError):
            if path is not None:
                click.echo(f"what is done is kept in {readable(str(path))}: the same command goes on", err=True)
            raise
        info = TableInfo(bundle.manifest.bundle_id, computing.bundle or bundle.manifest.model, options, summaries)
        for writer in writers:
            writer.finish(info)
    if output.html is not None:
        rows = score_output.sort_rows(highlights.rows) + highlights.failed
        score_output.write_report(output.html, rows, info, computing.bundle)
    for action, target in output.actions.items():
        flagged_files.place_flagged(action, highlights.flagged, sources, target)
    if path is not None and large.work is None:
        remove_work(path)
    if not output.quiet:
        score_output.print_table(highlights.rows, shown, has_groups=set(info.groups) != {""})
        score_output.print_notes(highlights.failed, info, inputs.notes)
    return info


def _make_engine(work: Work, large: Large) -> Engine:
    if large.engine == "ray":
        from service.offline.engines.ray_data import ActorPool, RayEngine

        return RayEngine(work, ActorPool(large.actors, large.actor_cpus, large.actor_gpus))
    from service.offline.engines.local import LocalEngine

    return LocalEngine(work)


def _fit(client: Any, reference: Sequence[Source], options: dict[str, Any]) -> PortableContext:
    from service.cli.commands.score import name_images

    with client:
        fitting = {name: value for name, value in options.items() if name in FitOptions.model_fields}
        context: PortableContext = client.fit(name_images(reference), **fitting).context
        return context


def _place_of_work(outs: Sequence[Path]) -> Path | None:
    """Return the folder beside the first file of scores, in which an interrupted command goes on; None without one."""
    return outs[0].with_name(f".{outs[0].name}.work") if outs else None
