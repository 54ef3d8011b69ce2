"""The Open Inference Protocol as published: our proto has its names and numbers, our descriptions its form."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from google.protobuf import descriptor_pb2

from service.protos.inference import open_inference_pb2 as pb
from service.transports.open_inference import error_body
from service.transports.open_inference.models import SERVER, list_models
from service.transports.open_inference.tensors import DATATYPES

DATA = Path(__file__).parents[1] / "data" / "open_inference"
PUBLISHED = json.loads((DATA / "grpc.json").read_text())
SCHEMAS = json.loads((DATA / "rest.json").read_text())


def schema_of(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**SCHEMAS, "$ref": f"#/$defs/{name}"})


def fields_of(message: descriptor_pb2.DescriptorProto, prefix: str) -> dict[str, dict[str, list[object]]]:
    """Number, type and label of every field of a message and of those in it."""
    kind = descriptor_pb2.FieldDescriptorProto
    found = {
        prefix + message.name: {
            field.name: [
                field.number,
                field.type_name.lstrip(".") or kind.Type.Name(field.type).removeprefix("TYPE_").lower(),
                kind.Label.Name(field.label).removeprefix("LABEL_").lower(),
            ]
            for field in message.field
        }
    }
    for nested in message.nested_type:
        found |= fields_of(nested, f"{prefix}{message.name}.")
    return found


def test_the_proto_has_the_names_numbers_and_types_that_are_published():
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    assert {name: each for message in file.message_type for name, each in fields_of(message, "inference.").items()} == (
        PUBLISHED["messages"]
    )
    (service,) = file.service
    assert f"inference.{service.name}" == PUBLISHED["service"]
    methods = {each.name: [each.input_type.lstrip("."), each.output_type.lstrip(".")] for each in service.method}
    assert methods == PUBLISHED["methods"]
    assert not any(each.client_streaming or each.server_streaming for each in service.method)


def test_descriptions_have_the_published_form(served_bundle):
    schema_of("server_metadata").validate(SERVER)
    for model in list_models(served_bundle.manifest).values():
        schema_of("model_metadata").validate(model.describe())
        tensors = (*model.inputs, *model.outputs)
        assert {tensor.datatype for tensor in tensors} <= set(DATATYPES)
        assert len({tensor.name for tensor in model.outputs}) == len(model.outputs)


def test_errors_have_the_published_form():
    schema_of("error").validate(json.loads(error_body.write("It is wrong.", "Mend it.")))


def test_the_schemas_refuse_what_is_not_published():
    with pytest.raises(jsonschema.ValidationError):
        schema_of("server_metadata").validate({**SERVER, "models": []})
