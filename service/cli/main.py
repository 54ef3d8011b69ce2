"""`misfit`: the command line. `misfit --help` lists the commands.

A command's module is imported when the command runs: help and completion of names need none of them.
"""

from __future__ import annotations

from importlib import import_module

import click
from click.shell_completion import CompletionItem

# Each command, the module that defines it under the command's own name, and what --help says of it.
COMMANDS: dict[str, tuple[str, str]] = {
    "score": ("service.cli.commands.score", "Find the images that do not belong."),
    "explain": ("service.cli.commands.score", "Say why images do not belong, with heat maps."),
    "edit": ("service.cli.commands.pictures", "Draw images as they would look if they belonged."),
    "traverse": ("service.cli.commands.pictures", "Draw pictures along the latents of a model."),
    "interpolate": ("service.cli.commands.pictures", "Draw pictures on the way between two images."),
    "sample": ("service.cli.commands.pictures", "Draw new pictures that belong to the images."),
    "fit": ("service.cli.commands.fit", "Keep what is normal among images in a file, to compare others with."),
    "report": ("service.cli.commands.report", "Write a table of scores as one HTML file to look at."),
    "learn": ("service.cli.commands.learn", "Learn a folder of photographs, and write a bundle."),
    "convert": ("service.cli.commands.convert", "Convert a table of scores for Label Studio, CVAT or FiftyOne."),
    "describe": ("service.cli.commands.describe", "Describe a bundle, or the one that a service serves."),
    "serve": ("service.cli.commands.serve", "Serve a bundle over HTTP and gRPC."),
}


class LazyGroup(click.Group):
    """The commands of COMMANDS, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="misfit", prog_name="misfit")
def cli() -> None:
    """Find the images that do not belong in their batch.

    Most often: misfit score FOLDER
    """


if __name__ == "__main__":
    cli(prog_name="misfit")
