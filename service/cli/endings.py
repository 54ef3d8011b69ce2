"""How a command ends: exit codes, and one line for each error."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import ParamSpec

import click

from service.cli.messages import for_prompt
from service.client.calls import CallError
from service.errors import InvalidInput, MisfitError, readable

Parameters = ParamSpec("Parameters")


class ExitCode(IntEnum):
    """The exit codes of all commands except `misfit learn`, which ends with 1 for an error."""

    DONE = 0
    FLAGGED = 1  # with --fail-if-flagged
    USAGE = 2  # click's own
    UNREADABLE = 3  # with --strict
    FAILED = 4
    INTERRUPTED = 130


def explain_errors(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Make a command end with one line and a code where it fails, in place of a trace."""

    @wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            command(*args, **kwargs)
        except (CallError, MisfitError) as error:
            code = ExitCode.USAGE if isinstance(error, WrongUsage) else ExitCode.FAILED
            fail(f"{error.message} {error.hint}".strip(), code)
        except BrokenPipeError:  # the reader has left: `misfit score ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(ExitCode.DONE)
        except OSError as error:
            where = f"{readable(str(error.filename))}: " if error.filename else ""
            fail(f"{where}{error.strerror or error}")
        except KeyboardInterrupt:
            fail("interrupted", ExitCode.INTERRUPTED)
        finally:
            signal.signal(signal.SIGTERM, before)

    return run


class WrongUsage(InvalidInput):
    """The command was called in a way that cannot work."""


def fail(message: str, code: ExitCode = ExitCode.FAILED) -> None:
    """Print one line on standard error, and end."""
    click.echo(f"error: {for_prompt(readable(message))}", err=True)
    sys.exit(code)
