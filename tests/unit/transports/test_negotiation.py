"""Which form of an answer a client accepts."""

import pytest

from service.api.endpoints import ENDPOINTS
from service.errors import NotAcceptable
from service.transports.http.negotiation import CSV, JSON, PNG, ZIP, list_media_types, select_media_type

BROWSER_PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
BROWSER_IMAGE = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", JSON),
        (" , ", JSON),
        ("*/*", JSON),
        ("*", JSON),
        ("application/*", JSON),
        ("application/json; charset=utf-8", JSON),
        (BROWSER_PAGE, JSON),
        ("application/json, text/plain, */*", JSON),
        (PNG, PNG),
        ("IMAGE/PNG", PNG),
        (f"{PNG}, */*", PNG),
        (f"*/*, {PNG}", PNG),
        (BROWSER_IMAGE, PNG),
        ("image/*", PNG),
        (f"{PNG}, {JSON}", PNG),
        (f"{JSON}, {PNG}", JSON),
        (f"{JSON};q=0.5, {PNG};q=0.4", JSON),
        (f"{JSON};q=0.4,{CSV}; q=0.5", CSV),
        (f"{JSON};q=0, */*", PNG),
        ("text/*", CSV),
        (ZIP, ZIP),
        (f"{PNG};q=nonsense", PNG),
    ],
)
def test_the_form_is_the_one_that_the_client_prefers(accept, media_type):
    assert select_media_type(ENDPOINTS["explain"], accept) == media_type


@pytest.mark.parametrize(
    ("name", "accept"),
    [
        ("score", "text/html"),
        ("score", ZIP),
        ("score", f"{JSON};q=0"),
        ("score", "json"),
        ("fit", PNG),
        ("edit", CSV),
        ("describe", "image/*"),
        ("decode", "application/vnd.api+json"),
    ],
)
def test_what_cannot_be_served_is_refused_with_what_can(name, accept):
    with pytest.raises(NotAcceptable) as refused:
        select_media_type(ENDPOINTS[name], accept)
    assert accept in str(refused.value)
    assert all(media_type in str(refused.value) for media_type in list_media_types(ENDPOINTS[name]))


@pytest.mark.parametrize("name", sorted(ENDPOINTS))
def test_every_endpoint_answers_with_json_and_with_each_of_its_forms(name):
    for media_type in list_media_types(ENDPOINTS[name]):
        assert select_media_type(ENDPOINTS[name], media_type) == media_type
    assert list_media_types(ENDPOINTS[name])[0] == JSON
