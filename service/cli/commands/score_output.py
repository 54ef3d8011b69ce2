"""What `misfit score` prints: a ranked table at a terminal, lines with tabs elsewhere, warnings and a summary."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import click

from service.api.score_records import ScoreRow, ScoresTable, TableInfo
from service.cli.messages import for_prompt
from service.errors import readable

# Images in the table at a terminal, and files and warnings of one kind that are named.
SHOWN_AT_TERMINAL, NAMED = 20, 5
HEADINGS = ("rank", "flag", "probability", "score", "image", "reason")


def print_table(rows: Sequence[ScoreRow], shown: int | None, *, has_groups: bool) -> None:
    """Print the most outlying images: flagged ones first. Without `shown`, 20 at a terminal, all elsewhere."""
    ranked = sort_rows(rows)
    is_terminal = sys.stdout.isatty()
    count = shown if shown is not None else SHOWN_AT_TERMINAL if is_terminal else len(ranked)
    if not count:
        return
    cells = [_cells(row, has_groups) for row in ranked[:count]]
    headings = ("group", *HEADINGS) if has_groups else HEADINGS
    if is_terminal:
        _print_rich(headings, cells)
        if len(ranked) > count:
            click.echo(f"and {len(ranked) - count:,} more images; --show N prints N of them, --out FILE keeps all")
    else:
        for line in (headings, *cells):
            click.echo("\t".join(line))


def write_report(path: Path, rows: list[ScoreRow], info: TableInfo, bundle: str | None) -> None:
    """Write a report of the scores. Raises MisfitError and OSError."""
    from service.cli.commands.report import write_html

    with redirect_stdout(sys.stderr):  # standard output is for the scores
        write_html(path, ScoresTable(rows, info), readable(path.stem), bundle=bundle)


def sort_rows(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Return the rows of scored images, flagged ones first, then by probability, then by rank."""
    scored = [row for row in rows if row.rank is not None]
    return sorted(scored, key=lambda row: (not row.is_outlier, -(row.outlier_probability or 0), row.rank or 0))


def print_notes(rows: Sequence[ScoreRow], info: TableInfo, notes: Sequence[str]) -> None:
    """Print on standard error what is said of all images: unreadable ones, warnings, and a summary."""
    failed = [row for row in rows if row.error]
    for row in failed[:NAMED]:
        click.echo(f"unreadable {row.id}: {for_prompt(row.error)}", err=True)
    if len(failed) > NAMED:
        click.echo(f"unreadable: {len(failed) - NAMED:,} more images", err=True)
    print_summary(info, notes)


def print_summary(info: TableInfo, notes: Sequence[str]) -> None:
    """Print warnings, and one line that says how many images were scored."""
    groups = info.groups
    warnings: dict[str, list[str]] = {}
    for name, summary in groups.items():
        for warning in summary.warnings:
            warnings.setdefault(warning, []).append(name)
    for note in notes:
        click.echo(f"note: {for_prompt(note)}", err=True)
    for number, (warning, names) in enumerate(warnings.items()):
        if number == NAMED:
            click.echo(f"warning: {len(warnings) - NAMED} more kinds, which --out FILE keeps", err=True)
            break
        where = "" if len(groups) == 1 else f" ({_name_groups(names)})"
        click.echo(f"warning: {for_prompt(warning)}{where}", err=True)
    scored, flagged, failed = (
        sum(getattr(each, name) for each in groups.values()) for name in ("n", "flagged", "failed")
    )
    parts = [f"{scored:,} images scored", f"{flagged:,} flagged"]
    parts += [f"{failed:,} unreadable"] if failed else []
    parts += [f"{len(groups):,} groups"] if len(groups) > 1 else []
    doubtful = sum(each.reliability == "low" for each in groups.values())
    if len(groups) == 1:
        parts.append(f"reliability {next(iter(groups.values())).reliability}")
    elif doubtful:
        parts.append(f"{doubtful:,} of them of low reliability")
    click.echo(", ".join(parts), err=True)


def _name_groups(names: Sequence[str]) -> str:
    listed = ", ".join(name or "." for name in names[:3])
    return listed if len(names) <= 3 else f"{listed} and {len(names) - 3} more"


def _cells(row: ScoreRow, has_groups: bool) -> tuple[str, ...]:
    flag = ("foreign" if row.is_foreign else "outlier") if row.is_outlier else ""
    cells = (
        str(row.rank),
        flag,
        f"{row.outlier_probability:.3f}",
        f"{row.outlier_score:.4g}",
        _plain(row.id),
        _plain(row.reason),
    )
    return (_plain(row.group) or ".", *cells) if has_groups else cells


def _plain(text: str) -> str:
    """Return a text without control characters: a file's name may hold any, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _print_rich(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in ("rank", "probability", "score") else "left")
    flag = headings.index("flag")
    for cells in rows:
        table.add_row(*(Text(cell) for cell in cells), style="bold" if cells[flag] else "dim")
    Console().print(table)
