"""The multipart splitter, beside Starlette's parser."""

import bodies
import pytest
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser

from service.errors import InvalidInput, TooManyImages
from service.transports.http.multipart import boundary_of, split

BOUNDARY = bodies.BOUNDARY.encode()
PARTS = [
    ("images", "a.png", b"\x00\r\n--misfit\r\n\r\nalmost a boundary"),
    ("images", "empty.png", b""),
    ("images", 'quo"ted ümlaut.png'.replace('"', '\\"'), b"x" * 1000),
    ("images", "ends in a line break.png", b"abc\r\n"),
    ("options", None, b'{"fdr": 0.1}'),
]


async def test_parts_are_those_that_starlette_finds():
    content_type, body = bodies.as_form(PARTS)

    async def stream():
        yield body
        yield b""

    form = await MultiPartParser(Headers({"content-type": content_type}), stream()).parse()
    expected = []
    for name, value in form.multi_items():
        expected.append(
            (name, None, value.encode()) if isinstance(value, str) else (name, value.filename, await value.read())
        )
    found = [(part.name, part.filename, bytes(part.content)) for part in split(body, BOUNDARY, 10)]
    assert found == expected
    await form.close()


@pytest.mark.parametrize("preamble", [b"\r\n", b"This is a message in parts.\r\n", b"--misfit\r\n", b"a\n"])
def test_text_before_the_first_boundary_means_nothing(preamble):
    _, body = bodies.as_form(PARTS)
    found, expected = (split(whole, BOUNDARY, 10) for whole in (preamble + body + b"\r\nan epilogue", body))
    assert [(part.name, bytes(part.content)) for part in found] == [
        (part.name, bytes(part.content)) for part in expected
    ]
    with pytest.raises(InvalidInput):
        split(preamble + b"no boundary", BOUNDARY, 10)


def test_names_in_another_encoding_stay_different():
    _, body = bodies.as_form([("images", "NAME", b"x"), ("images", "EMAN", b"x")])
    parts = split(body.replace(b"NAME", b"\xe9.png").replace(b"EMAN", b"\xe8.png"), BOUNDARY, 10)
    assert [part.filename for part in parts] == ["é.png", "è.png"]


def test_every_truncation_is_refused():
    _, body = bodies.as_form(PARTS)
    for length in range(len(body) - len(b"--\r\n")):
        with pytest.raises(InvalidInput):
            split(body[:length], BOUNDARY, 10)


@pytest.mark.parametrize(
    "headers",
    [b"", b"Content-Type: image/png", b"Content-Disposition: form-data", b"X: " + b"y" * 9000],
)
def test_parts_without_a_name_are_refused(headers):
    body = b"--" + BOUNDARY + b"\r\n" + headers + b"\r\n\r\ncontent\r\n--" + BOUNDARY + b"--"
    with pytest.raises(InvalidInput):
        split(body, BOUNDARY, 10)


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_missing_boundary_is_refused(content_type):
    with pytest.raises(InvalidInput, match="no boundary"):
        boundary_of(content_type)


def test_more_parts_than_allowed_are_refused():
    _, body = bodies.as_form(PARTS)
    assert len(split(body, BOUNDARY, len(PARTS))) == len(PARTS)
    with pytest.raises(TooManyImages):
        split(body, BOUNDARY, len(PARTS) - 1)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        (b"filename*=UTF-8''Gr%C3%B6%C3%9Fe.png", "Größe.png"),
        (b"filename=\"Gr__e.png\"; FileName*=utf-8'de'Gr%C3%B6%C3%9Fe.png", "Größe.png"),
        (b"filename*=iso-8859-1''%E9.png; filename=a.png", "é.png"),
        (b"filename*=none''%E9.png; filename=a.png", "a.png"),
        (b'filename="a; filename*=b.png"', "a; filename*=b.png"),
    ],
)
def test_the_extended_name_of_a_file_goes_first(parameters, name):
    _, body = bodies.as_form([("images", "NAME", b"x")])
    (part,) = split(body.replace(b'filename="NAME"', parameters), BOUNDARY, 10)
    assert part.filename == name


def test_a_boundary_that_the_body_does_not_have_is_told():
    _, body = bodies.as_form(PARTS)
    with pytest.raises(InvalidInput, match=r"no boundary '--.*begins with '--misfit-test-boundary"):
        split(body, b"--" + BOUNDARY, 10)


def test_names_of_one_form_are_of_one_encoding():
    _, body = bodies.as_form([("images", f"NAME{number:04}.png", b"x") for number in range(2000)])
    parts = split(body.replace(b"NAME", "größe".encode("latin-1")), BOUNDARY, 2000)
    assert parts[1999].filename == "größe1999.png"


def test_a_boundary_that_is_too_long_is_refused():
    with pytest.raises(InvalidInput, match="malformed: Boundary length 300"):
        split(b"--" + b"b" * 300 + b"--\r\n", b"b" * 300, 10)
