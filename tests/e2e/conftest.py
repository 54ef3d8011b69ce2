"""One real `bentoml serve` for all end-to-end tests, with limits small enough to reach."""

from __future__ import annotations

import httpx
import pytest
from serving import serve

LIMITS = {"MISFIT_MAX_IMAGES": "1600", "MISFIT_MAX_ROWS_IN_FLIGHT": "1600", "MISFIT_MAX_STREAM_IMAGES": "2500"}


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("served") / "log", LIMITS) as running:
        yield running


@pytest.fixture(scope="session")
def client(served):
    with httpx.Client(base_url=served.url, timeout=120, limits=httpx.Limits(max_connections=None)) as client:
        yield client


@pytest.fixture(scope="session")
def post(client):
    """POST a body to /score; whatever comes back has the form that it must have."""

    def post(body, **query):
        response = client.post("/score", content=body[1], headers={"Content-Type": body[0]}, params=query)
        content = response.json()
        if response.status_code == 200:
            assert content.keys() == {"bundle_id", "model", "context", "groups", "items"}
        else:
            assert content.keys() == {"error", "request_id"}
            assert content["error"].keys() == {"code", "message", "hint"}
            assert content["error"]["message"]
        return response

    return post
