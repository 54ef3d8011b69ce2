"""JSON texts of a request: read within limits, with hints of what was expected."""

from __future__ import annotations

import codecs
import json
import re

from pydantic_core import from_json

from service.api import payload_limits
from service.api.latents import LATENTS_EXAMPLE
from service.errors import InvalidInput, InvalidOption, TooLarge, quoted

# A text with a single character beyond ASCII takes up to four bytes for each of its characters.
MOST_WIDE_JSON = 16 * 1024 * 1024
JSON_EXAMPLE = 'Send {"images": ["<base64 of a file>", ...], "options": {...}}.'
CONTEXT_HINT = "Write what POST /fit answered as `context`."
OPTIONS_HINT = (
    'Write {"estimator": "robust"}. Where the shell takes the quotes away, send a file: -F "options=<options.json".'
)
INFERENCE_EXAMPLE = (
    'Send {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": ["<base64 of a file>"]}]}. Where '
    "bytes follow the JSON, the header Inference-Header-Content-Length is the length of the JSON."
)
INFERENCE_HEAD = "The head of the body (Inference-Header-Content-Length)"
JSON_HINTS = {
    "The body": JSON_EXAMPLE,
    "the body": LATENTS_EXAMPLE,
    "options": OPTIONS_HINT,
    "The inference request": INFERENCE_EXAMPLE,
    INFERENCE_HEAD: "The header is the length of the JSON in front of the bytes of tensors. Clients of Triton and "
    "KServe leave it in the headers that they are given: give each request a copy.",
}
NO_NAN_HINT = "JSON has no NaN and no Infinity: leave such a value out."
NOT_FINITE = re.compile(rb"[:,\[]\s*-?(NaN|Infinity)\b")
# Texts up to so many bytes are looked through for a name that comes twice.
SMALL_JSON = 64 * 1024
BODY_NAMES = (b'"images"', b'"reference"', b'"context"', b'"options"', b'"latents"')


def read_json(
    text: bytes | memoryview, what: str, max_values: int, error_type: type[InvalidInput] = InvalidInput
) -> tuple[object, int]:
    """Return the value of a JSON text, and an upper bound of how many values it holds.

    Raises `error_type` where it is no JSON or has a name twice, and TooLarge beyond the limits.
    """
    content = _to_utf8(bytes(text))
    count = payload_limits.check_json(content, max_values)
    if len(content) > MOST_WIDE_JSON and (b"\\u" in content or not content.isascii()):
        raise TooLarge(
            f"{what} has {len(content)} bytes with characters beyond ASCII, each of which makes its text four times as "
            f"large; at most {MOST_WIDE_JSON} bytes may be so.",
            "Base64 has none, nor do numbers.",
        )
    try:
        value = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        came = (
            "" if content.lstrip()[:1] in b"{[" else f"; it begins with {quoted(content[:40].decode(errors='replace'))}"
        )
        hint = NO_NAN_HINT if NOT_FINITE.search(content) else JSON_HINTS.get(what, CONTEXT_HINT)
        raise error_type(f"{what} is not JSON: {error}{came}.", hint) from error
    if (name := _find_double(content)) is not None:
        raise error_type(
            f"{what} has {quoted(name)} twice in one object, where only one can count.", "Send each name once."
        )
    return value, count


def _to_utf8(content: bytes) -> bytes:
    """Return a text in UTF-8, without the byte order mark. PowerShell writes one, and UTF-16 where it redirects.

    UTF-16 and UTF-32 are known without a mark as well: every other byte, or three of four, are 0.
    """
    encoding = json.detect_encoding(content[:4])
    if not encoding.startswith("utf-8") and len(content) <= MOST_WIDE_JSON:
        return content.decode(encoding, errors="replace").encode(errors="replace")
    return content.removeprefix(codecs.BOM_UTF8)


def _find_double(content: bytes) -> str | None:
    """Return a name that an object of a JSON text has twice, None where none has.

    A large text is looked through only where a name of the body's own stands in it twice: that takes long.
    """
    if len(content) > SMALL_JSON and all(content.count(name) < 2 for name in BODY_NAMES):
        return None

    def check(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _NameTwice(name)
            seen.add(name)

    try:
        json.loads(content, object_pairs_hook=check)
    except _NameTwice as error:
        return str(error)
    except ValueError:  # a number of thousands of digits
        return None
    return None


class _NameTwice(Exception):
    """An object has this name twice."""


def read_object(options: object) -> dict[str, object]:
    if not isinstance(options, dict):
        raise InvalidOption("options is not a JSON object.", 'Write {"estimator": "robust"}.')
    return options
