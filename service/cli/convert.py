"""`misfit convert`: a table of scores for labelling tools."""

from __future__ import annotations

from pathlib import Path

import click

from service.cli.endings import explain_errors
from service.offline.atomic_files import write_text
from service.offline.hand_over import FORMATS
from service.offline.scores_table import read_scores


@click.command()
@click.argument("scores", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--to", "name", type=click.Choice(list(FORMATS)), required=True, help="The tool.")
@click.option("--out", "-o", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder that the tool knows: addresses of images start there.",
)
@explain_errors
def convert(scores: Path, name: str, out: Path, root: Path | None) -> None:
    """Convert SCORES, a .parquet, .csv or .jsonl of misfit score, for a labelling tool."""
    write_text(out, FORMATS[name](read_scores(scores), root))
