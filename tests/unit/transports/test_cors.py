"""Cross-origin requests, over ASGI, in front of an application that refuses whatever has no token."""

import logging

import httpx
import pytest
from starlette.responses import PlainTextResponse

from service.errors import Unauthenticated
from service.transports.http.cors import Cors, build_refusal_headers
from service.transports.http.middleware import build_not_found
from service.transports.http.responses import build_error_response

PAGE = "https://app.example.com"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-request-id"}


async def guarded(scope, receive, send):
    answer = PlainTextResponse("answer")
    if not any(name == b"authorization" for name, _ in scope["headers"]):
        answer = build_error_response(Unauthenticated("no token"), scope)
    await answer(scope, receive, send)


def client_of(*origins: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(Cors(guarded, origins)), base_url="http://test")


@pytest.mark.parametrize(("origins", "allowed"), [((PAGE, "null"), PAGE), (("*",), "*")])
async def test_preflight_requests_need_no_token(origins, allowed):
    async with client_of(*origins) as client:
        answer = await client.options("/score", headers={"Origin": PAGE, **PREFLIGHT})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == allowed
    assert answer.headers["access-control-allow-headers"] == "authorization,x-request-id"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in answer.headers


async def test_preflight_requests_are_in_the_access_log(caplog):
    with caplog.at_level(logging.INFO):
        async with client_of(PAGE) as client:
            await client.options("/score", headers={"Origin": PAGE, **PREFLIGHT})
            await client.options("/score", headers={"Origin": "https://evil.example", **PREFLIGHT})
    statuses = [record.status for record in caplog.records if record.getMessage().startswith("OPTIONS /score")]
    assert statuses == [200, 403]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer a"}])
async def test_answers_and_errors_are_readable_for_the_page(headers):
    async with client_of(PAGE) as client:
        answer = await client.post("/score", headers={"Origin": PAGE, **headers})
    assert answer.status_code == (200 if headers else 401)
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("origin", ["https://evil.example", "http://app.example.com", PAGE + ":8443", "null"])
async def test_pages_of_other_origins_are_refused_in_the_form_of_every_error(origin):
    async with client_of(PAGE) as client:
        refused = await client.options("/score", headers={"Origin": origin, **PREFLIGHT})
        answer = await client.post("/score", headers={"Origin": origin, "Authorization": "Bearer a"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert refused.headers["x-request-id"] == refused.json()["request_id"]
    assert "MISFIT_CORS_ORIGINS" in refused.json()["error"]["hint"]
    for response in (refused, answer):
        assert "access-control-allow-origin" not in response.headers


async def test_a_page_of_the_internet_may_call_a_service_of_its_visitor_s_network():
    async with client_of(PAGE) as client:
        headers = {"Origin": PAGE, "Access-Control-Request-Private-Network": "true", **PREFLIGHT}
        answer = await client.options("/score", headers=headers)
    assert (answer.status_code, answer.headers["access-control-allow-private-network"]) == (200, "true")


async def test_options_of_no_browser_are_an_ordinary_request():
    async with client_of(PAGE) as client:
        assert (await client.options("/score")).status_code == 401


def test_a_refusal_ahead_of_the_application_may_be_read_by_the_same_pages():
    assert build_refusal_headers(PAGE, (PAGE,))["access-control-allow-origin"] == PAGE
    assert build_refusal_headers(PAGE, ("*",))["access-control-allow-origin"] == "*"
    assert build_refusal_headers("https://evil.example", (PAGE,)) == build_refusal_headers("", ("*",)) == {}


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("/score/", "Did you mean /score?"),
        ("//Score", "Did you mean /score?"),
        ("/api/misfit/docs.json", "Did you mean /docs.json? A proxy in front"),
        ("/scores", ""),
        ("/models/mine/score/", ""),
        ("/v2/score", ""),
    ],
)
def test_a_path_that_is_nearly_one(path, suggestion):
    answer = build_not_found({"type": "http", "method": "POST", "path": path, "headers": []}).body.decode()
    assert ("Did you mean" in answer) == bool(suggestion)
    assert suggestion in answer
