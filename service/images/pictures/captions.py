"""Text on sheets: the font, and lines that fit."""

from __future__ import annotations

from bisect import bisect_right
from math import ceil

from PIL import ImageFont

INK, WARNING_INK = (40, 40, 40), (190, 30, 30)
FONT_SIZE, LINE_HEIGHT = 13, 16
LONGEST_CAPTION = 200

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def load_font() -> Font:
    """Return the font of captions, which Pillow ships."""
    return ImageFont.load_default(FONT_SIZE)


def wrap(text: str, font: Font, width: int, most_lines: int, longest: int = LONGEST_CAPTION) -> list[str]:
    """Return the first `longest` characters of `text` as 1 to `most_lines` lines, each at most `width` pixels wide."""
    lines = [""]
    for word in _readable(text[:longest]).split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most_lines:
        lines = [*lines[: most_lines - 1], " ".join(lines[most_lines - 1 :])]
    return [_shorten(line, font, width) for line in lines]


def wrap_name(name: str, font: Font, width: int) -> list[str]:
    """Return `name`, such as a path, as 1 or 2 lines, each at most `width` pixels wide, broken at any letter.

    Of a name that does not fit, the beginning and the end are shown: files of one folder differ at the end.
    """
    name = _readable(name if len(name) <= 2 * LONGEST_CAPTION else name[:LONGEST_CAPTION] + name[-LONGEST_CAPTION:])
    first = name[: _count_fitting(name, font, width)]
    if first == name:
        return [name]
    rest = name[len(first) :]
    if font.getlength(rest) <= width:
        return [first, rest]
    return [first, f"…{rest[::-1][: _count_fitting(rest[::-1], font, width, '…')][::-1]}"]


def _readable(text: str) -> str:
    """Return `text` in one line. A caption may be a client's id, with characters that no font draws."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _shorten(line: str, font: Font, width: int) -> str:
    """Return `line`, cut off with an ellipsis where it is wider than `width` pixels."""
    if font.getlength(line) <= width:
        return line
    return f"{line[: _count_fitting(line, font, width, '…')]}…"


def _count_fitting(line: str, font: Font, width: int, ending: str = "") -> int:
    """Return how many letters of `line`, at least one, take at most `width` pixels together with `ending`."""
    lengths = range(1, len(line) + 1)
    count = bisect_right(lengths, width, key=lambda cut: ceil(font.getlength(line[:cut] + ending)))
    return max(count, 1)
