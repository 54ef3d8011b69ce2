"""Print methods, messages and fields of the Open Inference Protocol as a module of generated stubs has them.

fields.py MODULE
"""

from __future__ import annotations

import importlib
import json
import sys

from google.protobuf import descriptor_pb2

file = descriptor_pb2.FileDescriptorProto()
importlib.import_module(sys.argv[1]).DESCRIPTOR.CopyToProto(file)
kind = descriptor_pb2.FieldDescriptorProto
messages = {}


def add(message, prefix):
    messages[prefix + message.name] = {
        field.name: [
            field.number,
            field.type_name.lstrip(".") or kind.Type.Name(field.type).removeprefix("TYPE_").lower(),
            kind.Label.Name(field.label).removeprefix("LABEL_").lower(),
        ]
        for field in message.field
    }
    for nested in message.nested_type:
        add(nested, f"{prefix}{message.name}.")


for each in file.message_type:
    add(each, f"{file.package}.")
methods = {
    method.name: [method.input_type.lstrip("."), method.output_type.lstrip(".")]
    for service in file.service
    if service.name == "GRPCInferenceService"
    for method in service.method
}
print(json.dumps({"methods": methods, "messages": messages}))
