"""Split a multipart/form-data body that is already in memory, without copying its parts.

python-multipart parses; Starlette's form reader around it would spool every part to a file of its own.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

from service.errors import InvalidInput, TooManyImages, quoted
from service.images.archive_names import UNIX_ENCODINGS, decode_names

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# What it warns of is told to the client, who could fill the log with it.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


# The parameter filename*=UTF-8''Gr%C3%B6%C3%9Fe.png: encoding, language, name.
EXTENDED_NAME = re.compile(rb""";\s*filename\*\s*=\s*"?([A-Za-z0-9_-]+)'[^']*'([^";\s]+)""", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    name: str
    filename: str | None
    content: memoryview


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a multipart Content-Type names. Raises InvalidInput where there is none."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise InvalidInput(
            f"Content-Type {content_type!r} names no boundary.",
            "Let the client set Content-Type by itself: curl -F does, and so do HTTP libraries given files.",
        )
    return boundary


def split(body: bytes, boundary: bytes, max_parts: int) -> list[Part]:
    """Return the parts of `body` in order (RFC 7578).

    Raises InvalidInput where it is malformed or cut short, TooManyImages beyond `max_parts`.
    """
    collector = _Collector(max_parts)
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(_skip_preamble(body, boundary))
    except FormParserError as error:
        raise InvalidInput(
            f"The multipart body of {len(body)} bytes is malformed: {error}.",
            "Let an HTTP library or curl -F build it.",
        ) from error
    if parser.state != MultipartState.END:
        raise InvalidInput(
            f"The multipart body of {len(body)} bytes ends before its closing boundary.",
            "It was cut short, or its boundary is not the one in Content-Type.",
        )
    return collector.build_parts()


def _skip_preamble(body: bytes, boundary: bytes) -> bytes:
    """Return `body` from its first boundary on. Text before it means nothing (RFC 2046, section 5.1.1).

    Raises InvalidInput where there is none.
    """
    if body.startswith(b"--" + boundary):
        return body
    start = body.find(b"\n--" + boundary)
    if start < 0:
        raise InvalidInput(
            f"The multipart body of {len(body)} bytes has no boundary {quoted(boundary.decode('latin-1'))}, which its "
            f"Content-Type names; it begins with {quoted(body[:40].decode('latin-1'))}.",
            "Let the client set Content-Type by itself: curl -F does, and so do HTTP libraries given files.",
        )
    return body[start + 1 :]


def _find_extended_name(header: bytes) -> str | None:
    """Return the name of a part's file by `filename*` (RFC 8187); None where that says none."""
    if match := EXTENDED_NAME.search(header):
        with suppress(LookupError):  # of an encoding that is none
            return unquote_to_bytes(match[2]).decode(match[1].decode(), errors="replace")
    return None


@dataclass
class _Collector:
    """Collects what the parser calls out: header pieces and views of the body, part by part."""

    max_parts: int
    # Of each part its name, its file's name (bytes where its encoding is to be found) and its content.
    _found: list[tuple[str, str | bytes | None, memoryview]] = field(default_factory=list)
    _name: bytes = b""
    _value: bytes = b""
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _views: list[memoryview] = field(default_factory=list)

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        if len(self._found) >= self.max_parts:
            raise TooManyImages(
                f"The form has more than {self.max_parts} parts.",
                "Send them in several requests, with a reference set so that the context stays the same.",
            )
        self._headers, self._views = {}, []

    def _header_name(self, body: bytes, start: int, end: int) -> None:
        self._name += body[start:end]

    def _header_value(self, body: bytes, start: int, end: int) -> None:
        self._value += body[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _data(self, body: bytes, start: int, end: int) -> None:
        self._views.append(memoryview(body)[start:end])

    def _end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if b"name" not in options:
            raise InvalidInput("A part of the multipart body has no Content-Disposition with a name.")
        # Nearly always one view: the parser pauses only where the data looks like a boundary.
        content = self._views[0] if len(self._views) == 1 else memoryview(b"".join(self._views))
        extended = _find_extended_name(self._headers[b"content-disposition"])
        file_name = options.get(b"filename") if extended is None else extended
        self._found.append((options[b"name"].decode(errors="replace"), file_name, content))

    def build_parts(self) -> list[Part]:
        """Return the parts. The names of their files are decoded together, as those of an archive."""
        names = decode_names([name for _, name, _ in self._found if isinstance(name, bytes)], UNIX_ENCODINGS)
        decoded = iter(names)
        return [
            Part(field, next(decoded) if isinstance(name, bytes) else name, content)
            for field, name, content in self._found
        ]
