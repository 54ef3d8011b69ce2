"""The OpenAPI document: valid for an independent validator, and about what the service really takes."""

from openapi_spec_validator import OpenAPIV31SpecValidator

from service.api.options import ScoreSheetOptions
from service.api.schemas import ScoredItem
from service.transports.http import openapi
from service.transports.http.body_parsers import MEDIA_TYPES


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
