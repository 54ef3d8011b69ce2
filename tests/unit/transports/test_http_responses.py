"""What HTTP makes of bodies, errors, and clients that go away; over ASGI, without a server."""

import asyncio
import json
import logging

import httpx
import pytest
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from service.api.schemas import ErrorDetail
from service.errors import MisfitError, Overloaded, ShapeMismatch
from service.pipeline.chunked_response import ChunkedResponse
from service.transports.admission import Admission
from service.transports.http.middleware import Envelope, until_sent
from service.transports.http.request_body import read_body, while_connected
from service.transports.http.responses import MOST_WHOLE, respond

ANSWER = ErrorDetail(code="a", message="b", hint="c")  # any model


def client_of(work, *, timeout: float = 10) -> httpx.AsyncClient:
    """A client of an application whose POST / answers with what `work(request)` returns."""

    async def endpoint(request: Request):
        return await respond(request, work(request), timeout)

    async def explode(request: Request):
        raise RuntimeError("secret detail")

    async def own_refusal(request: Request):
        return PlainTextResponse("not ours", 503)

    routes = [
        Route("/", endpoint, methods=["POST"]),
        Route("/explode", explode),
        Route("/refuse", own_refusal),
    ]
    application = Envelope(Starlette(routes=routes))
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test")


def error_of(response: httpx.Response) -> dict[str, str]:
    body = response.json()
    assert body.keys() == {"error", "request_id"}
    assert body["error"].keys() == {"code", "message", "hint"}
    assert response.headers["x-request-id"] == body["request_id"]
    assert response.headers["content-type"] == "application/json"
    return body["error"]


async def test_a_model_becomes_json_with_a_request_id():
    async def work(request):
        return ANSWER

    async with client_of(work) as client:
        response = await client.post("/", headers={"X-Request-ID": "mine-1"})
        assert (response.status_code, response.json()) == (200, ANSWER.model_dump())
        assert response.headers["x-request-id"] == "mine-1"
        odd = await client.post("/", headers={"X-Request-ID": "a b\tc"})
        assert odd.headers["x-request-id"] != "a b\tc"


async def test_a_known_error_is_told_with_its_status():
    async def work(request):
        raise ShapeMismatch("the message", "the hint")

    async with client_of(work) as client:
        response = await client.post("/")
    assert response.status_code == 422
    assert error_of(response) == {"code": "shape_mismatch", "message": "the message", "hint": "the hint"}


async def test_overloaded_says_when_to_come_again():
    async def work(request):
        raise Overloaded("full")

    async with client_of(work) as client:
        response = await client.post("/")
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")


@pytest.mark.parametrize("error", [RuntimeError("secret detail"), MisfitError("secret detail")])
async def test_an_internal_error_is_in_the_log_and_not_in_the_answer(error, caplog):
    async def work(request):
        raise error

    with caplog.at_level(logging.ERROR):
        async with client_of(work) as client:
            response = await client.post("/")
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["request_id"] in response.json()["error"]["hint"]
    assert response.json()["request_id"] in caplog.text
    assert "secret detail" in caplog.text


async def test_what_takes_too_long_is_stopped():
    stopped = asyncio.Event()

    async def work(request):
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with client_of(work, timeout=0.01) as client:
        response = await client.post("/")
    assert response.status_code == 504
    assert error_of(response)["code"] == "deadline_exceeded"
    assert stopped.is_set()


async def test_refusals_of_others_get_our_body():
    async def work(request):
        return ANSWER

    async with client_of(work) as client:
        missing = await client.get("/nowhere")
        assert (missing.status_code, error_of(missing)["code"]) == (404, "not_found")
        wrong = await client.get("/")
        assert wrong.headers["allow"] == "POST"  # of the refusal that is replaced
        assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
        refused = await client.get("/refuse")
        assert (refused.status_code, error_of(refused)["code"]) == (503, "service_unavailable")


async def test_an_exception_that_leaves_the_application_is_answered():
    sent = []

    async def broken(scope, receive, send):
        raise RuntimeError("secret detail")

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await Envelope(broken)(scope, None, send)
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["error"]["code"] == "internal"


def body_reader(max_bytes: int, admission: Admission, seconds: float = 10):
    async def work(request):
        with admission.ticket() as ticket:
            body = await read_body(request, max_bytes, seconds, ticket)
        return ErrorDetail(code=str(len(body)), message="", hint="")

    return work


@pytest.mark.parametrize("coding", ["identity", "Identity", "IDENTITY, identity", ""])
async def test_a_body_that_is_not_encoded_is_read(coding):
    async with client_of(body_reader(1000, Admission(1, 10_000))) as client:
        answer = await client.post("/", content=b"abc", headers={"Content-Encoding": coding})
        assert (answer.status_code, answer.json()["code"]) == (200, "3")
        refused = await client.post("/", content=b"abc", headers={"Content-Encoding": f"{coding}, gzip"})
        assert (refused.status_code, error_of(refused)["code"]) == (415, "unsupported_media_type")


async def test_bodies_up_to_the_limit_are_read_and_no_further():
    admission = Admission(1, 10_000)
    async with client_of(body_reader(1000, admission)) as client:
        assert (await client.post("/", content=bytes(1000))).json()["code"] == "1000"
        announced = await client.post("/", content=bytes(1001))
        assert (announced.status_code, error_of(announced)["code"]) == (413, "too_large")

        async def endless():
            while True:
                yield bytes(100)

        chunked = await client.post("/", content=endless())
        assert (chunked.status_code, error_of(chunked)["code"]) == (413, "too_large")
    assert admission.in_flight["bytes"] == 0


