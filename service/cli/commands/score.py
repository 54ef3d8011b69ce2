"""`misfit score` and `misfit explain`: the images that do not belong, as a table, files, or files set apart."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import click

from service.api.options import ExplainOptions, FitOptions, Options, ScoreOptions
from service.api.schemas import ScoreResponse
from service.api.score_records import GroupSummary, ScoreRow, TableInfo
from service.cli import flagged_files, heat_maps, request
from service.cli.commands import score_output
from service.cli.commands.score_large import LARGE, Large, score_large
from service.cli.endings import ExitCode, WrongUsage, explain_errors
from service.cli.endpoint_options import endpoint_options, read_endpoint_options
from service.cli.flagged_files import Action
from service.cli.progress import Advance, show_progress
from service.cli.request import Comparison
from service.client.calls import CallError, NamedImage
from service.client.client import Client
from service.errors import InvalidInput
from service.images.decode import Content
from service.offline.inputs.source_table import Source
from service.offline.inputs.sources import Inputs, by_group
from service.offline.score_rows import build_failed_rows, build_rows, summarise
from service.offline.scores_table import check_format, write_scores

# The command line says why; the endpoint does so where it is asked.
DEFAULTS: dict[type[Options], dict[str, object]] = {
    ScoreOptions: {"attributions": "top"},
    ExplainOptions: {},
}
# More images of a group are sent to a service in a stream, which only gRPC has.
STREAMED, STREAM_CHUNK = 1000, 128
# Codes of errors that are a group's own: none of its images can be used. All others end the command.
OF_IMAGES = ("undecodable_image", "unsupported_media_type", "shape_mismatch", "too_large", "invalid_input")
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
ACTIONS: tuple[Action, ...] = ("copy", "link", "move")


@dataclass(frozen=True)
class Output:
    """The outputs of the scores.

    out      files of scores, by their suffixes
    html     a report to write
    maps     a folder for heat maps
    shown    images in the table; None where the terminal decides
    actions  what is done with the files of flagged images, and in which folder
    """

    out: tuple[Path, ...]
    as_json: bool
    quiet: bool
    shown: int | None
    maps: Path | None
    html: Path | None
    actions: dict[Action, Path]
    fail_if_flagged: bool
    strict: bool


def output_options(command: Any) -> Any:
    for option in (
        click.option("--strict", is_flag=True, help="End with exit code 3 where an image cannot be read."),
        click.option("--fail-if-flagged", is_flag=True, help="End with exit code 1 where an image is flagged."),
        click.option("--move-flagged", type=FOLDER, metavar="DIR", help="Move the files of flagged images to DIR."),
        click.option("--link-flagged", type=FOLDER, metavar="DIR", help="Make links to them in DIR."),
        click.option("--copy-flagged", type=FOLDER, metavar="DIR", help="Copy the files of flagged images to DIR."),
        click.option("--show", "shown", type=click.IntRange(0), help="How many images the table shows."),
        click.option("--quiet", "-q", is_flag=True, help="Print errors only."),
        click.option("--json", "as_json", is_flag=True, help="Print the answer as the service sends it."),
        click.option(
            "--out",
            "-o",
            type=FILE,
            multiple=True,
            help="Write the scores to a .parquet, .csv or .jsonl. May be repeated.",
        ),
        click.option("--html", type=FILE, help="Write a report to look at: one HTML file."),
        click.option(
            "--by",
            default="",
            metavar="folder|COLUMN",
            help="Compare images within their folder, or within a column's value.",
        ),
    ):
        command = option(command)
    return command


def image_command(options_type: type[Options]) -> Callable[[Any], Any]:
    """Return a decorator that gives a command all that score and explain take."""

    def decorate(command: Any) -> Any:
        for add in (
            endpoint_options(options_type, DEFAULTS[options_type]),
            request.computing_options,
            request.comparison_options,
            output_options,
            request.input_options,
        ):
            command = add(command)
        return command

    return decorate


@click.command()
@click.option(
    "--work",
    type=FOLDER,
    metavar="DIR",
    help="Keep what is done in DIR, so that the same command goes on after any end.",
)
@click.option(
    "--engine",
    type=click.Choice(("local", "ray")),
    help="Score in two passes, here or on a Ray cluster.  [default: here, above 10,000 images]",
)
@click.option("--actors", type=click.IntRange(1), default=2, show_default=True, help="Processes of the Ray cluster.")
@click.option("--actor-cpus", type=click.FloatRange(0, min_open=True), default=1.0, help="CPUs of each.")
@click.option("--actor-gpus", type=click.FloatRange(0), default=0.0, help="GPUs of each, for the networks.")
@image_command(ScoreOptions)
@explain_errors
def score(**values: Any) -> None:
    """Find the images of INPUT that do not belong with the others.

    INPUT is a folder, image files, a "pattern*.png", a zip, a tar, an npy, a CSV, Parquet or text file of paths, a URI,
    or - for a list of paths on standard input.

    More than 10,000 images are scored in two passes, in bounded memory. What is done is kept beside the first --out, or
    in --work DIR: interrupted, the same command goes on.

    Exit codes: 0 done; 1 an image was flagged, with --fail-if-flagged; 2 wrong usage; 3 an image cannot be read, with
    --strict; 4 failed; 130 interrupted.
    """
    run("score", ScoreOptions, values)


@click.command()
@click.option("--maps", type=FOLDER, metavar="DIR", help="Write heat maps to DIR: where in an image its latents look.")
@image_command(ExplainOptions)
@explain_errors
def explain(**values: Any) -> None:
    """Say why images of INPUT do not belong with the others, latent by latent.

    INPUT and exit codes are those of misfit score.
    """
    run("explain", ExplainOptions, values)


def run(endpoint: str, options_type: type[Options], values: dict[str, Any]) -> None:
    """Score as a command's `values` say, and end with its exit code."""
    options = read_endpoint_options(options_type, values, DEFAULTS[options_type])
    computing, output = request.take_computing(values), take_output(values)
    if output.maps is None and endpoint == "explain":
        options["heat_maps"] = "none"
    inputs = request.find_inputs(values["inputs"], values["by"], values["path_column"])
    comparison = request.find_comparison(values["reference"], values["context"], inputs)
    for action in output.actions:
        flagged_files.check_action(action, inputs.images)
    if endpoint == "score":
        large = Large(**{each.name: values[each.name] for each in fields(Large)})
        if large.is_asked_for and not computing.is_local:
            raise WrongUsage("--work and --engine are for images that no service scores.", "A service keeps nothing.")
        if computing.is_local and (large.is_asked_for or len(inputs.images) > LARGE):
            end(score_large(options, computing, output, inputs, comparison, large), output)
            return
    with computing.open() as client:
        description = client.describe()
        inputs.check_axes(description.image)
        answers, failed = call_groups(client, endpoint, inputs, comparison, options, output)
    groups = by_group(inputs.images)
    rows: list[ScoreRow] = []
    summaries: dict[str, GroupSummary] = {}
    for name, sources in groups.items():
        if name in answers:
            rows += build_rows(answers[name], sources, name)
            summaries[name] = summarise(answers[name])
        else:
            rows += build_failed_rows(sources, name, failed[name])
            summaries[name] = GroupSummary(0, len(sources), 0, None, "low", "", (failed[name],))
    info = TableInfo(description.bundle_id, computing.bundle or description.model, options, summaries)
    for path in output.out:
        write_scores(path, rows, info)
    if output.html is not None:
        score_output.write_report(output.html, rows, info, computing.bundle)
    if output.maps is not None:
        heat_maps.write_heat_maps(answers, output.maps)
    for action, folder in output.actions.items():
        flagged_files.place_flagged(action, rows, inputs.images, folder)
    report(answers, rows, info, inputs, output)


