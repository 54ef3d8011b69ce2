"""The OpenAPI document: valid for an independent validator, and about what the service really takes."""

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from service.api.options import ScoreSheetOptions
from service.api.schemas import ErrorResponse, ScoredItem
from service.transports.http import openapi
from service.transports.http.body_parsers import MEDIA_TYPES
from service.transports.http.negotiation import list_media_types


def test_the_document_is_valid():
    OpenAPIV31SpecValidator(openapi.document()).validate()


def test_every_media_type_and_option_is_published():
    score = openapi.document()["paths"]["/score"]["post"]
    assert set(score["requestBody"]["content"]) == set(MEDIA_TYPES)
    assert {parameter["name"] for parameter in score["parameters"]} == set(ScoreSheetOptions.model_fields)


def test_only_errors_and_what_was_not_asked_for_may_be_missing():
    item = openapi.document()["components"]["schemas"]["ScoredItem"]
    optional = {"error", "is_foreign", "reason", "attributions", "minimal_set", "factors", "interactions", "heat_maps"}
    optional.add("nearest")
    assert set(ScoredItem.model_fields) - set(item["required"]) == optional


def test_the_error_body_is_published_for_every_refusal():
    responses = openapi.document()["paths"]["/score"]["post"]["responses"]
    refusals = {status: answer for status, answer in responses.items() if int(status) >= 400}
    assert {"400", "413", "415", "422", "429", "500", "503", "504"} <= refusals.keys()
    for answer in refusals.values():
        assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorResponse"}


DOCUMENT = openapi.document()
OPERATIONS = {
    (path, method): operation for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
}


def nodes_of(node):
    """Every object of the document, the examples left out."""
    if isinstance(node, list):
        for each in node:
            yield from nodes_of(each)
    elif isinstance(node, dict):
        yield node
        for name, child in node.items():
            if name not in ("example", "examples"):
                yield from nodes_of(child)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_has_a_tag_that_is_described(path, method):
    described = {tag["name"] for tag in DOCUMENT["tags"] if tag["description"]}
    assert set(OPERATIONS[path, method]["tags"]) <= described
    assert {tag for operation in OPERATIONS.values() for tag in operation["tags"]} == described


def test_a_token_may_be_needed_everywhere_but_for_probes_and_metrics():
    assert DOCUMENT["security"] == [{"bearer": []}, {}]
    assert DOCUMENT["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for (_, method), operation in OPERATIONS.items():
        assert (operation.get("security") == []) == (method == "get")
        assert ("401" in operation["responses"]) == (method == "post")


def test_parameters_have_neither_lists_nor_objects_nor_nothing_as_default():
    """Generators cannot write such a default, or send it."""
    for operation in OPERATIONS.values():
        for parameter in operation.get("parameters", []):
            schema = parameter["schema"]
            assert isinstance(schema.get("default", ""), str | int | float), parameter
            assert schema["type"] in ("string", "integer", "number", "boolean", "array"), parameter
            assert schema["type"] != "array" or parameter["explode"] is False


def test_numbers_have_a_width_and_no_model_has_defaults_or_tuples():
    for node in nodes_of(DOCUMENT):
        if node.get("type") in ("number", "integer"):
            assert node["format"] == {"number": "double", "integer": "int64"}[node["type"]]
        assert "prefixItems" not in node
    for node in nodes_of(DOCUMENT["components"]["schemas"]):
        assert "default" not in node or isinstance(node["default"], dict)  # a property of that name


def test_every_form_of_an_answer_is_published_with_an_example_of_each_error():
    for name, endpoint in openapi.ENDPOINTS.items():
        responses = OPERATIONS[f"/{name}", "post"]["responses"]
        assert tuple(responses["200"]["content"]) == list_media_types(endpoint)
        for status, answer in responses.items():
            if status != "200":
                ErrorResponse.model_validate(answer["content"]["application/json"]["example"])


def test_the_examples_are_answers():
    for name, example in openapi.ANSWERS.items():
        openapi.ENDPOINTS[name].answer.model_validate(example)
