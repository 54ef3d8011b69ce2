"""Requests of images: uploads, contexts and options, gathered within the limits. No image is decoded here.

In an archive, files in a folder `reference` and an array `reference.npy` belong to the reference set, and
`context.json` is a context. Several contexts are merged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Generic, TypeVar

import numpy as np
from pydantic import ValidationError
from pydantic_core import from_json

from service.api import payload_limits
from service.api.options import MOST_PICTURES, Options
from service.api.schemas import PortableContext
from service.core.edit import limits
from service.core.types import Float64Array
from service.errors import (
    LONGEST_QUOTE,
    InvalidInput,
    InvalidOption,
    ShapeMismatch,
    TooLarge,
    TooManyImages,
    quoted,
    readable,
)
from service.images import archives, arrays
from service.images.decode import Upload
from service.images.decode_budget import DecodeBudget
from service.images.page_uploads import split_pages
from service.images.reading import Reading
from service.images.sample_range import Samples
from service.settings import MIB, Settings

# A text with a single character beyond ASCII takes up to four bytes for each of its characters.
MOST_WIDE_JSON = 16 * 1024 * 1024
JSON_EXAMPLE = 'Send {"images": ["<base64 of a file>", ...], "options": {...}}.'
LATENTS_EXAMPLE = 'Send {"latents": [[0.1, -1.3, ...], ...]}, as POST /encode answers them in `mean`.'
CONTEXT_HINT = "Write what POST /fit answered as `context`."
JSON_HINTS = {"The body": JSON_EXAMPLE, "the body": LATENTS_EXAMPLE, "options": 'Write {"estimator": "robust"}.'}

LARGEST_EXACT = 2**53  # a double's whole numbers are exact below

# What archives may unpack to: so much in any case, and so many bytes more for each byte of the body.
FREE_UNPACKED_BYTES, UNPACKED_PER_BYTE = 64 * MIB, 64
# Files of a request that are unpacked at a time (`service.pipeline.chunked_inference`: so many chunks of so many rows).
UNPACKED_AT_A_TIME = 4 * 128

OptionsT = TypeVar("OptionsT", bound=Options)
OptionsT_co = TypeVar("OptionsT_co", bound=Options, covariant=True)


@dataclass(frozen=True)
class ImagesRequest(Generic[OptionsT_co]):
    """The input of an endpoint that takes images. Without `reference` and `contexts` the images are their own context.

    budget          limits what decoding the images may take
    unpacked_bytes  memory that archives take beside the body
    """

    images: Sequence[Upload]
    reference: Sequence[Upload] | None
    contexts: Sequence[PortableContext]
    options: OptionsT_co
    budget: DecodeBudget = field(default_factory=DecodeBudget.unlimited)
    unpacked_bytes: int = 0

    @cached_property
    def reading(self) -> Reading:
        """Return how the images are read, with what is noted of them so far: one object for the whole request."""
        return Reading.of(self.uploads, self.options.range)

    @property
    def uploads(self) -> Sequence[Upload]:
        """Return all images, those of the reference included."""
        return [*self.images, *(self.reference or ())]

    @property
    def size(self) -> int:
        """Return how many rows the networks will see at least."""
        return len(self.images) + len(self.reference or ()) + self.options.pictures


class RequestBuilder:
    """Builds a request from its files, one by one, and keeps it within the limits."""

    def __init__(self, settings: Settings, sent_bytes: int) -> None:
        """Start an empty request, whose body has `sent_bytes` bytes."""
        self._budget = DecodeBudget.of(settings, sent_bytes)
        self._unpacked_bytes = 0
        self.images: list[Upload] = []
        self.reference: list[Upload] | None = None
        self.contexts: list[PortableContext] = []
        self.options: dict[str, object] = {}
        self.max_images = settings.max_images
        # Of what the archives unpack to, all together.
        self._bytes_left = min(settings.max_body_bytes, FREE_UNPACKED_BYTES + UNPACKED_PER_BYTE * sent_bytes)
        self._values_left = settings.max_values  # in all that is JSON

    def build(self, options_type: type[OptionsT], *, in_chunks: bool = False) -> ImagesRequest[OptionsT]:
        """Return the request. Where the images come `in_chunks`, this chunk may have none.

        Raises InvalidInput where images are missing, InvalidOption where the options do not fit.
        """
        may_be_empty = in_chunks or (options_type.images_needed == "unless context" and bool(self.contexts))
        if not self.images and not may_be_empty:
            raise no_images()
        if self.reference == []:
            raise no_images("reference images")
        options = read_options(self.options, options_type)
        if self.contexts and (self.reference is not None or getattr(options, "estimator", None) is not None):
            second_source = "a reference set" if self.reference is not None else "an estimator"
            raise InvalidOption(
                f"Given both a context and {second_source}: what is normal is then said twice.",
                "A context was fitted before, with an estimator of its own: send it alone.",
            )
        if options.pages == "all":
            self.images = split_pages(self.images, self.max_images)
            self.reference = None if self.reference is None else split_pages(self.reference, self.max_images)
            self._check_count()
        return ImagesRequest(self.images, self.reference, self.contexts, options, self._budget, self._unpacked_bytes)

    def _check_count(self) -> None:
        if len(self.images) + len(self.reference or ()) > self.max_images:
            raise TooManyImages(
                f"The request has more than {self.max_images} images, reference included.",
                "Send them in several requests, with a reference set so that the context stays the same.",
            )

    def parse_json(self, text: bytes | memoryview, what: str, error_type: type[InvalidInput] = InvalidInput) -> object:
        """Return the value of a JSON text. Raises `error_type`, or TooLarge where all texts together hold too many
        values.
        """
        value, count = read_json(text, what, self._values_left, error_type)
        self._values_left -= count
        return value

    def add_options(self, text: bytes | memoryview) -> None:
        self.options |= read_object(self.parse_json(text, "options", InvalidOption))

    def add_contexts(self, text: bytes | memoryview, what: str) -> None:
        self.contexts += read_contexts(self.parse_json(text, what))

    def get_uploads(self, field: str) -> list[Upload]:
        """Return the list of uploads of `images` or `reference`. Once asked for, a reference set exists, even if
        empty."""
        if field == "reference" and self.reference is None:
            self.reference = []
        return self.images if self.reference is None or field == "images" else self.reference

    def add_file(self, field: str, content: bytes | memoryview, name: str) -> None:
        """Add one file: an image, or an npy, zip or tar of images."""
        if content[:6] == b"\x93NUMPY":
            self.add_rows(field, content, name)
        elif content[:4] in (b"PK\x03\x04", b"PK\x05\x06") or content[257:262] == b"ustar":
            self.add_archive(field, content)
        else:
            self.add_image(field, content, name)

    def add_image(self, field: str, content: bytes | memoryview | Samples, name: str) -> None:
        """Add one image: a file's bytes, or pixels (H, W) or (H, W, C)."""
        self.add(field, name, lambda: content)

    def add_rows(self, field: str, content: bytes | memoryview, name: str = "") -> None:
        for row, pixels in enumerate(arrays.read_npy(content)):
            self.add_image(field, pixels, f"{name}[{row}]" if name else "")

    def add_archive(self, field: str, content: bytes | memoryview) -> None:
        members = archives.read_archive(content, self.max_images, self._bytes_left)
        self._bytes_left -= sum(member.size for member in members)
        # Arrays stay unpacked, other files only while they are decoded.
        files = [member.size for member in members if not member.name.endswith(".npy")]
        self._unpacked_bytes += sum(sorted(files)[-UNPACKED_AT_A_TIME:])
        for member in members:
            path = PurePosixPath(member.name)
            if path.name == "context.json":
                self.add_contexts(member.read(), "context.json")
                continue
            own_field = "reference" if "reference" in (*path.parts[:-1], path.stem) else field
            if path.suffix == ".npy":
                self._unpacked_bytes += member.size
                for row, read in enumerate(archives.npy_rows(member)):
                    self.add(own_field, f"{member.name}[{row}]", read)
            else:
                self.add(own_field, member.name, member.read)

    def add(self, field: str, name: str, read: Callable[[], bytes | memoryview | Samples]) -> None:
        """Add the image that `read` returns. Its id is the readable part of `name`, or else its place in the list."""
        uploads = self.get_uploads(field)
        uploads.append(Upload(readable(name) or str(len(uploads)), read))
        self._check_count()


