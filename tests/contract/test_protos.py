"""The proto says what Python says: the stubs are its own, options and answers have the fields and words of HTTP's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from google.protobuf.descriptor import FieldDescriptor
from pydantic import BaseModel

from service.api import options, schemas
from service.bundle.manifest import Capabilities, ImageSpec
from service.core.latent import Latent
from service.protos.misfit.v1 import misfit_pb2 as pb

ROOT = Path(__file__).parents[2]
PROTO = Path("service/protos/misfit/v1/misfit.proto")
OPEN_INFERENCE = Path("service/protos/inference/open_inference.proto")
OPTIONS = [
    "ScoreOptions", "ExplainOptions", "FitOptions", "EditOptions",
    "TraverseOptions", "InterpolateOptions", "SampleOptions", "EncodeOptions",
]  # fmt: skip
ANSWERS = {
    "ErrorDetail": schemas.ErrorDetail,
    "ScoreResponse": schemas.ScoreResponse,
    "ScoreStreamResponse": schemas.ScoreResponse,
    "ScoredContext": schemas.ScoredContext,
    "Neighbour": schemas.Neighbour,
    "ScoredItem": schemas.ScoredItem,
    "LatentAttribution": schemas.LatentAttribution,
    "FactorAttribution": schemas.FactorAttribution,
    "Interaction": schemas.Interaction,
    "HeatMap": schemas.HeatMap,
    "FitResponse": schemas.FitResponse,
    "PicturesResponse": schemas.PicturesResponse,
    "Picture": schemas.Picture,
    "Distances": schemas.Distances,
    "EncodeResponse": schemas.EncodeResponse,
    "EncodedItem": schemas.EncodedItem,
    "DescribeResponse": schemas.Description,
    "ImageSpec": ImageSpec,
    "Capabilities": Capabilities,
    "Latent": Latent,
    "Limits": schemas.Limits,
}


@pytest.mark.parametrize("proto", [PROTO, OPEN_INFERENCE], ids=lambda path: path.stem)
def test_the_stubs_are_what_the_proto_generates(tmp_path, proto):
    flags = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *flags, str(proto)], cwd=ROOT, check=True)
    generated = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*_pb2*"))
    assert len(generated) == 3
    for path in generated:
        assert (ROOT / path).read_text() == (tmp_path / path).read_text(), f"{path} is old: run make protos"


@pytest.mark.parametrize("name", OPTIONS)
def test_options_have_the_names_words_and_defaults_of_https(name):
    message, model = getattr(pb, name).DESCRIPTOR, getattr(options, name)
    assert [field.name for field in message.fields] != []
    assert {field.name for field in message.fields} == model.model_fields.keys()
    for field in message.fields:
        words = words_of(model.model_fields[field.name].annotation)
        if field.enum_type is not None:
            prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
            named = {value.name.removeprefix(prefix).lower() for value in field.enum_type.values[1:]}
            # Attributions are shared: Explain refuses "none" itself.
            assert words == named - ({"none"} if name == "ExplainOptions" and field.name == "attributions" else set())
        else:
            assert not words or field.name == "which"


@pytest.mark.parametrize("name", OPTIONS)
def test_the_comment_of_each_option_says_its_default(name):
    model = getattr(options, name)
    body = re.search(rf"^message {name} {{(.*?)^}}", (ROOT / PROTO).read_text(), re.DOTALL | re.MULTILINE)
    assert body
    for comment, field in re.findall(r"((?:  //[^\n]*\n)+)  [^/\n]*?(\w+) = \d+;", body[1]):
        default = model.model_fields[field].get_default(call_default_factory=True)
        if field == "estimator" or default is None or model.model_fields[field].is_required() or default == {}:
            continue
        said = re.search(r"Default: \"?([\w.:]+?)\"?\.\n", comment.replace("\n  //", ""))
        assert said, (field, comment)
        shown = str(default).lower()
        assert said[1] == shown or said[1].lower().endswith(f"_{shown}") or float(said[1]) == default, (field, said[1])


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_have_the_fields_of_https(name):
    message, model = getattr(pb, name).DESCRIPTOR, ANSWERS[name]
    assert {field.name for field in message.fields} == model.model_fields.keys()
    for field in message.fields:
        kinds = kinds_of(model.model_fields[field.name].annotation)
        assert field.is_repeated == (list in kinds or tuple in kinds or is_map(field)), field.name
        if type(None) in kinds and not field.is_repeated:
            assert field.has_presence, f"{field.name} may be null"


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def kinds_of(annotation: object) -> set[object]:
    """Of `list[str] | None` list and None."""
    if get_origin(annotation) in (Union, UnionType):
        return {kind for part in get_args(annotation) for kind in kinds_of(part)}
    return {get_origin(annotation) or annotation}


def words_of(annotation: object) -> set[object]:
    """The words of all literals in an annotation."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return set()
    if get_origin(annotation) is Annotated:
        return words_of(get_args(annotation)[0])
    return {word for part in get_args(annotation) for word in words_of(part)}
