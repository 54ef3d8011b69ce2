"""Images of a request as options name them: by id, by the number that the id is, or by place (`index:15`)."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TypeVar

from service.errors import InvalidOption, quoted

Key = TypeVar("Key", str, int)

PLACE = re.compile(r"index:(\d+)", re.IGNORECASE)
SUFFIX = re.compile(r"\.[A-Za-z]\w{0,5}$")
LAST_NUMBER = re.compile(r"(\d+)\D*$")
# Python makes no number of more than 4,300 digits.
MOST_DIGITS = 100
# How many images or ids a message lists.
MOST_LISTED = 3


class ImageNames:
    """Finds the images of one request by what options call them."""

    def __init__(self, ids: Sequence[str]) -> None:
        """Index the images by their ids, in the order of the request."""
        self._ids = ids

    def find(self, choice: int | str) -> int:
        """Return the position of the image that `choice` names.

        `index:15` is the place 15. Everything else is an id, or the file name at the end of an id that is a path. A
        number (15, "15" or "0015") is the id that is that number, with or without leading zeros, folder and suffix.
        Only where no id is a number, a number is a place.

        Raises InvalidOption where no image is meant, or more than one.
        """
        name = str(choice)
        by_id = self._by_id.get(name, [])
        if match := PLACE.fullmatch(name):
            place = _parse_number(match[1])
            return self._require_one([*by_id, place] if place < len(self._ids) else by_id, choice)
        if by_id:
            return self._require_one(by_id, choice)
        if not name.isdecimal():
            composed = _compose(name)
            return self._require_one(self._by_composed_id.get(composed) or self._by_file_name.get(composed, []), choice)
        number = _parse_number(name)
        if self._by_number:
            return self._require_one(self._by_number.get(number, []), choice)
        places = [number] if number < len(self._ids) else []
        # "15" among frame_1.png, frame_2.png, ... may mean frame_15.png as well.
        rivals = self._by_last_number.get(number, []) if places else []
        return self._require_one(places + rivals, choice)

    def _require_one(self, positions: Sequence[int], choice: int | str) -> int:
        if len(several := sorted(set(positions))) > 1:
            listed = ", ".join(f"{quoted(self._ids[at])} at index:{at}" for at in several[:MOST_LISTED])
            raise InvalidOption(
                f"{quoted(choice)} may be {len(several)} of the {len(self._ids)} images: {listed}"
                f"{', ...' if len(several) > MOST_LISTED else ''}.",
                f"Name one by its place, as index:{several[0]}, or give the images ids that differ.",
            )
        if not several:
            raise InvalidOption(
                f"There is no image {quoted(choice)} among the {len(self._ids)} of the request.",
                f"Name one by its id, or by its place, index:0 to index:{len(self._ids) - 1}."
                if self._ids
                else "Send images.",
            )
        return several[0]

    @cached_property
    def _by_id(self) -> dict[str, list[int]]:
        return _group((id_, at) for at, id_ in enumerate(self._ids))

    @cached_property
    def _by_composed_id(self) -> dict[str, list[int]]:
        return _group((_compose(id_), at) for at, id_ in enumerate(self._ids))

    @cached_property
    def _by_file_name(self) -> dict[str, list[int]]:
        return _group((_compose(_file_name(id_)), at) for at, id_ in enumerate(self._ids))

    @cached_property
    def _by_number(self) -> dict[int, list[int]]:
        stems = ((_stem(id_), at) for at, id_ in enumerate(self._ids))
        return _group((_parse_number(stem), at) for stem, at in stems if stem.isdecimal())

    @cached_property
    def _by_last_number(self) -> dict[int, list[int]]:
        matches = ((LAST_NUMBER.search(_stem(id_)), at) for at, id_ in enumerate(self._ids))
        return _group((_parse_number(match[1]), at) for match, at in matches if match)


def warn_of_doubles(ids: Sequence[str]) -> tuple[str, ...]:
    """Return one warning where several images of a request have the same id, else none."""
    doubles = {} if len(set(ids)) == len(ids) else ImageNames(ids)._by_id
    doubles = {id_: places for id_, places in doubles.items() if len(places) > 1}
    if not doubles:
        return ()
    id_, places = next(iter(doubles.items()))
    listed = ", ".join(map(str, places[:MOST_LISTED])) + (", ..." if len(places) > MOST_LISTED else "")
    others = f", and {len(doubles) - 1} more ids stand for several images" if len(doubles) > 1 else ""
    return (
        f"{len(places)} images have the id {quoted(id_)} (index {listed}){others}: tell them apart by `index`, and "
        f"name them by place, as index:{places[0]}.",
    )


def _file_name(id_: str) -> str:
    return id_.rpartition("/")[2]


def _compose(name: str) -> str:
    """Return a name with its accents in the letters, as people type it. Files of macOS have them beside the letters."""
    return unicodedata.normalize("NFC", name)


def _stem(id_: str) -> str:
    return SUFFIX.sub("", _file_name(id_))


def _parse_number(digits: str) -> int:
    """Return the number, or one that no place is where it has very many digits."""
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= MOST_DIGITS else 10**MOST_DIGITS


def _group(pairs: Iterable[tuple[Key, int]]) -> dict[Key, list[int]]:
    """Return the positions by key, in order."""
    groups: dict[Key, list[int]] = defaultdict(list)
    for key, position in pairs:
        groups[key].append(position)
    return dict(groups)
