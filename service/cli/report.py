"""`misfit report SCORES --out report.html`: a table of scores as one HTML file to look at."""

from __future__ import annotations

import sys
from pathlib import Path

import click

INTERRUPTED = 130


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
    default=60,
    show_default=True,
    help="How many of the most outlying images get heat maps and counterfactuals.",
)
def report(scores: Path, out: Path, images: Path | None, title: str | None, bundle: str | None, pictures: int) -> None:
    """Write a report of the table SCORES (.parquet, .jsonl or .csv), which `misfit score --out` wrote.

    The report is one HTML file: it opens from disk, in any browser, and loads nothing from a network.
    """
    from service.cli.report_pictures import draw_findings
    from service.errors import MisfitError, readable
    from service.offline.scores_table import read_scores
    from service.report.report import write_report
    from service.report.stored_images import StoredImages

    try:
        table = read_scores(scores)
        stored = StoredImages(images)
        findings = draw_findings(table, stored, bundle, pictures)
        for note in findings.notes:
            click.echo(f"note: {note}", err=True)
        write_report(
            out,
            table,
            title=title if title is not None else readable(scores.name),
            read_image=stored.read,
            pictures=findings.pictures,
            live_latents=findings.live_latents,
            drift=findings.drift,
        )
    except MisfitError as error:
        click.echo(f"error: {error.message} {error.hint}".rstrip(), err=True)
        sys.exit(1)
    except (OSError, UnicodeDecodeError) as error:
        click.echo(f"error: {readable(str(error))}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("interrupted: no report was written", err=True)
        sys.exit(INTERRUPTED)
    click.echo(f"wrote {readable(str(out))}: {len(table.rows):,} images")
