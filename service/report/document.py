"""One HTML file of a page's template, style, modules and data. Its policy lets it load nothing from anywhere."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

WEB = Path(__file__).parent / "web"
IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
# The script is known by its hash: no other script runs, wherever it comes from.
POLICY = (
    "default-src 'none'; script-src 'sha256-{script}'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


def build_document(data: object, sheets: Iterable[bytes]) -> str:
    """Return the report of `data` (JSON) and of sheets of thumbnails (WebP).

    The data stand in the file as base64: no text in them can end an element or begin another one.
    """
    script = join_modules("report")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    content = gzip.compress(json.dumps(data, allow_nan=False, separators=(",", ":")).encode(), mtime=0)
    return (
        (WEB / "report.html")
        .read_text(encoding="utf-8")
        .format(
            policy=POLICY.format(script=digest),
            style=(WEB / "style.css").read_text(encoding="utf-8"),
            report=_encode(content),
            sheets="\n".join(
                f'<script class="sheet" type="application/octet-stream">{_encode(sheet)}</script>' for sheet in sheets
            ),
            script=script,
        )
    )


def join_modules(entry: str) -> str:
    """Return the module of that name and those that it imports as one script.

    Browsers load no modules from disk. Each module becomes a function that returns what the module exports.
    """
    joined: dict[str, str] = {}

    def add(name: str) -> None:
        if name in joined:
            return
        text = (WEB / f"{name}.js").read_text(encoding="utf-8")
        for _, imported in IMPORT.findall(text):
            add(imported)
        exports = ", ".join(name for _, name in EXPORT.findall(text))
        body = EXPORT.sub(r"\1", IMPORT.sub(r"const {\1} = modules.\2;", text))
        joined[name] = f"modules.{name} = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();"

    add(entry)
    return "\n".join(["const modules = {};", *joined.values()])


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()
