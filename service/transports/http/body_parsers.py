"""HTTP bodies to requests: every wire format, one result.

    multipart/form-data   repeated `images` and `reference` files, `context` and `options` as JSON parts
    application/x-npy     an array (N, H, W) or (N, H, W, C)
    application/zip       image files, or arrays in npy files (an .npz of `images` and `reference` is one)
    application/x-tar     the same in an uncompressed tar
    application/json      {"images": [base64, ...], "reference": [base64, ...], "context": {...}, "options": {...}}

A multipart file may itself be an npy, a zip or a tar. Options may also stand in the query, one by one
(`?estimator=robust`) or together (`?options={"estimator": "robust"}`).
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NoReturn
from urllib.parse import parse_qsl

from service.api.json_texts import JSON_EXAMPLE, read_json, read_object
from service.api.latents import LATENTS_EXAMPLE, check_latents
from service.api.option_merging import merge_options
from service.api.options import MOST_PICTURES
from service.api.requests import (
    ImagesRequest,
    OptionsT,
    RequestBuilder,
)
from service.api.uploads.mistaken_uploads import HEX_HEADS, explain_no_base64
from service.api.validation import read_contexts
from service.core.types import Float64Array
from service.errors import InvalidInput, InvalidOption, UndecodableImage, UnsupportedMediaType, quoted
from service.images import arrays
from service.images.formats import other_files
from service.settings import Settings
from service.transports.http import multipart

FIELDS = ("images", "reference", "context", "options")
URLENCODED = "application/x-www-form-urlencoded"
# What Windows and some libraries call a zip or a tar.
ALIASES = {
    "application/x-zip-compressed": "application/zip",
    "application/x-zip": "application/zip",
    "application/tar": "application/x-tar",
    "application/x-gtar": "application/x-tar",
}
MOST_FIELD_BYTES = 1_000_000
URL_ALPHABET = str.maketrans("-_", "+/")
JSON_IMAGES_HINT = f"{JSON_EXAMPLE} Send pixels as an npy array, application/x-npy: numpy.save."
TWICE_HINT = f"It was written as JSON twice, as by requests.post(json=json.dumps(...)): once will do. {JSON_EXAMPLE}"
# Options, and contexts to be merged.
MOST_JSON_PARTS = 1001
# The query's options: what an HTTP server takes as a URL is no longer.
MOST_QUERY_VALUES = 64 * 1024


def parse_images(
    content_type: str,
    query: Mapping[str, str | Sequence[str]],
    body: bytes,
    settings: Settings,
    options_type: type[OptionsT],
) -> ImagesRequest[OptionsT]:
    """Return the request in `body`. Raises InvalidInput or one of its kinds. Never fetches, unpickles or decodes."""
    media_type = content_type.partition(";")[0].strip().lower()
    builder = RequestBuilder(settings, len(body))
    media_type = ALIASES.get(media_type, media_type)
    reader = _READERS.get(media_type, _read_urlencoded if media_type == URLENCODED else _refuse)
    reader(builder, body, content_type)
    builder.options = merge_options(builder.options, _query_options(query), options_type)
    return builder.build(options_type)


def parse_latents(content_type: str, body: bytes, latent_dim: int) -> Float64Array:
    """Return latents (n, L) to be decoded, n from 1 to MOST_PICTURES: {"latents": [[...], ...]}, or an npy of floats.

    Raises UnsupportedMediaType, InvalidInput or ShapeMismatch.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-npy":
        latents = arrays.read_npy_latents(body)
    elif media_type == "application/json":
        content = read_json(body, "the body", (latent_dim + 2) * MOST_PICTURES)[0]
        if not isinstance(content, dict) or content.keys() != {"latents"}:
            raise InvalidInput("The body has no latents, or more than them.", LATENTS_EXAMPLE)
        latents = content["latents"]
    else:
        raise UnsupportedMediaType(
            f"Content-Type is {content_type or 'missing'}; expected application/json or application/x-npy.",
            LATENTS_EXAMPLE,
        )
    return check_latents(latents, latent_dim)


def _read_multipart(builder: RequestBuilder, body: bytes, content_type: str) -> None:
    max_parts = builder.max_images + MOST_JSON_PARTS
    for part in multipart.split(body, multipart.boundary_of(content_type), max_parts):
        if not part.content and (not part.filename or part.name in ("context", "options")):
            continue  # a browser sends a field that was left empty, Swagger UI as a file: it counts as absent
        if part.name == "options":
            builder.add_options(part.content)
        elif part.name == "context":
            builder.add_contexts(part.content, "context")
        elif part.name in ("images", "reference"):
            builder.get_uploads(part.name)
            builder.add_file(part.name, part.content, part.filename or "")
        else:
            raise InvalidInput(
                f"The form has a field {quoted(part.name)}; known fields are {', '.join(FIELDS)}.",
                'Call the field of every image "images", as -F "images=@a.png" does; all options are one JSON field.',
            )


