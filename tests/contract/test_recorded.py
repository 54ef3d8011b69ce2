"""Every endpoint's answers, HTTP and gRPC, against those on record.

`make record` writes the record anew, and is for changes that are meant: look at the difference that git shows.
"""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import httpx
import pytest
import recording
from serving import serve


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("served") / "log", recording.SETTINGS) as running:
        yield running


def test_answers_are_those_on_record(served):
    recorded, differences = set(), []

    def look(name: str, answer: recording.Recorded) -> None:
        assert name not in recorded
        recorded.add(name)
        if os.environ.get("RECORD"):
            answer.write(name)
        else:
            differences.extend(answer.compare(name))

    with httpx.Client(base_url=served.url, timeout=120) as client:
        for cases in (recording.fits, recording.http_cases):  # the second send what the first answered
            for case in cases():
                look(case.name, case.ask(client))
    with grpc.insecure_channel(served.grpc_target, recording.calls.UNLIMITED) as channel:
        for case in recording.grpc_cases():
            look(case.name, case.ask(channel))
    assert not differences, "\n".join(differences)
    assert {Path(file).stem for file in recording.RECORDED.glob("*.json")} == recorded
