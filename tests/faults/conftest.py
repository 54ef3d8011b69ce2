"""What the faults did, in one table at the end of the run."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

COLUMNS = ("fault", "load held", "answered", "refused", "bad inputs", "lost")


@dataclass(frozen=True)
class Line:
    """What became of the requests that met one fault."""

    fault: str
    held: str = ""  # the load meanwhile, in figures
    answered: int = 0
    refused: int = 0  # with a clear error, where that is right
    bad_inputs: int = 0
    lost: int = 0  # neither answered nor refused clearly, or answered wrongly


LINES = pytest.StashKey[list[Line]]()


@pytest.fixture(scope="session")
def report(pytestconfig):
    """Call it with a Line's fields. What was lost fails the test, and is in the table nevertheless."""
    lines = pytestconfig.stash.setdefault(LINES, [])

    def report(**fields: object) -> None:
        lines.append(Line(**fields))
        assert lines[-1].lost == 0, lines[-1]

    return report


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash.get(LINES, [])
    if not lines:
        return
    rows = [(line.fault, line.held, line.answered, line.refused, line.bad_inputs, line.lost) for line in lines]
    sums = [sum(row[column] for row in rows) for column in range(2, 6)]
    survived = len(terminalreporter.stats.get("passed", []))
    of = survived + len(terminalreporter.stats.get("failed", [])) + len(terminalreporter.stats.get("error", []))
    terminalreporter.section("faults")
    for row in (COLUMNS, ("---",) * len(COLUMNS), *rows, (f"**{survived} of {of} survived**", "", *sums)):
        terminalreporter.write_line("| " + " | ".join(map(str, row)) + " |")
