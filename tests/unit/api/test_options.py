"""Options as queries and JSON spell them."""

import pytest

from service.api.options import EditOptions, ScoreOptions, TraverseOptions
from service.api.validation import read_options
from service.errors import InvalidOption


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.png", ["a.png"]),
        ("a.png, index:3", ["a.png", "index:3"]),
        ('["a.png", "index:3", 15]', ["a.png", "index:3", 15]),
        ("[broken.png", ["[broken.png"]),
        (["a, b.png"], ["a, b.png"]),
    ],
)
def test_a_list_in_a_query_is_written_with_commas_or_as_json(text, expected):
    assert read_options({"which": text}, EditOptions).which == expected


@pytest.mark.parametrize("values", [{"threshold": True}, {"fdr": False}, {"top": True}, {"nearest": True}])
def test_a_truth_value_is_no_number(values):
    with pytest.raises(InvalidOption, match="expected a number or a word"):
        read_options(values, ScoreOptions)


def test_options_that_are_truth_values_stay():
    assert read_options({"plane": True, "latents": "a,b"}, TraverseOptions).plane