def take_output(values: Mapping[str, Any]) -> Output:
    """Return where the scores go. Raises WrongUsage."""
    for path in values["out"]:
        try:
            check_format(path)
        except InvalidInput as error:
            raise WrongUsage(error.message, error.hint) from error
    actions: dict[Action, Path] = {
        action: values[f"{action}_flagged"] for action in ACTIONS if values[f"{action}_flagged"] is not None
    }
    names = ("out", "html", "as_json", "quiet", "shown", "fail_if_flagged", "strict")
    return Output(**{name: values[name] for name in names}, maps=values.get("maps"), actions=actions)


def call_groups(
    client: Client, endpoint: str, inputs: Inputs, comparison: Comparison, options: dict[str, Any], output: Output
) -> tuple[dict[str, ScoreResponse], dict[str, str]]:
    """Return the answer of each group, and why the others have none. Raises CallError where no group has an answer."""
    answers: dict[str, ScoreResponse] = {}
    failed: dict[str, str] = {}
    problem: CallError | None = None
    groups = by_group(inputs.images)
    against: dict[str, Any] = {"context": comparison.contexts or None}
    if comparison.reference is not None:
        against = {"reference": name_images(comparison.reference)}
        if len(groups) > 1:  # encode it once
            fitting = {name: value for name, value in options.items() if name in FitOptions.model_fields}
            against = {"context": client.fit(against["reference"], **fitting)}
            options = {name: value for name, value in options.items() if name != "estimator"}
    with show_progress("images", len(inputs.images), quiet=output.quiet) as advance:
        for name, sources in groups.items():
            try:
                answers[name] = _call(client, endpoint, name_images(sources, advance), {**against, **options})
            except CallError as error:
                if error.code not in OF_IMAGES:
                    raise
                problem, failed[name] = error, f"{error.message} {error.hint}".strip()
    if problem is not None and not answers:
        raise problem
    return answers, failed


def _call(client: Client, endpoint: str, images: list[NamedImage], arguments: dict[str, Any]) -> ScoreResponse:
    if endpoint == "score" and client.has_streams and len(images) > STREAMED:
        chunks = [images[start : start + STREAM_CHUNK] for start in range(0, len(images), STREAM_CHUNK)]
        return client.score_stream(chunks, **arguments)
    return client.explain(images, **arguments) if endpoint == "explain" else client.score(images, **arguments)


def name_images(sources: Iterable[Source], advance: Advance = lambda count: None) -> list[NamedImage]:
    """Return images as a client takes them. `advance` is told of each that is read."""

    def read(source: Source) -> Content:
        try:
            return source.read()
        finally:
            advance(1)

    return [NamedImage(source.id, partial(read, source)) for source in sources]


def report(
    answers: Mapping[str, ScoreResponse], rows: Sequence[ScoreRow], info: TableInfo, inputs: Inputs, output: Output
) -> None:
    """Print what was found, and end with the exit code that it has."""
    if output.as_json:
        texts = {name: answer.model_dump_json(exclude_unset=True) for name, answer in answers.items()}
        if set(texts) == {""}:
            click.echo(texts[""])
        else:
            click.echo("{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in texts.items()) + "}")
    elif not output.quiet:
        score_output.print_table(rows, output.shown, has_groups=set(info.groups) != {""})
    if not output.quiet:
        score_output.print_notes(rows, info, inputs.notes)
    end(info, output)


def end(info: TableInfo, output: Output) -> None:
    """End with the exit code of the scores."""
    if output.strict and any(each.failed for each in info.groups.values()):
        sys.exit(ExitCode.UNREADABLE)
    if output.fail_if_flagged and any(each.flagged for each in info.groups.values()):
        sys.exit(ExitCode.FLAGGED)
