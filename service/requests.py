"""Request bodies to uploads, contexts and options: every wire format, one result. No image is decoded here.

    multipart/form-data   repeated `images` and `reference` files, `context` and `options` as JSON parts
    application/x-npy     uint8 (N, H, W) or (N, H, W, C)
    application/zip       image files, or arrays in npy files (an .npz of `images` and `reference` is one)
    application/x-tar     the same in an uncompressed tar
    application/json      {"images": [base64, ...], "reference": [base64, ...], "context": {...}, "options": {...}}

A multipart file may itself be an npy, a zip or a tar. In an archive, what lies in a folder `reference`
or is called `reference.npy` belongs to the reference set, and `context.json` is a context. Several contexts
are merged. Options may also stand in the query, one by one (`?estimator=robust`) or together
(`?options={"estimator": "robust"}`).
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Generic, NoReturn, TypeVar
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import from_json

from service import archives, edits, multipart, structure
from service.errors import (
    InvalidInput,
    InvalidOption,
    ShapeMismatch,
    TooManyImages,
    UndecodableImage,
    UnsupportedMediaType,
)
from service.images import Uint8Array, Upload
from service.options import MOST_PICTURES, Options
from service.schemas import PortableContext
from service.settings import Settings

FIELDS = ("images", "reference", "context", "options")
JSON_EXAMPLE = 'Send {"images": ["<base64 of a file>", ...], "options": {...}}.'
LATENTS_EXAMPLE = 'Send {"latents": [[0.1, -1.3, ...], ...]}, as POST /encode answers them in `mean`.'
CONTEXT_HINT = "Write what POST /fit answered as `context`."
JSON_HINTS = {"The body": JSON_EXAMPLE, "the body": LATENTS_EXAMPLE, "options": 'Write {"estimator": "robust"}.'}
URLENCODED = "application/x-www-form-urlencoded"
MOST_FIELD_BYTES = 1_000_000
# Options, and contexts to be merged.
MOST_JSON_PARTS = 1001
# The query's options: what an HTTP server takes as a URL is no longer.
MOST_QUERY_VALUES = 64 * 1024

OptionsT = TypeVar("OptionsT", bound=Options)
OptionsT_co = TypeVar("OptionsT_co", bound=Options, covariant=True)


@dataclass(frozen=True)
class ImagesRequest(Generic[OptionsT_co]):
    """What an endpoint works on. Without `reference` and `contexts` the images are their own context."""

    images: Sequence[Upload]
    reference: Sequence[Upload] | None
    contexts: Sequence[PortableContext]
    options: OptionsT_co

    @property
    def size(self) -> int:
        """Rows that the networks will see at least."""
        return len(self.images) + len(self.reference or ()) + self.options.pictures


def parse(
    content_type: str,
    query: Mapping[str, str],
    body: bytes,
    settings: Settings,
    options_type: type[OptionsT],
) -> ImagesRequest[OptionsT]:
    """The request in `body`. Raises InvalidInput or one of its kinds; never fetches, unpickles or decodes."""
    media_type = content_type.partition(";")[0].strip().lower()
    gathered = Gathered(settings)
    reader = _READERS.get(media_type, _read_urlencoded if media_type == URLENCODED else _refuse)
    reader(gathered, body, content_type)
    options = _query_options(query)
    if twice := options.keys() & gathered.options.keys():
        raise InvalidOption(f"Given both in the query and in the body: {', '.join(sorted(twice))}.")
    gathered.options |= options
    return gathered.request(options_type)


def no_images(what: str = "images") -> InvalidInput:
    return InvalidInput(f"The request has 0 {what}.", "Send at least one.")


def read_options(given: Mapping[str, object], options_type: type[OptionsT]) -> OptionsT:
    """Raises InvalidOption, naming what is wrong and what there is."""
    if unknown := given.keys() - options_type.model_fields.keys():
        raise InvalidOption(
            f"Unknown option: {', '.join(sorted(unknown))}.",
            f"Known options are {', '.join(options_type.model_fields)}.",
        )
    try:
        return options_type.model_validate(given)
    except ValidationError as error:
        raise InvalidOption(_problems(error), "GET /docs.json describes every option.") from error


def parse_latents(content_type: str, body: bytes, latent_dim: int) -> NDArray[np.float64]:
    """Latents (n, L) to be decoded, n from 1 to MOST_PICTURES: {"latents": [[...], ...]}, or an npy of floats.

    Raises UnsupportedMediaType, InvalidInput or ShapeMismatch.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-npy":
        latents = archives.read_npy_latents(body)
    elif media_type == "application/json":
        given = _json(body, "the body", (latent_dim + 2) * MOST_PICTURES)[0]
        if not isinstance(given, dict) or given.keys() != {"latents"}:
            raise InvalidInput("The body has no latents, or more than them.", LATENTS_EXAMPLE)
        latents = given["latents"]
    else:
        raise UnsupportedMediaType(
            f"Content-Type is {content_type or 'missing'}; expected application/json or application/x-npy.",
            LATENTS_EXAMPLE,
        )
    return check_latents(latents, latent_dim)