def _read_npy(builder: RequestBuilder, body: bytes, content_type: str) -> None:
    builder.add_rows("images", body)


def _read_archive(builder: RequestBuilder, body: bytes, content_type: str) -> None:
    builder.add_archive("images", body)


def _read_json(builder: RequestBuilder, body: bytes, content_type: str) -> None:
    content = builder.parse_json(body, "The body")
    if not isinstance(content, dict) or (content.keys() - set(FIELDS)):
        description = f"fields {', '.join(sorted(content))}" if isinstance(content, dict) else type(content).__name__
        hint = TWICE_HINT if isinstance(content, str) else JSON_EXAMPLE
        raise InvalidInput(f"The body has {description}; expected {', '.join(FIELDS)}.", hint)
    for field in ("images", "reference"):
        files = content.get(field)
        if files is None:
            continue
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            raise InvalidInput(f"{field} is {_describe(files)}, expected a list of base64 strings.", JSON_IMAGES_HINT)
        builder.get_uploads(field)
        for file in files:
            builder.add(field, "", partial(_from_base64, file))
    if content.get("context"):
        builder.contexts += read_contexts(content["context"])
    options = content.get("options") or {}
    if not isinstance(options, dict):
        raise InvalidOption(f"options is {type(options).__name__}, expected an object.", JSON_EXAMPLE)
    builder.options |= options


def _read_urlencoded(builder: RequestBuilder, body: bytes, content_type: str) -> None:
    """Read what BentoML's client makes of a form without files. curl uses the same type for any body without a type."""
    fields = parse_qsl(body[:MOST_FIELD_BYTES].decode("latin-1"))
    if not fields or len(body) > MOST_FIELD_BYTES or {name for name, _ in fields} - {"context", "options"}:
        _refuse(builder, body, content_type)
    for name, value in fields:
        if name == "options":
            builder.add_options(value.encode())
        else:
            builder.add_contexts(value.encode(), "context")


def _refuse(builder: RequestBuilder, body: bytes, content_type: str) -> NoReturn:
    kind = other_files.identify_any(body)
    raise UnsupportedMediaType(
        f"Content-Type is {content_type or 'missing'}; expected one of {', '.join(_READERS)}.",
        "gRPC has a port of its own (MISFIT_GRPC_PORT), and gRPC-Web is not spoken."
        if content_type.lower().startswith("application/grpc")
        else f"The body is {kind.name}. {kind.hint}"
        if kind
        else 'With curl send files as -F "images=@a.png", or an array as '
        '-H "Content-Type: application/x-npy" --data-binary @images.npy.',
    )


def _describe(files: object) -> str:
    """Return what came in place of a list of texts."""
    if not isinstance(files, list):
        return type(files).__name__
    return f"a list with {next(type(file).__name__ for file in files if not isinstance(file, str))} in it"


def _from_base64(text: str) -> bytes:
    """Return the bytes of base64, in lines or in one, in the alphabet of URLs as well, with or without padding."""
    # A space within a line was a + that a form or a query has decoded: to drop it would give other bytes.
    compact = "".join(line.strip() for line in text.splitlines())
    if "-" in compact or "_" in compact:
        compact = compact.translate(URL_ALPHABET)
    if compact.startswith(HEX_HEADS):  # no image begins so in base64
        raise UndecodableImage(f"{text[:24]!r}... is hexadecimal, expected base64.", JSON_EXAMPLE)
    try:
        return binascii.a2b_base64(compact + "=" * (-len(compact) % 4), strict_mode=True)
    except ValueError as error:
        raise UndecodableImage(
            f"{text[:24]!r}{'...' if len(text) > 24 else ''} is not base64: {error}.", explain_no_base64(text.strip())
        ) from error


def _query_options(query: Mapping[str, str | Sequence[str]]) -> dict[str, object]:
    """Return the options of a query. A name that comes several times has a list, which is an error but for lists.

    A name without a value counts as absent: forms and Swagger UI send them.
    """
    content: dict[str, object] = {name: value for name, value in query.items() if name != "options" and value}
    texts = query.get("options") or ()
    for text in [texts] if isinstance(texts, str) else texts:
        content |= read_object(read_json(text.encode(), "options", MOST_QUERY_VALUES, InvalidOption)[0])
    return content


_READERS: dict[str, Callable[[RequestBuilder, bytes, str], None]] = {
    "multipart/form-data": _read_multipart,
    "application/x-npy": _read_npy,
    "application/zip": _read_archive,
    "application/x-tar": _read_archive,
    "application/json": _read_json,
}
MEDIA_TYPES = tuple(_READERS)
