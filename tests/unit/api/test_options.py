"""Options as queries and JSON spell them."""

import re

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
        (15, [15]),
    ],
)
def test_a_list_in_a_query_is_written_with_commas_or_as_json(text, expected):
    assert read_options({"which": text}, EditOptions).which == expected


def test_null_is_the_default():
    assert read_options(dict.fromkeys(EditOptions.model_fields), EditOptions) == EditOptions()
    assert read_options({"threshold": None, "fdr": 0.1}, ScoreOptions) == ScoreOptions(fdr=0.1)


@pytest.mark.parametrize("value", [3.5, {"a": 1}, [[]]])
def test_a_choice_that_is_none_is_told_without_names_of_types(value):
    with pytest.raises(InvalidOption, match=r"^which: Input should be 'flagged' or 'all'; which") as caught:
        read_options({"which": value}, EditOptions)
    assert not re.search(r"function|union|\[", caught.value.message.partition(", [")[0])


@pytest.mark.parametrize("values", [{"threshold": True}, {"fdr": False}, {"top": True}, {"nearest": True}])
def test_a_truth_value_is_no_number(values):
    with pytest.raises(InvalidOption, match="expected a number or a word"):
        read_options(values, ScoreOptions)


def test_options_that_are_truth_values_stay():
    assert read_options({"plane": True, "latents": "a,b"}, TraverseOptions).plane
