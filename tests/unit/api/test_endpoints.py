"""The table of endpoints against all that is made from it, and against what cannot be made from it."""

import inspect
from typing import get_type_hints

import pytest
from pydantic import BaseModel

from service.api.endpoints import ENDPOINTS
from service.api.requests import ImagesRequest
from service.client import AsyncClient
from service.client.calls import Call
from service.pipeline.pipeline import Pipeline
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.transports.grpc.converters import METHODS
from service.transports.http import openapi

NAMES = sorted(ENDPOINTS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_transport_has_the_endpoints_and_no_others():
    from service.app import Misfit

    assert sorted(Misfit.apis) == NAMES
    assert sorted(path[1:] for path, methods in openapi.document()["paths"].items() if "post" in methods) == NAMES
    streams = {"ScoreStream"}  # gRPC alone has streams
    declared = set(pb.DESCRIPTOR.services_by_name["MisfitService"].methods_by_name)
    assert {name.lower() for name in declared - streams} == set(NAMES)
    public = {name for name, member in inspect.getmembers(AsyncClient) if callable(member) and not name.startswith("_")}
    assert public - {"close", "score_stream"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_pipeline_has_a_method_for_what_the_endpoint_takes(name):
    endpoint = ENDPOINTS[name]
    hints = get_type_hints(getattr(Pipeline, name), include_extras=True)
    (taken,) = [hint for parameter, hint in hints.items() if parameter != "return"]
    if endpoint.takes == "images":
        assert taken == ImagesRequest[endpoint.image_options]
    else:
        with pytest.raises(TypeError, match="has no options"):
            _ = endpoint.image_options


@pytest.mark.parametrize("name", NAMES)
def test_grpc_s_messages_have_the_fields_of_the_options_and_of_the_answer(name):
    endpoint, method = ENDPOINTS[name], METHODS[name.capitalize()]
    if endpoint.takes == "images":
        options = method.request.DESCRIPTOR.fields_by_name["options"].message_type
        assert {field.name for field in options.fields} == set(endpoint.image_options.model_fields)
    assert {field.name for field in method.answer.DESCRIPTOR.fields} == set(endpoint.answer.model_fields)


@pytest.mark.parametrize("name", NAMES)
def test_the_client_calls_the_method_and_reads_its_answer(name):
    inputs = {"images": (["a.png"],), "latents": ([[0.0]],), "nothing": ()}[ENDPOINTS[name].takes]
    call = getattr(AsyncClient, name)(None, *inputs)
    assert isinstance(call, Call)
    assert (call.method, call.answer) == (ENDPOINTS[name].grpc_name, ENDPOINTS[name].answer)
    assert issubclass(call.answer, BaseModel)
