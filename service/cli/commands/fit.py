"""`misfit fit`: what is normal among images, kept in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from service.api.options import FitOptions
from service.cli import request
from service.cli.commands.score import name_images
from service.cli.endings import WrongUsage, explain_errors
from service.cli.endpoint_options import endpoint_options, read_endpoint_options
from service.cli.progress import show_progress
from service.errors import readable
from service.offline.atomic_files import write_text


@click.command()
@request.optional_input_options
@click.option(
    "--out", "-o", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write, JSON."
)
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
@click.option("--context", multiple=True, type=request.FILE, help="Files of misfit fit to merge with the images.")
@request.computing_options
@endpoint_options(FitOptions, {})
@explain_errors
def fit(**values: Any) -> None:
    """Keep what is normal among the images of INPUT in a file, for --context of other commands.

    Several files of misfit fit are merged into one: misfit fit --context a.json --context b.json --out both.json
    """
    options, computing = read_endpoint_options(FitOptions, values, {}), request.take_computing(values)
    if not values["inputs"] and not values["context"]:
        raise WrongUsage("Neither images nor a context came.", "Name INPUT, or files of misfit fit with --context.")
    inputs = request.find_inputs(values["inputs"], path_column=values["path_column"])
    contexts = [each for path in values["context"] for each in request.read_context(path)]
    images = [*inputs.images, *inputs.reference]
    with computing.open() as client, show_progress("images", len(images), quiet=values["quiet"]) as advance:
        if inputs.shapes:
            inputs.check_axes(client.describe().image)
        answer = client.fit(name_images(images, advance) if images else None, context=contexts or None, **options)
    write_text(values["out"], answer.model_dump_json(exclude_unset=True) + "\n")
    if values["quiet"]:
        return
    for id_, error in answer.errors.items():
        click.echo(f"unreadable {id_}: {error}", err=True)
    for warning in (*inputs.notes, *answer.context.warnings):
        click.echo(f"warning: {warning}", err=True)
    context = answer.context
    click.echo(
        f"{context.size:,} images, reliability {context.reliability}, in {readable(str(values['out']))}", err=True
    )
