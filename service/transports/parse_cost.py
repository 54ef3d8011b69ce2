"""Estimates of how long parsing takes, in bytes of a body of few pieces (`service.short_work.SHORT_BYTES`).

A piece is a part of a form, a file of an archive, or a text in JSON. Each takes some 20 microseconds, however short.
"""

from __future__ import annotations

from service.short_work import SHORT_BYTES

# A piece takes as long as so many bytes.
PIECE_BYTES = 2 * 1024
# The pieces of a message of gRPC are known once it is parsed. They have two bytes or more.
BYTES_PER_MESSAGE_BYTE = 16
ZIP_ENTRY = b"PK\x01\x02"


def of_body(content_type: str, body: bytes) -> int:
    """Return the cost of parsing a body of HTTP. A long one is not looked at: it counts as it is."""
    if len(body) > SHORT_BYTES:
        return len(body)
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/json":
        pieces = body.count(b'"') // 2
    else:  # a form may have archives in it
        pieces = body.count(ZIP_ENTRY) + (body.count(b"\n--") if media_type == "multipart/form-data" else 0)
    return len(body) + PIECE_BYTES * pieces


def of_message(length: int) -> int:
    """Return the cost of parsing a message of gRPC that has `length` bytes."""
    return BYTES_PER_MESSAGE_BYTE * length
