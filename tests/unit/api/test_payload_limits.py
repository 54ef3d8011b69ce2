"""Values counted before they are made: as many as there are, and never fewer than the parser would make."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.api import payload_limits
from service.errors import TooLarge
from service.protos.misfit.v1 import misfit_pb2 as pb

SCORE, DECODE = pb.ScoreRequest.DESCRIPTOR, pb.DecodeRequest.DESCRIPTOR
MANY = 10_000
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def values_of(parsed):
    """Members of every list and object, which is what takes memory."""
    members = parsed.values() if isinstance(parsed, dict) else parsed if isinstance(parsed, list) else ()
    return len(members) + sum(map(values_of, members))


@given(JSON)
def test_no_value_of_a_json_text_escapes_the_count(parsed):
    for text in (json.dumps(parsed), json.dumps(parsed, ensure_ascii=False, separators=(",", ":"))):
        assert payload_limits.check_json(text.encode(errors="surrogatepass"), MANY) >= values_of(parsed)


@given(JSON)
def test_no_value_of_a_text_within_a_text_escapes_the_count(parsed):
    escaped = "".join(f"\\u{ord(mark):04x}" if mark in ",[]{}" else mark for mark in json.dumps(json.dumps(parsed)))
    for text in (json.dumps(json.dumps(parsed)), escaped):
        assert json.loads(json.loads(text)) == parsed
        assert payload_limits.check_json(text.encode(), MANY) >= values_of(parsed)


@pytest.mark.parametrize("text", [b"[" * 11, b"{}," * 6, b'["",' + b'"",' * 10, b"\\u002c" * 11])
def test_too_many_json_values_are_refused(text):
    payload_limits.check_json(text, len(text))
    with pytest.raises(TooLarge, match="more than 10 values"):
        payload_limits.check_json(memoryview(text), 10)


def test_base64_counts_as_one_value_each():
    assert payload_limits.check_json(b'{"images": ["iVBORw0KGgo\\/+==", "iVBORw0KGgo="]}', 10) == 3


def messages():
    context = {"location": [0.5] * 20, "moments": {"size": 1.0, "names": ["a", "b", None]}}
    context_values = 2 * 2 + 2 * 2 + (2 + 2 * 20) + (2 + 2 + 2 * 3) + 2  # a key, a value, and what that holds
    many_files = pb.Images(files=pb.ImageFiles(contents=[b""] * 30), ids=["a"] * 30)
    with_context = pb.ScoreRequest(images=pb.Images(ids=["a"]))
    with_context.contexts.add().update(context)
    tensor = pb.ImageTensor(shape=[1, 64, 64], data=bytes(10_000))
    return [
        (pb.ScoreRequest(), 0, 0),
        (pb.ScoreRequest(images=many_files), 62, 62),
        (pb.ScoreRequest(images=pb.Images(tensor=tensor)), 7, 7),
        (with_context, context_values, 2 * context_values),
        (pb.DecodeRequest(latents=[pb.Latents(values=[0.5] * 12)] * 5), 5 * 14, 5 * 14),
        (pb.DecodeRequest(latents=[pb.Latents()] * 50), 50, 50),
    ]


@pytest.mark.parametrize(("message", "least", "most"), messages())
def test_every_field_and_number_of_a_message_is_counted(message, least, most):
    content = message.SerializeToString()
    assert least <= payload_limits.check_message(message.DESCRIPTOR, content, MANY) <= most
    if least:
        with pytest.raises(TooLarge):
            payload_limits.check_message(message.DESCRIPTOR, content, least - 1)


@pytest.mark.parametrize(
    "content", [b"\xff" * 1000, b"\x0a\xff\xff\xff\xff\x7f", b"\x0b\x0b\x0c", b"\x0a", b"\x09\x01"]
)
def test_what_is_no_message_ends_the_count(content):
    assert payload_limits.check_message(SCORE, content, MANY) < 10


def test_unknown_fields_count():
    with pytest.raises(TooLarge):
        payload_limits.check_message(DECODE, b"\xf8\x01\x00" * 11, 10)


@given(st.binary())
@example(b'"\x01\x12\x80O')  # a packed list that claims to be longer than the message
def test_nothing_breaks_the_count(content):
    payload_limits.check_message(SCORE, content, MANY)