def check_latents(given: object, latent_dim: int) -> NDArray[np.float64]:
    """Latents (n, L), n from 1 to MOST_PICTURES, if that is what `given` holds.

    Raises InvalidInput or ShapeMismatch.
    """
    try:
        latents = np.array(given, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"latents is no table of numbers: {error}.", LATENTS_EXAMPLE) from error
    if latents.ndim != 2 or latents.shape[1] != latent_dim:
        raise ShapeMismatch(f"latents has shape {latents.shape}, expected (n, {latent_dim}).", LATENTS_EXAMPLE)
    if not 1 <= len(latents) <= MOST_PICTURES:
        raise InvalidInput(f"{len(latents)} latents came, expected 1 to {MOST_PICTURES}.", "Send them in parts.")
    if not (np.abs(latents) <= edits.FURTHEST).all():  # nan fails as well
        raise InvalidInput(
            f"latents holds values that are not finite, or beyond {edits.FURTHEST:g}.", "Usual ones are within 3."
        )
    return latents


def read_contexts(given: object) -> list[PortableContext]:
    """One context, or a list of them, as /fit answered. Raises InvalidInput, naming what is wrong."""
    try:
        return [PortableContext.model_validate(context) for context in (given if isinstance(given, list) else [given])]
    except ValidationError as error:
        raise InvalidInput(
            f"The context cannot be used: {_problems(error)}", "Send what `context` was in the answer of POST /fit."
        ) from error


def _problems(error: ValidationError) -> str:
    problems = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ") for fault in error.errors()]
    return f"{'; '.join(problems[:3])}."