def no_images(what: str = "images") -> InvalidInput:
    return InvalidInput(f"The request has 0 {what}.", "Send at least one.")


def read_options(values: Mapping[str, object], options_type: type[OptionsT]) -> OptionsT:
    """Return the options. Raises InvalidOption that names what is wrong, and what the options are."""
    if unknown := values.keys() - options_type.model_fields.keys():
        raise InvalidOption(
            f"Unknown option: {', '.join(map(_cut_name, sorted(unknown)[:3]))}.",
            f"Known options are {', '.join(options_type.model_fields)}.",
        )
    try:
        return options_type.model_validate(values)
    except ValidationError as error:
        raise InvalidOption(_describe_problems(error), "GET /docs.json describes every option.") from error


def read_contexts(value: object) -> list[PortableContext]:
    """Return one context, or a list of them, as /fit answered them. Raises InvalidInput that names what is wrong."""
    try:
        contexts = value if isinstance(value, list) else [value]
        return [PortableContext.model_validate(context) for context in contexts]
    except ValidationError as error:
        raise InvalidInput(
            f"The context cannot be used: {_describe_problems(error)}",
            "Send what `context` was in the answer of POST /fit.",
        ) from error


def check_latents(values: object, latent_dim: int) -> Float64Array:
    """Return `values` as latents (n, L), n from 1 to MOST_PICTURES.

    Raises InvalidInput or ShapeMismatch.
    """
    try:
        latents = np.array(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:  # the last of a whole number that no double holds
        raise InvalidInput(f"latents is no table of numbers: {error}.", LATENTS_EXAMPLE) from error
    if latents.ndim != 2 or latents.shape[1] != latent_dim:
        raise ShapeMismatch(f"latents has shape {latents.shape}, expected (n, {latent_dim}).", LATENTS_EXAMPLE)
    if not 1 <= len(latents) <= MOST_PICTURES:
        raise InvalidInput(f"{len(latents)} latents came, expected 1 to {MOST_PICTURES}.", "Send them in parts.")
    if not (np.abs(latents) <= limits.FURTHEST).all():  # nan fails as well
        raise InvalidInput(
            f"latents holds values that are not finite, or beyond {limits.FURTHEST:g}.",
            "Usual ones are within 3.",
        )
    return latents


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


def _describe_problems(error: ValidationError) -> str:
    """Return the first three problems in words: where, what was expected and, of a single value, what came."""
    problems = []
    for fault in error.errors(include_url=False)[:3]:
        where, value = ".".join(map(str, fault["loc"])), fault["input"]
        text = f"{_cut_name(where)}: {fault['msg']}".removeprefix(": ")
        if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_EXACT:
            value = int(value)  # protobuf makes 2.0 of 2, and both are told alike
        # Words travel as numbers over gRPC: which one came is not known there.
        is_told = fault["type"] not in ("missing", "literal_error")
        is_told &= value is None or isinstance(value, bool | int | float | str)
        problems.append(f"{text}, {quoted(value)} came" if is_told else text)
    return f"{'; '.join(problems)}."


def _cut_name(name: str) -> str:
    """Return a name that a client made up, without quotes and no longer than usual."""
    return name if len(name) <= LONGEST_QUOTE else f"{name[:LONGEST_QUOTE]}..."
