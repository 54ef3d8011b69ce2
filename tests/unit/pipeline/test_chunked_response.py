"""Answers in pieces: the same bytes as whole, and memory for no more than a piece."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from pydantic import BaseModel

from service.pipeline.chunked_response import PIECE_BYTES, ChunkedResponse, cut
from service.pipeline.record_sizes import longest_texts


class Record(BaseModel):
    text: str
    numbers: list[float]
    absent: int | None = None


class Answer(BaseModel):
    before: str
    records: list[Record]
    after: dict[str, str]
    last: list[int] = []


def records(count: int) -> list[Record]:
    rng = np.random.default_rng(0)
    texts = ['"[]}', "ä\n", "\x00\x1f", "𝔘", "],"]
    return [Record(text=texts[n % len(texts)], numbers=rng.normal(size=n % 4).tolist()) for n in range(count)]


def pieced(count: int, size: int, head: Answer | None = None) -> ChunkedResponse[Answer]:
    head = head or Answer(before='"records":[]', records=[], after={"x": '"records":[]'})
    every = records(count)
    return ChunkedResponse(head, "records", lambda: (every[at : at + size] for at in range(0, count, size)))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_short_answer_is_the_same_in_one_piece(count):
    long = pieced(count, 3)
    short = replace(long, is_short=True)
    assert list(short.json()) == [b"".join(long.json())]
    ((whole, fields),) = short.parts()
    assert (whole, fields) == (long.whole(), set(Answer.model_fields))


@pytest.mark.parametrize("indent", [None, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 7, 100])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_json_of_the_pieces_is_that_of_the_whole(indent, count, size):
    answer = pieced(count, size)
    assert answer.whole().records == records(count)
    expected = answer.whole().model_dump_json(exclude_unset=True, indent=indent).encode()
    pieces = list(answer.json(indent))
    assert b"".join(pieces) == expected
    assert len(pieces) == -(-count // size) + 1


def test_what_is_set_shows_and_what_is_not_does_not():
    unset = b"".join(pieced(2, 1).json())
    given = b"".join(pieced(2, 1, Answer(before="", records=[], after={}, last=[])).json())
    assert b'"last"' not in unset
    assert json.loads(given)["last"] == []
    assert b'"absent"' not in given


def test_the_parts_hold_every_field_once():
    answer = pieced(7, 3)
    parts = [part.model_dump(exclude_unset=True, include=fields) for part, fields in answer.parts()]
    assert [list(part) for part in parts] == [["before"], *[["records"]] * 3, ["after"]]
    together = {name: value for part in parts for name, value in part.items() if name != "records"}
    together["records"] = [record for part in parts for record in part.get("records", [])]
    assert together == answer.whole().model_dump(exclude_unset=True)


def test_records_are_cut_where_a_piece_is_full_and_none_is_left_out():
    rng = np.random.default_rng(0)
    for weights in (rng.integers(1, PIECE_BYTES, 100), np.full(1000, 1000), np.array([10 * PIECE_BYTES, 1, 1])):
        places = cut(weights)
        assert [row for place in places for row in range(place.start, place.stop)] == list(range(len(weights)))
        assert all(weights[place].sum() < PIECE_BYTES + weights[place].max() for place in places)
    assert cut(np.full(1000, 1000))[0] == slice(0, -(-PIECE_BYTES // 1000))
    assert cut(np.empty(0, dtype=np.int64)) == []


def test_an_id_is_never_longer_in_json_than_it_is_counted():
    ids = ["a.png", "\x00" * 10, "𝔘𝔘", 'ä"\\', ""]
    for text, most in zip(ids, longest_texts(ids), strict=True):
        assert len(json.dumps(text, ensure_ascii=False).encode()) - 2 <= most


def test_no_more_than_a_piece_is_held():
    count, size = 20_000, 100

    def made():
        for at in range(0, count, size):
            yield [Record(text=f"{n:05}", numbers=[n / 7] * 5) for n in range(at, at + size)]

    answer = ChunkedResponse(Answer(before="", records=[], after={}), "records", made)
    tracemalloc.start()
    try:
        whole = sum(map(len, answer.json()))
        in_pieces = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assert len(answer.whole().model_dump_json(exclude_unset=True)) == whole
        at_once = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert in_pieces < whole / 4 < at_once / 20