async def test_a_body_with_no_room_left_is_refused():
    async with client_of(body_reader(1000, Admission(1, 500))) as client:
        response = await client.post("/", content=bytes(501))
    assert response.status_code == 429


async def test_a_body_that_takes_too_long_to_come_is_refused_and_what_came_is_given_back():
    admission = Admission(1, 10_000)

    async def trickle():
        while True:
            yield bytes(10)
            await asyncio.sleep(0.01)

    async with client_of(body_reader(1_000_000, admission, seconds=0.1)) as client:
        response = await client.post("/", content=trickle())
    assert (response.status_code, error_of(response)["code"]) == (408, "too_slow")
    assert admission.in_flight["bytes"] == 0


async def test_a_body_that_is_announced_and_has_no_room_is_not_waited_for():
    async def never():
        await asyncio.Event().wait()
        yield b""

    async with client_of(body_reader(1000, Admission(1, 500))) as client:
        response = await client.post("/", content=never(), headers={"Content-Length": "501"})
    assert response.status_code == 429


async def test_compressed_bodies_are_refused_rather_than_misread():
    async with client_of(body_reader(1000, Admission(1, 1000))) as client:
        response = await client.post("/", content=b"abc", headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415


async def test_work_is_stopped_when_the_client_goes_away():
    started, stopped = asyncio.Event(), asyncio.Event()
    admission = Admission(10, 10)

    async def forever():
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async def receive():
        await started.wait()
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)

    async def work():
        with admission.ticket() as ticket:
            ticket.take_images(7)
            return await while_connected(request, forever())

    response = await respond(request, work(), 10)
    await asyncio.wait_for(stopped.wait(), 10)
    assert response.status_code == 499
    assert admission.in_flight["images"] == 0


# Large answers


class Numbers(BaseModel):
    items: list[str]
    last: int = 0


def streamed(count: int, made: list[int] | None = None, size: int = 100_000) -> ChunkedResponse[Numbers]:
    """An answer whose `count` items are made one at a time, each of which is noted in `made`."""

    def records():
        for number in range(count):
            if made is not None:
                made.append(number)
            yield [chr(97 + number % 26) * size]

    return ChunkedResponse(Numbers(items=[], last=1), "items", records)


@pytest.mark.parametrize("count", [0, 3, 30])
async def test_an_answer_in_pieces_has_the_bytes_of_the_whole(count):
    async def work(request):
        return streamed(count)

    async with client_of(work) as client:
        response = await client.post("/", headers={"x-request-id": "mine"})
    assert response.content == streamed(count).whole().model_dump_json(exclude_unset=True).encode()
    assert ("content-length" in response.headers) == (len(response.content) <= MOST_WHOLE)
    assert (response.headers["content-type"], response.headers["x-request-id"]) == ("application/json", "mine")


async def send_to(response, send, receive=None):
    async def connected():
        await asyncio.Event().wait()

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await response(scope, receive or connected, send)


def request_without_body() -> Request:
    return Request({"type": "http", "method": "POST", "path": "/", "headers": []})


async def completed(answer):
    return answer


async def test_no_piece_is_made_before_the_one_before_it_is_taken():
    made, sent = [], []
    response = await respond(request_without_body(), completed(streamed(40, made)), 10)
    begun = len(made)
    assert begun * 100_000 <= MOST_WHOLE + 100_000

    async def send(message):
        sent.append(message)
        await asyncio.sleep(0.001)
        assert len(made) <= begun + max(len(sent) - 2, 0)

    await send_to(response, send)
    assert len(made) == 40
    assert [message.get("more_body") for message in sent[1:]] == [True] * (len(sent) - 2) + [None]
    assert max(len(message["body"]) for message in sent[2:]) <= 100_100


async def test_a_client_that_goes_away_stops_the_making_and_gives_back_what_was_held():
    made, gone, admission = [], asyncio.Event(), Admission(10, 1000)
    response = await respond(request_without_body(), completed(streamed(10_000, made)), 10)

    async def application(scope, receive, send):
        ticket = until_sent(Request(scope)).enter_context(admission.ticket())
        ticket.take_work(500)
        await response(scope, receive, send)

    async def send(message):
        assert admission.in_flight["bytes"] == 500
        if len(made) > 30:
            gone.set()
        await asyncio.sleep(0.001)

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    await asyncio.wait_for(send_to(Envelope(application), send, receive), 10)
    assert 30 < len(made) < 1000
    assert admission.in_flight["bytes"] == 0


async def test_an_answer_that_is_not_taken_in_time_ends_before_its_last_piece():
    sent = []
    response = await respond(request_without_body(), completed(streamed(100)), 0.2)

    async def send(message):
        sent.append(message)
        if len(sent) == 4:
            await asyncio.Event().wait()  # a client that reads no more

    await asyncio.wait_for(send_to(response, send), 10)
    assert all(message.get("more_body", True) for message in sent)


async def test_what_fails_in_the_beginning_is_an_error_with_its_status():
    def broken():
        raise ShapeMismatch("the message", "the hint")
        yield

    async def work(request):
        return ChunkedResponse(Numbers(items=[], last=1), "items", broken)

    async with client_of(work) as client:
        response = await client.post("/")
    assert (response.status_code, error_of(response)["code"]) == (422, "shape_mismatch")
