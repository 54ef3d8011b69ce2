"""Limits on how many values a body holds, checked before the body is parsed.

An empty list takes three bytes of JSON and two of protobuf, but 60 to 200 bytes as an object. A body of 256 MiB could
grow to more than 10 GiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from service.errors import TooLarge

# Of protobuf's wire types.
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
MOST_VARINT_BYTES = 10
# Bytes that one number of a packed list takes at least; of the types that are not here, one.
PACKED_BYTES = {
    FieldDescriptor.TYPE_DOUBLE: 8,
    FieldDescriptor.TYPE_FIXED64: 8,
    FieldDescriptor.TYPE_SFIXED64: 8,
    FieldDescriptor.TYPE_FLOAT: 4,
    FieldDescriptor.TYPE_FIXED32: 4,
    FieldDescriptor.TYPE_SFIXED32: 4,
}


def check_json(text: bytes | memoryview, limit: int) -> int:
    """Return an upper bound of how many values a JSON text holds. Raises TooLarge where it exceeds `limit`.

    Every value comes after a comma, or opens something. JSON text within a string counts as well, unless its commas are
    escaped: so escapes count.
    """
    content = bytes(text)
    return _check_count(sum(content.count(mark) for mark in (b",", b"[", b"{", b"\\u")), limit)


def check_message(kind: Descriptor, content: bytes, limit: int) -> int:
    """Return how many fields and numbers a message of that kind holds. Raises TooLarge where they exceed `limit`.

    Malformed content ends the count: the parser says what is wrong with it.
    """
    count, pending = 0, [(kind, 0, len(content))]
    while pending:
        kind, at, end = pending.pop()
        fields = _get_fields(kind)
        while at < end:
            count += 1
            if count > limit:
                return _check_count(count, limit)
            tag, at = _read_varint(content, at)
            wire_type = tag & 7
            if wire_type == LENGTH_DELIMITED:
                length, at = _read_varint(content, at)
                if (field := fields.get(tag >> 3)) is None:
                    pass
                elif field.message_type is not None:
                    pending.append((field.message_type, at, min(at + length, end)))
                elif field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
                    count += max(min(length, end - at), 0) // PACKED_BYTES.get(field.type, 1)  # not what it claims
                at += length
            elif wire_type == VARINT:
                at = _read_varint(content, at)[1]
            else:
                at += {FIXED64: 8, FIXED32: 4}.get(wire_type, 0)
    return _check_count(count, limit)


def _check_count(count: int, limit: int) -> int:
    """Return `count`. Raises TooLarge if it exceeds `limit`."""
    if count > limit:
        raise TooLarge(
            f"The body is made of more than {limit} values: numbers, names, lists and images.",
            "Send images as files or as one array, and merge contexts a few at a time.",
        )
    return count


@cache
def _get_fields(kind: Descriptor) -> Mapping[int, FieldDescriptor]:
    return dict(kind.fields_by_number)


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    """Return the number at that place, and the place after it: the end, where there is none."""
    number = 0
    for shift, byte in enumerate(content[at : at + MOST_VARINT_BYTES]):
        number |= (byte & 127) << 7 * shift
        if byte < 128:
            return number, at + shift + 1
    return 0, len(content)
