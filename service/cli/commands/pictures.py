"""`misfit edit`, `traverse`, `interpolate` and `sample`: pictures that a model draws, as files in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from service.api.endpoints import ENDPOINTS
from service.api.options import Options
from service.api.schemas import Picture, PicturesResponse
from service.cli import request
from service.cli.commands.score import name_images
from service.cli.endings import WrongUsage, explain_errors
from service.cli.endpoint_options import endpoint_options, read_endpoint_options
from service.cli.progress import show_progress
from service.client.client import png
from service.errors import readable
from service.offline.atomic_files import write_bytes, write_text
from service.offline.heat_map_files import safe_path

ANSWER = "answer.json"


def write_pictures(answer: PicturesResponse, folder: Path) -> list[Path]:
    """Write each picture of an answer as PLACE_ID.png, and everything else of it as answer.json. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    digits = len(str(max(len(answer.pictures) - 1, 0)))
    paths = []
    for place, picture in enumerate(answer.pictures):
        stem = str(safe_path(picture.id)).replace("/", "_").removesuffix(".png")
        path = folder / f"{place:0{digits}}_{stem}.png"
        write_bytes(path, png(picture))
        paths.append(path)
    pictures = [picture.model_copy(update={"image": None}) for picture in answer.pictures]
    text = answer.model_copy(update={"pictures": pictures}).model_dump_json(indent=2, exclude_unset=True)
    write_text(folder / ANSWER, f"{text}\n")
    return paths


def draw(endpoint: str, options_type: type[Options], values: dict[str, Any]) -> None:
    """Draw as a command's `values` say."""
    options, computing = read_endpoint_options(options_type, values, {}), request.take_computing(values)
    if not values["inputs"] and not values["context"]:
        raise WrongUsage("Neither images nor a context came.", "Name INPUT, or a file of misfit fit with --context.")
    inputs = request.find_inputs(values["inputs"], path_column=values["path_column"])
    comparison = request.find_comparison(values["reference"], values["context"], inputs)
    with computing.open() as client, show_progress("images", len(inputs.images), quiet=values["quiet"]) as advance:
        if inputs.shapes:
            inputs.check_axes(client.describe().image)
        answer: PicturesResponse = getattr(client, endpoint)(
            name_images(inputs.images, advance) if inputs.images else None,
            reference=None if comparison.reference is None else name_images(comparison.reference),
            context=comparison.contexts or None,
            **options,
        )
    if values["as_json"]:
        click.echo(answer.model_dump_json(exclude_unset=True))
        return
    folder: Path = values["out"] or Path(endpoint)
    paths = write_pictures(answer, folder)
    if values["quiet"]:
        return
    for path, picture in zip(paths, answer.pictures, strict=True):
        click.echo("\t".join([readable(str(path)), readable(picture.id), *_describe(picture)]))
    for note in (*inputs.notes, *(answer.context.warnings if answer.context else ())):
        click.echo(f"warning: {note}", err=True)
    for id_, error in answer.errors.items():
        click.echo(f"unreadable {id_}: {error}", err=True)
    click.echo(f"{len(paths):,} pictures in {readable(str(folder))}", err=True)


def _describe(picture: Picture) -> list[str]:
    """Return what a line says of a picture: what changed, and whether it fits."""
    changed = ", ".join(picture.changed)
    return [changed, "" if picture.inside is None else "fits" if picture.inside else "does not fit"]


def _make_command(endpoint: str, description: str, *, needs_images: bool) -> click.Command:
    options_type = ENDPOINTS[endpoint].image_options

    def command(**values: Any) -> None:
        draw(endpoint, options_type, values)

    command.__name__, command.__doc__ = endpoint, description
    add: list[Callable[[Any], Any]] = [
        explain_errors,
        endpoint_options(options_type, {}),
        request.computing_options,
        request.comparison_options,
        click.option("--quiet", "-q", is_flag=True, help="Print errors only."),
        click.option("--json", "as_json", is_flag=True, help="Print the answer as the service sends it; no files."),
        click.option(
            "--out",
            "-o",
            type=click.Path(file_okay=False, path_type=Path),
            help=f"Folder of PNG.  [default: {endpoint}]",
        ),
        request.input_options if needs_images else request.optional_input_options,
        click.command(endpoint),
    ]
    result: Any = command
    for each in add:
        result = each(result)
    made: click.Command = result
    return made


edit = _make_command(
    "edit",
    """Draw images of INPUT as they would look if they belonged, or with other latents.

    By default the flagged images are mended. Pictures are written to a folder, with answer.json beside them.
    """,
    needs_images=True,
)
traverse = _make_command(
    "traverse", "Draw pictures along every live latent, along those of --latents, or over a plane.", needs_images=False
)
interpolate = _make_command("interpolate", "Draw pictures on the way between two images of INPUT.", needs_images=True)
sample = _make_command("sample", "Draw new pictures that belong to the images of INPUT.", needs_images=False)
