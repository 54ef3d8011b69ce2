"""What comes in place of an image file by mistake: nothing, a name, a page, base64, an archive. Each has its hint.

`service.images.formats.other_files` knows files by their first bytes.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

from service.errors import UndecodableImage, quoted
from service.images.decode import Content
from service.images.formats import other_files

# An image file that begins with so many printable characters is none of those that are read.
HEAD_BYTES = 256
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# What PNG, JPEG, GIF, WebP, BMP and TIFF begin with in base64.
BASE64_HEADS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "Qk0", "Qk1", "SUkqA", "TU0AK")
# What PNG, JPEG and GIF begin with in hexadecimal.
HEX_HEADS = ("89504e47", "89504E47", "ffd8ff", "FFD8FF", "47494638")
# What JavaScript makes of a value that is no file.
JAVASCRIPT = re.compile(r"\[object \w+\]|undefined$|null$|NaN$|blob:")
LFS_POINTER = "version https://git-lfs"
# The longest text that may be a path.
LONGEST_PATH = 300
PATH = re.compile(r"[~./\\]|.*[/\\]|.*\.\w{2,5}$")

EMPTY_HINT = "It may be a folder, of which the files have to be sent, or an upload that was cut off."
BYTES_HINT = "Send the image file's own bytes. URLs are never fetched."
CURL_HINT = 'Send the file\'s own bytes. With curl write -F "images=@a.png": without @ the name itself is sent.'


def read_image(read: Callable[[], Content]) -> Content:
    """Return what `read` returns.

    Raises UndecodableImage where that is empty, text or a file of another kind, and what `read` raises.
    """
    content = read()
    if isinstance(content, bytes | memoryview):
        if not len(content):
            raise UndecodableImage("The file has 0 bytes.", EMPTY_HINT)
        head = bytes(content[:HEAD_BYTES])
        if kind := other_files.identify(head):
            raise UndecodableImage(f"The file is {kind.name}, expected an image.", kind.hint)
        if (text := _decode_head(head)) is not None:
            raise UndecodableImage(
                f"{len(content)} bytes of text, which begin with {quoted(text[:40])}, came in place of an image file.",
                _explain_text(text.strip(), is_whole=len(content) <= HEAD_BYTES),
            )
    return content


def _decode_head(head: bytes) -> str | None:
    """Return the first bytes of a file as text, or None where they are no text."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # a character may be cut at the end
    except UnicodeDecodeError:
        return None
    return text if text.replace("\n", " ").replace("\r", " ").replace("\t", " ").isprintable() else None


def _explain_text(text: str, *, is_whole: bool) -> str:
    """Return how to mend that a text came, of which `text` is the beginning."""
    if text.startswith(LFS_POINTER):
        return "It is a pointer of Git LFS: get the file itself with git lfs pull."
    if "<svg" in text:
        return "It is a drawing (SVG): export it as PNG."
    if text.startswith("<"):
        return "It is a page or a drawing in XML: a download may have failed, or have asked for a log-in."
    if text.startswith(("data:", *BASE64_HEADS)):
        return 'Send the file\'s own bytes, or its base64 as JSON: {"images": ["<base64>", ...]}.'
    if JAVASCRIPT.match(text):
        return 'It comes from JavaScript: append the File or the Blob itself: form.append("images", file, file.name).'
    if text.startswith(("b'\\x", 'b"\\x')):
        return "It is Python's notation of bytes: send the bytes themselves, not str(content)."
    if text.startswith(("{", "[")):
        return "It is JSON: a download may have failed, and saved the answer that says why."
    return CURL_HINT if is_whole and not ADDRESS.match(text) else BYTES_HINT


def explain_no_base64(text: str) -> str:
    """Return how to mend that a JSON body has a text in place of the base64 of an image file."""
    if text.startswith(("b'", 'b"')):
        return "It is Python's notation of bytes: base64.b64encode(content).decode() is the text."
    if text.lower().startswith("data:"):
        return "Send only what follows the comma of the data: URI."
    if "%2B" in text or "%2F" in text or "%3D" in text:
        return "It was escaped, as for a URL: send it as it is."
    if ADDRESS.match(text):
        return "Send the base64 of the file's bytes. URLs are never fetched."
    if " " in text:
        return "A + in it became a space on the way, as in a form: send it as JSON, or write %2B for +."
    if len(text) <= LONGEST_PATH and PATH.match(text):
        return "It looks like a path, which the service cannot follow: send the base64 of the file's bytes."
    return "Send the base64 of the file's bytes and nothing else. URLs are never fetched."
