"""Estimates of how long parsing takes, in bytes of a body of few pieces (`service.short_work.SHORT_BYTES`).

A piece is a part of a form, a file of an archive, or a text in JSON. Each takes some 20 microseconds, however short.
"""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor

from service.api.payload_limits import check_message
from service.errors import TooLarge
from service.short_work import SHORT_BYTES

# A piece takes as long as so many bytes.
PIECE_BYTES = 4 * 1024
# Of a message whose pieces are not counted. They have two bytes or more.
BYTES_PER_MESSAGE_BYTE = 16
ZIP_ENTRY = b"PK\x01\x02"


def of_body(content_type: str, body: bytes) -> int:
    """Return the cost of parsing a body of HTTP. A long one is not looked at: it counts as it is."""
    if len(body) > SHORT_BYTES:
        return len(body)
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-npy":
        pieces = 0
    elif media_type == "application/json":
        pieces = body.count(b'"') // 2
    else:  # a form may have archives in it
        pieces = body.count(ZIP_ENTRY) + (body.count(b"\n--") if media_type == "multipart/form-data" else 0)
    return len(body) + PIECE_BYTES * pieces


def of_message(kind: Descriptor, content: bytes) -> int:
    """Return the cost of parsing a message of gRPC of that kind. The pieces of a long one are not counted."""
    try:
        pieces = check_message(kind, content, SHORT_BYTES // PIECE_BYTES) if len(content) <= SHORT_BYTES else None
    except TooLarge:
        pieces = None
    return of_uncounted(len(content)) if pieces is None else len(content) + PIECE_BYTES * pieces


def of_uncounted(length: int) -> int:
    """Return the cost of parsing a message of `length` bytes, whatever its pieces."""
    return BYTES_PER_MESSAGE_BYTE * length
