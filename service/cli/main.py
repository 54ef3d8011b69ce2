"""`misfit`: the command line. `misfit --help` lists the commands."""

from __future__ import annotations

import click

from service.cli.learn import learn
from service.cli.report import report


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Find the images that do not belong in their batch."""


cli.add_command(learn)
cli.add_command(report)

if __name__ == "__main__":
    cli(prog_name="misfit")
