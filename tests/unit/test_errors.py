"""What errors quote: readable, and of a length that can be read."""

import pytest

from service.errors import LONGEST_MESSAGE, InvalidInput, explain, quoted, readable


@pytest.mark.parametrize("text", ["", "a.png", "Größe 😀.png", "a\0b\x1b", "\ufffd\ufeff", "x" * 100_000])
def test_text_stays_as_it_is(text):
    assert readable(text) == text


def test_what_is_no_text_becomes_readable():
    name = b"caf\xe9 \xff.png".decode("utf-8", "surrogateescape")
    assert readable(name) == "caf\ufffd \ufffd.png"
    assert readable("\ud83d\ude00 \ud800\udfff\udfff") == "😀 \U000103ff\ufffd"
    assert str(InvalidInput(f"There is no {name}.")).encode().decode() == "There is no caf\ufffd \ufffd.png."


def test_quotes_are_cut():
    assert quoted("a'b") == '"a\'b"'
    assert quoted("\0") == r"'\x00'"
    assert len(quoted("x" * 10**6)) < 100
    assert len(quoted(["x" * 10**6])) < 100
    assert quoted((10**5000, 3)) == "a number of thousands of digits"
    assert len(InvalidInput("x" * 10**6).message) <= LONGEST_MESSAGE + 3


def test_only_what_a_library_says_is_told():
    assert explain(OSError("cut short")) == "cut short"
    assert [explain(error) for error in (TypeError("int() argument"), KeyError(3), ZeroDivisionError("x"))] == [""] * 3
