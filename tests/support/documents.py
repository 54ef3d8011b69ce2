"""The pages that people read, and the examples in them, as the tests and `make example` run them.

A fenced block of the language `sh` or `python` is an example. It is run as it stands, unless the line before it is the
comment `<!-- not run: REASON -->`. The comment `<!-- example: NAME -->` gives an example a name. A block of the
language `text` directly below an example is its output, where `...` stands for anything.
"""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from serving import ROOT, Served

README, QUICKSTART = ROOT / "README.md", ROOT / "docs" / "quickstart.md"
PAGES = [
    README,
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
LANGUAGES = ("sh", "python", "text", "json")
TRAINING = ".venv-train"
SECONDS = 300
# A comment in the line before, the fence, the code, and the block of output that may follow.
BLOCK = re.compile(
    r"(?:^<!-- (?P<key>example|not run): (?P<value>.*?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$"
    r"(?=(?:\n\n```text\n(?P<output>.*?)^```$)?)",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Example:
    """A fenced block of a page.

    name     what a test or a tool calls it, or ""
    reason   why it is not run, or "" where it is run
    output   what it prints, as the page shows it, or None where the page shows nothing
    """

    page: Path
    line: int
    language: str
    code: str
    name: str
    reason: str
    output: str | None

    @property
    def is_code(self) -> bool:
        return self.language in ("sh", "python")

    @property
    def needs_training(self) -> bool:
        """Whether it is run by the environment that trains."""
        return TRAINING in self.code

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Example]:
    """Yield every fenced block of `page`, in order."""
    text = page.read_text()
    for match in BLOCK.finditer(text):
        key, value = match["key"], match["value"] or ""
        yield Example(
            page,
            text.count("\n", 0, match.start()) + 1,
            match["language"],
            match["code"],
            name=value if key == "example" else "",
            reason=value if key == "not run" else "",
            output=match["output"],
        )


def examples(page: Path) -> list[Example]:
    """Return the shell and Python blocks of `page` that are run, in order."""
    return [block for block in blocks(page) if block.is_code and not block.reason]


def example(page: Path, name: str) -> Example:
    """Return the example called `name` of the page."""
    (named,) = (block for block in blocks(page) if block.name == name)
    return named


def prepare(directory: Path) -> None:
    """Give `directory` what an example sees of the checkout: environments, Makefile and tests/data."""
    seen = {"tests": ROOT / "tests", "Makefile": ROOT / "Makefile", ".venv": Path(sys.prefix)}
    if (ROOT / TRAINING).exists():
        seen[TRAINING] = ROOT / TRAINING
    for name, target in seen.items():
        if not (directory / name).exists():
            (directory / name).symlink_to(target)


def run(block: Example, directory: Path, addresses: Mapping[str, str]) -> str:
    """Run the example in `directory`, with the page's addresses replaced by `addresses`. Return what it prints."""
    prepare(directory)
    code = block.code
    for written, real in addresses.items():
        code = code.replace(written, real)
    command = ["sh", "-euc", code] if block.language == "sh" else [".venv/bin/python", "-c", code]
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=SECONDS)
    assert result.returncode == 0, f"{block}\n{result.stdout}{result.stderr}"
    return result.stdout


def addresses_of(served: Served) -> dict[str, str]:
    """Return where `served` answers, by the addresses that the pages write."""
    return {"localhost:3000": f"127.0.0.1:{served.port}", "localhost:3001": served.grpc_target}


def difference(block: Example, printed: str) -> str:
    """Return how what was printed differs from the output that the page shows, "" where it does not."""
    if block.output is None:
        return ""
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    checker = doctest.OutputChecker()
    if checker.check_output(block.output, printed, options):
        return ""
    return f"{block}\n{checker.output_difference(doctest.Example('', block.output), printed, options)}"
