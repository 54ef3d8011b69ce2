"""What all commands that take images have in common: inputs, what they are compared with, and who computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from service.api.validation import read_contexts
from service.cli.endings import WrongUsage
from service.errors import InvalidInput, readable
from service.offline.inputs.source_table import Source
from service.offline.inputs.sources import Inputs, find_sources

if TYPE_CHECKING:
    from service.api.contexts.portable import PortableContext
    from service.client.client import Client

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
# A command's values are not passed on as they come: click makes a name for each option.
COMPUTING = ("bundle", "url", "grpc", "token", "ca_file")
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Computing:
    """Who computes: a running service, or this process with a bundle; None is the bundle that MISFIT_BUNDLE names."""

    bundle: str | None = None
    url: str | None = None
    grpc: str | None = None
    token: str | None = None
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.bundle, self.url, self.grpc)) > 1:
            raise WrongUsage("--bundle, --url and --grpc say three times who computes.", "Give one of them.")
        if not self.is_local and self.url is None and self.grpc is None:
            raise WrongUsage("--token and --ca-file are for a running service.", "Name it with --url or --grpc.")

    @property
    def is_local(self) -> bool:
        """Return whether this process computes."""
        return self.url is None and self.grpc is None and self.token is None and self.ca_file is None

    def open(self) -> Client:
        """Return the client of the service, or one that needs none. Raises WrongUsage or BundleError."""
        if self.is_local:
            from service.offline.in_process import LocalClient

            return LocalClient(self.bundle)
        from service.client.client import Client

        try:
            return Client(self._address, token=self.token, ca_file=self.ca_file, timeout=24 * 3600)
        except ValueError as error:
            raise WrongUsage(str(error)) from error

    @property
    def _address(self) -> str:
        if self.url is not None:
            return self.url
        address = self.grpc or ""
        return address if "://" in address else f"grpc://{address}"


@dataclass(frozen=True)
class Comparison:
    """The reference images or contexts of a request."""

    reference: Sequence[Source] | None
    contexts: list[PortableContext]


def computing_options(command: CommandT) -> CommandT:
    """Add the options that say who computes."""
    for option in (
        click.option("--ca-file", type=FILE, help="PEM file that the service's certificate is checked with."),
        click.option("--token", help="Bearer token of the service."),
        click.option("--grpc", metavar="HOST:PORT", help="Use a running service over gRPC; grpcs://HOST:PORT is TLS."),
        click.option("--url", help="Use a running service over HTTP, as in http://127.0.0.1:3000."),
        click.option(
            "--bundle",
            metavar="NAME|PATH",
            help="The model: a shipped bundle's name, or the path of one.  [default: MISFIT_BUNDLE, or shapes3d]",
        ),
    ):
        command = option(command)
    return command


def comparison_options(command: CommandT) -> CommandT:
    """Add the options that say what images are compared with."""
    for option in (
        click.option(
            "--context",
            multiple=True,
            type=FILE,
            help="A file of `misfit fit`: compare with those images. Several merge.",
        ),
        click.option(
            "--reference", multiple=True, metavar="INPUT", help="Normal images to compare with: a folder, for example."
        ),
    ):
        command = option(command)
    return command


def input_options(command: CommandT) -> CommandT:
    """Add the argument and the option that name images."""
    return _add_inputs(command, required=True)


def optional_input_options(command: CommandT) -> CommandT:
    """Add the argument and the option that name images, for a command that may have none."""
    return _add_inputs(command, required=False)


def _add_inputs(command: CommandT, *, required: bool) -> CommandT:
    metavar = "INPUT..." if required else "[INPUT]..."
    for option in (
        click.option("--path-column", default="", help="The column of paths of a CSV or Parquet file."),
        click.argument("inputs", nargs=-1, required=required, metavar=metavar),
    ):
        command = option(command)
    return command


def take_computing(values: dict[str, Any]) -> Computing:
    """Take the values of `computing_options` out of a command's values. Raises WrongUsage."""
    return Computing(**{name: values.pop(name) for name in COMPUTING})


def find_inputs(inputs: Sequence[str], by: str = "", path_column: str = "") -> Inputs:
    """Return the images that a command names; none where it names nothing. Raises WrongUsage."""
    if not inputs:
        return Inputs()
    try:
        return find_sources(inputs, by=by, path_column=path_column)
    except InvalidInput as error:
        raise WrongUsage(error.message, error.hint) from error


def find_comparison(reference: Sequence[str], context: Sequence[Path], within: Inputs) -> Comparison:
    """Return what images are compared with: what the options say, or else the folder called reference within them.

    Raises WrongUsage.
    """
    if reference and context:
        raise WrongUsage("--reference and --context say twice what is normal.", "Give one of them.")
    contexts = [each for path in context for each in read_context(path)]
    if within.reference and (reference or contexts):
        within.notes.append(f"{len(within.reference)} images in a folder called reference were left out.")
    elif within.reference:
        within.notes.append(f"{len(within.reference)} images in a folder called reference are what is normal.")
        return Comparison(within.reference, [])
    if not reference:
        return Comparison(None, contexts)
    found = find_inputs(reference)
    return Comparison([*found.images, *found.reference], contexts)


def read_context(path: Path) -> list[PortableContext]:
    """Return the contexts in a file that `misfit fit` or POST /fit wrote. Raises WrongUsage."""
    from pydantic_core import from_json

    try:
        return read_contexts(from_json(path.read_bytes()))
    except (InvalidInput, ValueError) as error:
        message = getattr(error, "message", None) or f"it is no JSON: {error}."
        raise WrongUsage(f"{readable(str(path))}: {message}", "Write it with misfit fit --out FILE.") from error