class Gathered:
    """What a request holds, gathered file by file and kept within the limits."""

    def __init__(self, settings: Settings) -> None:
        self.images: list[Upload] = []
        self.reference: list[Upload] | None = None
        self.contexts: list[PortableContext] = []
        self.options: dict[str, object] = {}
        self.max_images = settings.max_images
        self._bytes_left = settings.max_body_bytes  # of what the archives unpack to, all together
        self._values_left = settings.max_values  # in all that is JSON

    def request(self, options_type: type[OptionsT], *, in_chunks: bool = False) -> ImagesRequest[OptionsT]:
        """All of it; where the images come `in_chunks`, this one may be without any.

        Raises InvalidInput where images are missing, InvalidOption where the options do not fit.
        """
        instead = in_chunks or (options_type.images_needed == "unless context" and bool(self.contexts))
        if not self.images and not instead:
            raise no_images()
        if self.reference == []:
            raise no_images("reference images")
        chosen = read_options(self.options, options_type)
        if self.contexts and (self.reference is not None or "estimator" in chosen.model_fields_set):
            given = "a reference set" if self.reference is not None else "an estimator"
            raise InvalidOption(
                f"Given both a context and {given}: what is normal is then said twice.",
                "A context was fitted before, with an estimator of its own: send it alone.",
            )
        return ImagesRequest(self.images, self.reference, self.contexts, chosen)

    def json(self, text: bytes | memoryview, what: str, error_type: type[InvalidInput] = InvalidInput) -> object:
        """What the text says. Raises `error_type`, or TooLarge where all texts together hold too many values."""
        given, values = _json(text, what, self._values_left, error_type)
        self._values_left -= values
        return given

    def add_options(self, text: bytes | memoryview) -> None:
        self.options |= _object(self.json(text, "options", InvalidOption))

    def add_contexts(self, text: bytes | memoryview, what: str) -> None:
        self.contexts += read_contexts(self.json(text, what))

    def part(self, field: str) -> list[Upload]:
        """The uploads of `images` or `reference`, which from now on is there even if nothing comes."""
        if field == "reference" and self.reference is None:
            self.reference = []
        return self.images if self.reference is None or field == "images" else self.reference

    def add_file(self, field: str, content: bytes | memoryview, name: str) -> None:
        """Add one file: an image, or an npy, zip or tar of images. Without a name it is called by its place."""
        if content[:6] == b"\x93NUMPY":
            self.add_rows(field, content, name)
        elif content[:4] in (b"PK\x03\x04", b"PK\x05\x06") or content[257:262] == b"ustar":
            self.add_archive(field, content)
        else:
            self.add_image(field, content, name or str(len(self.part(field))))

    def add_image(self, field: str, content: bytes | memoryview | Uint8Array, name: str) -> None:
        """Add one image: a file's bytes, or pixels uint8 (H, W) or (H, W, C)."""
        self.add(field, Upload(name, lambda: content))

    def add_rows(self, field: str, content: bytes | memoryview, name: str = "") -> None:
        for row, pixels in enumerate(archives.read_npy(content)):
            self.add_image(field, pixels, f"{name}[{row}]" if name else str(len(self.part(field))))

    def add_archive(self, field: str, content: bytes | memoryview) -> None:
        members = archives.read_archive(content, self.max_images, self._bytes_left)
        self._bytes_left -= sum(member.size for member in members)
        for member in members:
            path = PurePosixPath(member.name)
            if path.name == "context.json":
                self.add_contexts(member.read(), "context.json")
                continue
            own_field = "reference" if "reference" in (*path.parts[:-1], path.stem) else field
            if path.suffix == ".npy":
                self.add_rows(own_field, member.read(), member.name)
            else:
                self.add(own_field, Upload(member.name, member.read))

    def add(self, field: str, upload: Upload) -> None:
        self.part(field).append(upload)
        if len(self.images) + len(self.reference or ()) > self.max_images:
            raise TooManyImages(
                f"The request has more than {self.max_images} images, reference included.",
                "Send them in several requests, with a reference set so that the context stays the same.",
            )


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
                f"The form has a field {part.name!r}; known fields are {', '.join(FIELDS)}.",
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
        for position, file in enumerate(files):
            gathered.add(field, Upload(str(position), partial(_from_base64, file)))
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
        given |= _object(_json(query["options"].encode(), "options", MOST_QUERY_VALUES, InvalidOption)[0])
    return given


def _object(options: object) -> dict[str, object]:
    if not isinstance(options, dict):
        raise InvalidOption("options is not a JSON object.", 'Write {"estimator": "robust"}.')
    return options


def _json(
    text: bytes | memoryview, what: str, most_values: int, error_type: type[InvalidInput] = InvalidInput
) -> tuple[object, int]:
    """What the text says, and of how many values it may be made."""
    values = structure.check_json(text, most_values)
    try:
        return from_json(bytes(text), allow_inf_nan=False), values
    except ValueError as error:
        raise error_type(f"{what} is not JSON: {error}.", JSON_HINTS.get(what, CONTEXT_HINT)) from error


_READERS: dict[str, Callable[[Gathered, bytes, str], None]] = {
    "multipart/form-data": _read_multipart,
    "application/x-npy": _read_npy,
    "application/zip": _read_archive,
    "application/x-tar": _read_archive,
    "application/json": _read_json,
}
MEDIA_TYPES = tuple(_READERS)
