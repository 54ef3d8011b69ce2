"""HTTP bodies to requests: every wire format, one result.

    multipart/form-data   repeated `images` and `reference` files, `context` and `options` as JSON parts
    application/x-npy     uint8 (N, H, W) or (N, H, W, C)
    application/zip       image files, or arrays in npy files (an .npz of `images` and `reference` is one)
    application/x-tar     the same in an uncompressed tar
    application/json      {"images": [base64, ...], "reference": [base64, ...], "context": {...}, "options": {...}}

A multipart file may itself be an npy, a zip or a tar. Options may also stand in the query, one by one
(`?estimator=robust`) or together (`?options={"estimator": "robust"}`).
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from functools import partial
from typing import NoReturn
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from service.api.options import MOST_PICTURES
from service.api.requests import (
    JSON_EXAMPLE,
    LATENTS_EXAMPLE,
    Gathered,
    ImagesRequest,
    OptionsT,
    check_latents,
    read_contexts,
    read_json,
    read_object,
)
from service.errors import InvalidInput, InvalidOption, UndecodableImage, UnsupportedMediaType, quoted
from service.images import arrays
from service.settings import Settings
from service.transports.http import multipart

FIELDS = ("images", "reference", "context", "options")
URLENCODED = "application/x-www-form-urlencoded"
MOST_FIELD_BYTES = 1_000_000
# Options, and contexts to be merged.
MOST_JSON_PARTS = 1001
# The query's options: what an HTTP server takes as a URL is no longer.
MOST_QUERY_VALUES = 64 * 1024


def parse_images(
    content_type: str,
    query: Mapping[str, str],
    body: bytes,
    settings: Settings,
    options_type: type[OptionsT],
) -> ImagesRequest[OptionsT]:
    """The request in `body`. Raises InvalidInput or one of its kinds; never fetches, unpickles or decodes."""
    media_type = content_type.partition(";")[0].strip().lower()
    gathered = Gathered(settings, len(body))
    reader = _READERS.get(media_type, _read_urlencoded if media_type == URLENCODED else _refuse)
    reader(gathered, body, content_type)
    options = _query_options(query)
    if twice := options.keys() & gathered.options.keys():
        raise InvalidOption(f"Given both in the query and in the body: {', '.join(sorted(twice))}.")
    gathered.options |= options
    return gathered.request(options_type)


def parse_latents(content_type: str, body: bytes, latent_dim: int) -> NDArray[np.float64]:
    """Latents (n, L) to be decoded, n from 1 to MOST_PICTURES: {"latents": [[...], ...]}, or an npy of floats.

    Raises UnsupportedMediaType, InvalidInput or ShapeMismatch.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-npy":
        latents = arrays.read_npy_latents(body)
    elif media_type == "application/json":
        given = read_json(body, "the body", (latent_dim + 2) * MOST_PICTURES)[0]
        if not isinstance(given, dict) or given.keys() != {"latents"}:
            raise InvalidInput("The body has no latents, or more than them.", LATENTS_EXAMPLE)
        latents = given["latents"]
    else:
        raise UnsupportedMediaType(
            f"Content-Type is {content_type or 'missing'}; expected application/json or application/x-npy.",
            LATENTS_EXAMPLE,
        )
    return check_latents(latents, latent_dim)


def _read_multipart(gathered: Gathered, body: bytes, content_type: str) -> None:
    max_parts = gathered.max_images + MOST_JSON_PARTS
    for part in multipart.split(body, multipart.boundary_of(content_type), max_parts):
        if part.name == "options":
            gathered.add_options(part.content)
        elif part.name == "context":
            gathered.add_contexts(part.content, "context")
        elif part.name in ("images", "reference"):
            gathered.part(part.name)
            gathered.add_file(part.name, part.content, part.filename or "")
        else:
            raise InvalidInput(
                f"The form has a field {quoted(part.name)}; known fields are {', '.join(FIELDS)}.",
                'Write -F "images=@a.png" for every image, and the options as one JSON field.',
            )


def _read_npy(gathered: Gathered, body: bytes, content_type: str) -> None:
    gathered.add_rows("images", body)


def _read_archive(gathered: Gathered, body: bytes, content_type: str) -> None:
    gathered.add_archive("images", body)


def _read_json(gathered: Gathered, body: bytes, content_type: str) -> None:
    given = gathered.json(body, "The body")
    if not isinstance(given, dict) or (given.keys() - set(FIELDS)):
        came = f"fields {', '.join(sorted(given))}" if isinstance(given, dict) else type(given).__name__
        raise InvalidInput(f"The body has {came}; expected {', '.join(FIELDS)}.", JSON_EXAMPLE)
    for field in ("images", "reference"):
        files = given.get(field)
        if files is None:
            continue
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            raise InvalidInput(f"{field} is not a list of base64 strings.", JSON_EXAMPLE)
        gathered.part(field)
        for file in files:
            gathered.add(field, "", partial(_from_base64, file))
    if given.get("context"):
        gathered.contexts += read_contexts(given["context"])
    options = given.get("options") or {}
    if not isinstance(options, dict):
        raise InvalidOption(f"options is {type(options).__name__}, expected an object.", JSON_EXAMPLE)
    gathered.options |= options


def _read_urlencoded(gathered: Gathered, body: bytes, content_type: str) -> None:
    """What BentoML's client makes of a form without files. Curl says so too of any body whose type it was not told."""
    fields = parse_qsl(body[:MOST_FIELD_BYTES].decode("latin-1"))
    if not fields or len(body) > MOST_FIELD_BYTES or {name for name, _ in fields} - {"context", "options"}:
        _refuse(gathered, body, content_type)
    for name, value in fields:
        if name == "options":
            gathered.add_options(value.encode())
        else:
            gathered.add_contexts(value.encode(), "context")


def _refuse(gathered: Gathered, body: bytes, content_type: str) -> NoReturn:
    raise UnsupportedMediaType(
        f"Content-Type is {content_type or 'missing'}; expected one of {', '.join(_READERS)}.",
        'With curl send files as -F "images=@a.png", or an array as '
        '-H "Content-Type: application/x-npy" --data-binary @images.npy.',
    )


def _from_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except ValueError as error:
        raise UndecodableImage(
            f"{text[:24]!r}... is not base64: {error}.",
            "Send the base64 of the file's bytes and nothing else. URLs are never fetched.",
        ) from error


def _query_options(query: Mapping[str, str]) -> dict[str, object]:
    given: dict[str, object] = {name: value for name, value in query.items() if name != "options"}
    if "options" in query:
        given |= read_object(read_json(query["options"].encode(), "options", MOST_QUERY_VALUES, InvalidOption)[0])
    return given


_READERS: dict[str, Callable[[Gathered, bytes, str], None]] = {
    "multipart/form-data": _read_multipart,
    "application/x-npy": _read_npy,
    "application/zip": _read_archive,
    "application/x-tar": _read_archive,
    "application/json": _read_json,
}
MEDIA_TYPES = tuple(_READERS)
