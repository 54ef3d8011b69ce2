"""Options in two places, and the defaults that generated clients send along."""

import pytest

from service.api.option_merging import merge_options
from service.api.options import EditOptions, ScoreOptions, ScoreSheetOptions
from service.api.validation import read_options
from service.errors import InvalidOption
from service.transports.http import openapi

TEXTS = {"threshold": "0.5", "nearest": "0", "foreign": "flag"}


@pytest.mark.parametrize(
    ("body", "query", "threshold"),
    [
        ({}, {"threshold": "0.3"}, 0.3),
        ({"threshold": 0.3}, {}, 0.3),
        ({"threshold": 0.3}, TEXTS, 0.3),
        ({"threshold": 0.5}, {"threshold": "0.3"}, 0.3),
        ({"threshold": 0.3}, {"threshold": "0.30"}, 0.3),
    ],
)
def test_a_default_gives_way_and_the_same_value_twice_is_one(body, query, threshold):
    assert read_options(merge_options(body, query, ScoreOptions), ScoreOptions).threshold == threshold


def test_two_values_are_refused_by_name():
    with pytest.raises(InvalidOption, match="differ in threshold, top"):
        merge_options({"threshold": 0.3, "top": 1}, {"threshold": "0.4", "top": "2"}, ScoreOptions)


def test_what_is_wrong_is_left_to_be_refused():
    for body, query in (({"threshold": "x"}, {"threshold": "0.4"}), ({"unknown": 1}, {"unknown": "2"})):
        with pytest.raises(InvalidOption, match=r"threshold|Unknown option: unknown"):
            read_options(merge_options(body, query, ScoreOptions), ScoreOptions)


def test_lists_and_objects_are_compared_as_such():
    merged = merge_options({"latents": ["a", "b"]}, {"latents": "a, b"}, EditOptions)
    assert read_options(merged, EditOptions).latents == ["a", "b"]
    merged = merge_options({"edit": "shift", "values": {}}, {"values": '{"a": 1}'}, EditOptions)
    assert read_options(merged, EditOptions).values == {"a": 1}


def test_fdr_beside_the_default_threshold_is_fdr():
    assert ScoreOptions(threshold=0.5, fdr=0.1).fdr == 0.1
    with pytest.raises(ValueError, match="give one of them"):
        ScoreOptions(threshold=0.4, fdr=0.1)


@pytest.mark.parametrize("path", [path for path, item in openapi.document()["paths"].items() if "post" in item])
def test_every_default_of_the_document_may_be_sent_back_in_both_places(path):
    operation = openapi.document()["paths"][path]["post"]
    if "parameters" not in operation:
        return
    options_type = openapi.ENDPOINTS[path[1:]].sheet_options
    schemas = {each["name"]: each["schema"] for each in operation["parameters"]}
    query = {name: str(each["default"]) for name, each in schemas.items() if "default" in each}
    body = options_type().model_dump()
    assert body.keys() >= query.keys()
    assert read_options(merge_options(body, query, options_type), options_type) == options_type()


def test_only_http_knows_pages():
    assert ScoreSheetOptions.model_fields.keys() - ScoreOptions.model_fields.keys() == {"page"}
