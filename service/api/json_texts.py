"""JSON texts of a request: read within limits, with hints of what was expected."""

from __future__ import annotations

from pydantic_core import from_json

from service.api import payload_limits
from service.api.latents import LATENTS_EXAMPLE
from service.errors import InvalidInput, InvalidOption, TooLarge

# A text with a single character beyond ASCII takes up to four bytes for each of its characters.
MOST_WIDE_JSON = 16 * 1024 * 1024
JSON_EXAMPLE = 'Send {"images": ["<base64 of a file>", ...], "options": {...}}.'
CONTEXT_HINT = "Write what POST /fit answered as `context`."
INFERENCE_EXAMPLE = (
    'Send {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": ["<base64 of a file>"]}]}. Where '
    "bytes follow the JSON, the header Inference-Header-Content-Length is the length of the JSON."
)
INFERENCE_HEAD = "The head of the body (Inference-Header-Content-Length)"
JSON_HINTS = {
    "The body": JSON_EXAMPLE,
    "the body": LATENTS_EXAMPLE,
    "options": 'Write {"estimator": "robust"}.',
    "The inference request": INFERENCE_EXAMPLE,
    INFERENCE_HEAD: "The header is the length of the JSON in front of the bytes of tensors. Clients of Triton and "
    "KServe leave it in the headers that they are given: give each request a copy.",
}


def read_json(
    text: bytes | memoryview, what: str, max_values: int, error_type: type[InvalidInput] = InvalidInput
) -> tuple[object, int]:
    """Return the value of a JSON text, and an upper bound of how many values it holds."""
    count = payload_limits.check_json(text, max_values)
    content = bytes(text)
    if len(content) > MOST_WIDE_JSON and (b"\\u" in content or not content.isascii()):
        raise TooLarge(
            f"{what} has {len(content)} bytes with characters beyond ASCII, each of which makes its text four times as "
            f"large; at most {MOST_WIDE_JSON} bytes may be so.",
            "Base64 has none, nor do numbers.",
        )
    try:
        return from_json(content, allow_inf_nan=False), count
    except ValueError as error:
        raise error_type(f"{what} is not JSON: {error}.", JSON_HINTS.get(what, CONTEXT_HINT)) from error


def read_object(options: object) -> dict[str, object]:
    if not isinstance(options, dict):
        raise InvalidOption("options is not a JSON object.", 'Write {"estimator": "robust"}.')
    return options
