"""`misfit report SCORES --out report.html`: a table of scores as one HTML file to look at."""

from __future__ import annotations

import csv
from pathlib import Path

import click

from service.api.score_records import ScoresTable
from service.cli.commands.report_pictures import draw_findings
from service.cli.endings import explain_errors
from service.errors import InvalidInput, readable
from service.offline.inputs import hdf5_files
from service.offline.scores_table import read_scores
from service.report.report import write_report
from service.report.stored_images import StoredImages

PICTURES = 60


@click.command()
@click.argument("scores", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="report.html", show_default=True)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder to look for the images in, where they are no longer at the paths in the table.",
)
@click.option("--title", help="Heading of the report. Default: the name of the table.")
@click.option(
    "--bundle", help="The bundle that the table was scored with: a name or a path. Default: the one that it names."
)
@click.option(
    "--pictures",
    type=click.IntRange(0, 1000),
    default=PICTURES,
    show_default=True,
    help="How many of the most outlying images get heat maps and counterfactuals.",
)
@explain_errors
def report(scores: Path, out: Path, images: Path | None, title: str | None, bundle: str | None, pictures: int) -> None:
    """Write a report of the table SCORES (.parquet, .jsonl or .csv), which `misfit score --out` wrote.

    The report is one HTML file: it opens from disk, in any browser, and loads nothing from a network.
    """
    title = readable(scores.name) if title is None else title
    write_html(out, _read_table(scores), title, images=images, bundle=bundle, pictures=pictures)


def _read_table(path: Path) -> ScoresTable:
    """Return a table. Raises InvalidInput where the file is none, also where it is not even a text."""
    try:
        return read_scores(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path} is no table of scores: {error}.", "Write it with misfit score.") from None


def write_html(
    path: Path,
    table: ScoresTable,
    title: str,
    *,
    images: Path | None = None,
    bundle: str | None = None,
    pictures: int = PICTURES,
) -> None:
    """Write a report of `table`, with heat maps and counterfactuals of `pictures` images, and say what it lacks.

    images  a folder to look for the images in beside the paths of the table
    bundle  a name or path; by default the table's own

    Raises MisfitError and OSError.
    """
    stored = StoredImages(images, hdf5_files.find_row)
    findings = draw_findings(table, stored, bundle, pictures)
    for note in findings.notes:
        click.echo(f"note: {readable(note)}", err=True)
    write_report(
        path,
        table,
        title=title,
        read_image=stored.read,
        pictures=findings.pictures,
        live_latents=findings.live_latents,
        drift=findings.drift,
    )
    click.echo(f"wrote {readable(str(path))}: {len(table.rows):,} images")
