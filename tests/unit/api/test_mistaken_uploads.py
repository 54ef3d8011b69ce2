"""What comes in place of an image file by mistake, and what is said about it."""

import base64
import gzip

import bodies
import numpy as np
import pytest

from service.api.uploads.mistaken_uploads import explain_no_base64, read_image
from service.errors import UndecodableImage

PNG = bodies.encoded(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"", "0 bytes", "folder"),
        (b"a.png", "5 bytes of text, which begin with 'a.png'", 'curl write -F "images=@a.png"'),
        ("bücher/größe.png".encode(), "19 bytes of text", "without @"),
        (b"\xef\xbb\xbfa.png\r\n", "begin with 'a.png", "without @"),
        (b"https://example.com/a.png", "begin with 'https", "URLs are never fetched"),
        (b"s3://bucket/a.png", "begin with 's3", "URLs are never fetched"),
        (b"<!DOCTYPE html><html>" + b"x" * 9000, "9021 bytes of text", "page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "of text", "git lfs pull"),
        (b"data:image/png;base64," + base64.b64encode(PNG) * 99, "of text", "base64 as JSON"),
        (base64.b64encode(PNG) * 99, "of text", "base64 as JSON"),
        (memoryview(b"no image"), "8 bytes of text", "without @"),
        (b"x" * 300, "300 bytes of text", "own bytes. URLs"),
        ("é".encode() * 300, "600 bytes of text", "own bytes"),
        (gzip.compress(PNG), "compressed by gzip", "uncompressed tar"),
        (bodies.zipped({"a.png": PNG}), "is a zip", "application/zip"),
        (bodies.npy(np.zeros(3)), "is an npy array", "application/x-npy"),
        (b"%PDF-1.7\n%\xe2\xe3", "is a PDF", "pages"),
        (b"[object File]", "13 bytes of text", "JavaScript"),
        (b"undefined", "9 bytes of text", "JavaScript"),
        (b"blob:http://localhost/4f", "24 bytes of text", "JavaScript"),
        (repr(PNG).encode(), "bytes of text", "Python's notation"),
        (b'{"error": "expired"}', "20 bytes of text", "download"),
    ],
)
def test_what_came_in_place_of_an_image(content, message, hint):
    with pytest.raises(UndecodableImage, match=message) as caught:
        read_image(lambda: content)
    assert hint in caught.value.hint


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_images_are_no_text(kind):
    content = bodies.encoded(np.zeros((8, 8, 3), np.uint8), kind)
    assert read_image(lambda: content) is content
    assert bytes(read_image(lambda: memoryview(content)[:40])) == content[:40]
    pixels = np.full((8, 8), 65, np.uint8)
    assert read_image(lambda: pixels) is pixels


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("data:image/png;base64,aGk=", "what follows the comma"),
        ("http://127.0.0.1/a.png", "never fetched"),
        ("images/a.png", "path"),
        ("C:\\images\\a", "path"),
        ("~/a", "path"),
        ("aGk", "nothing else"),
        ("b'iVBORw0KGgo='", "Python's notation"),
        ("iVBORw0KGgo%3D", "escaped"),
        ("/9j/4AAQ" * 99 + ".png", "nothing else"),
    ],
)
def test_what_came_in_place_of_base64(text, hint):
    assert hint in explain_no_base64(text)
