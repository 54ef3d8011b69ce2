"""`misfit convert`: a table of scores for labelling tools."""

from __future__ import annotations

from pathlib import Path

import click

from service.cli.endings import WrongUsage, explain_errors
from service.offline.atomic_files import write_text
from service.offline.fiftyone_dataset import write_fiftyone
from service.offline.hand_over import FORMATS
from service.offline.scores_table import read_scores

FIFTYONE = "fiftyone"
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.argument("scores", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--to", "name", type=click.Choice([*FORMATS, FIFTYONE]), required=True, help="The tool.")
@click.option(
    "--out", "-o", type=click.Path(path_type=Path), required=True, help="The file to write; of FiftyOne, a new folder."
)
@click.option("--root", type=FOLDER, help="The folder that the tool knows: addresses of images start there.")
@click.option("--maps", type=FOLDER, help="Heat maps of misfit explain --maps, which become fields of FiftyOne.")
@explain_errors
def convert(scores: Path, name: str, out: Path, root: Path | None, maps: Path | None) -> None:
    """Convert SCORES, a .parquet, .csv or .jsonl of misfit score, for a labelling tool."""
    if maps is not None and name != FIFTYONE:
        raise WrongUsage("--maps is for FiftyOne.", "Leave it out.")
    table = read_scores(scores)
    if name == FIFTYONE:
        write_fiftyone(table, out, root, maps)
    else:
        write_text(out, FORMATS[name](table, root))
