"""`python -m service.cli` is `misfit`."""

from service.cli.main import cli

cli(prog_name="misfit")
