"""The requests whose answers are on record in tests/contract/recorded, and how an answer is written down.

A record is a JSON file: what an answer says, each picture in it replaced by its number. The pictures lie beside it in
one PNG, one below the other.
"""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import bodies
import calls
import exact
import grpc
import httpx
import numpy as np
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from numpy.typing import NDArray
from PIL import Image

from service.protos.misfit.v1 import misfit_pb2 as pb

RECORDED = Path(__file__).parents[1] / "contract" / "recorded"
SETTINGS = {
    "MISFIT_BUNDLE": str(Path(__file__).parents[1] / "data" / "exact_bundle"),
    "MISFIT_MAX_IMAGES": "200",
    "MISFIT_MAX_STREAM_IMAGES": "300",
    "MISFIT_MAX_BODY_BYTES": str(2 * 1024 * 1024),
}
PNG_START = b"\x89PNG\r\n\x1a\n"
ESTIMATORS = ("density_ratio", "mixture", "robust", "leave_one_out", "ledoit_wolf", "oas", "mcd")


@dataclass(frozen=True)
class HttpCase:
    """One HTTP request."""

    name: str
    path: str
    body: bodies.Body | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    accept: str = "*/*"
    method: str = "POST"

    def ask(self, client: httpx.Client) -> Recorded:
        content_type, content = self.body or ("", b"")
        headers = {"Accept": self.accept} | ({"Content-Type": content_type} if content_type else {})
        response = client.request(self.method, self.path, content=content, params=self.query, headers=headers)
        return Recorded.of_http(response)


@dataclass(frozen=True)
class GrpcCase:
    """One gRPC call, of one message or of several."""

    name: str
    method: str
    messages: Sequence[Any]

    def ask(self, channel: grpc.Channel) -> Recorded:
        path = f"/misfit.v1.MisfitService/{self.method}"
        raw = [message if isinstance(message, bytes) else message.SerializeToString() for message in self.messages]
        try:
            answers = list(channel.stream_stream(path)(iter(raw), timeout=120))
        except grpc.RpcError as error:
            return Recorded.of_grpc_error(error)
        service = pb.DESCRIPTOR.services_by_name["MisfitService"]
        kind = getattr(pb, service.methods_by_name[self.method].output_type.name)
        return Recorded.of_grpc([kind.FromString(answer) for answer in answers])


@dataclass
class Recorded:
    """What an answer says, and the pictures in it."""

    content: Any
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)

    @classmethod
    def of_http(cls, response: httpx.Response) -> Recorded:
        recorded = cls(None)
        media_type = response.headers.get("content-type", "").split(";")[0]
        body: Any = None
        if media_type == "application/json":
            body = recorded._without_pictures(response.json())
            if isinstance(body, dict):
                body.pop("request_id", None)
        elif media_type == "application/zip":
            with zipfile.ZipFile(BytesIO(response.content)) as archive:
                body = {name: recorded._member(archive.read(name)) for name in archive.namelist()}
        elif response.content.startswith(PNG_START):
            body = recorded._picture(response.content)
        elif response.content:
            body = response.text
        recorded.content = {"status": response.status_code, "media_type": media_type, "body": body}
        return recorded

    @classmethod
    def of_grpc(cls, answers: Sequence[Any]) -> Recorded:
        recorded = cls(None)
        messages = [json_format.MessageToDict(answer, preserving_proto_field_name=True) for answer in answers]
        ordered = json.loads(json.dumps(messages, sort_keys=True))  # a protobuf map has no order
        recorded.content = {"status": "OK", "messages": recorded._without_pictures(ordered)}
        return recorded

    @classmethod
    def of_grpc_error(cls, error: grpc.RpcError) -> Recorded:
        code, detail = calls.error_of(error)
        said = {"code": detail.code, "message": detail.message, "hint": detail.hint}
        return cls({"status": code.name, "details": error.details(), "error": said})

    def write(self, name: str) -> None:
        text = json.dumps(self.content, indent=1, ensure_ascii=False)
        (RECORDED / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        if self.pictures:
            stacked, _ = self._stacked()
            Image.fromarray(stacked).save(RECORDED / f"{name}.png", optimize=True)

    def compare(self, name: str) -> list[str]:
        """Return what differs from the record of that name, in words."""
        expected = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
        differences = differing(expected, json.loads(json.dumps(self.content)), name)
        drawn = RECORDED / f"{name}.png"
        if drawn.exists() != bool(self.pictures):
            differences.append(f"{name}: {len(self.pictures)} pictures came")
        elif self.pictures and not np.array_equal(np.asarray(Image.open(drawn)), self._stacked()[0]):
            differences.append(f"{name}: the pictures have other pixels")
        return differences

    def _without_pictures(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._without_pictures(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self._without_pictures(member) for member in value]
        if isinstance(value, str) and value.startswith("iVBORw0KGgo"):
            return self._picture(base64.b64decode(value))
        return value

    def _member(self, content: bytes) -> Any:
        return self._picture(content) if content.startswith(PNG_START) else self._without_pictures(json.loads(content))

    def _picture(self, content: bytes) -> str:
        pixels = np.asarray(Image.open(BytesIO(content)).convert("RGB"))
        self.pictures.append(pixels)
        return f"picture {len(self.pictures) - 1}: {pixels.shape[1]} x {pixels.shape[0]}"

    def _stacked(self) -> tuple[NDArray[np.uint8], int]:
        width = max(pixels.shape[1] for pixels in self.pictures)
        padded = [np.pad(pixels, ((0, 0), (0, width - pixels.shape[1]), (0, 0))) for pixels in self.pictures]
        return np.concatenate(padded), width


def differing(expected: Any, actual: Any, where: str) -> list[str]:
    """Return where two JSON values differ: numbers by more than 1e-9 of their size, all else at all."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        if list(expected) != list(actual):
            return [f"{where}: the names are {list(actual)}, on record {list(expected)}"]
        return [line for name in expected for line in differing(expected[name], actual[name], f"{where}.{name}")]
    if isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            return [f"{where}: {len(actual)} came, on record are {len(expected)}"]
        pairs = enumerate(zip(expected, actual, strict=True))
        return [line for place, pair in pairs for line in differing(*pair, f"{where}[{place}]")]
    if type(expected) is float and type(actual) is float and np.isclose(actual, expected, rtol=1e-9, atol=1e-12):
        return []
    return [] if type(expected) is type(actual) and expected == actual else [f"{where}: {actual!r}, not {expected!r}"]


@cache
def batch() -> NDArray[np.uint8]:
    """Return 40 images (40, 32, 32, 3): two of another "size" and "hue", one of another "angle", one that is noise."""
    random = np.random.default_rng(11)
    latents = 0.3 * exact.random_latents(random, 40) + [0.5, -0.5, 0.2, 0.9, -0.8, 0]
    latents[5, :2] = 2.4, 2.0
    latents[17, :2] = 2.2, 2.3
    latents[29, 2] = -2.6
    images = exact.pictures(latents, random.integers(-3, 4, size=(40, *exact.IMAGE_SHAPE)))
    images[33] = random.integers(0, 256, size=exact.IMAGE_SHAPE)
    return images


@cache
def context(start: int, stop: int, estimator: str = "robust") -> dict[str, Any]:
    """Return what /fit answered as `context` for images of the batch, as it stands on record."""
    name = f"http_fit_images_{start}_to_{stop}_{estimator}"
    fitted: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())["body"]["context"]
    return fitted


def fits() -> list[HttpCase]:
    """Return the cases whose answers other cases send along: they are recorded first."""
    return [
        HttpCase(
            f"http_fit_images_{start}_to_{stop}_{estimator}",
            "/fit",
            bodies.as_npy(batch()[start:stop]),
            {"estimator": estimator},
        )
        for start, stop, estimator in ((0, 20, "robust"), (20, 40, "robust"), (0, 40, "density_ratio"))
    ]


def http_cases() -> list[HttpCase]:
    images = batch()
    npy, files = bodies.as_npy(images), bodies.image_files(images)
    few = bodies.image_files(images[:6])
    contents = list(few.values())
    spoiled = few | {"0003.png": b"no image", "0004.png": contents[4][:200]}
    formats = {f"a.{kind.lower()}": bodies.encoded(images[1], kind) for kind in ("PNG", "BMP", "GIF", "TIFF")}
    grey = {"grey.png": bodies.encoded(images[2, :, :, 0]), "large.png": bodies.encoded(images[3].repeat(2, axis=0))}
    reference = {f"reference/{name}": content for name, content in bodies.image_files(images[6:30]).items()}
    robust, both = [context(0, 20)], [context(0, 20), context(20, 40)]
    ratio = [context(0, 40, "density_ratio")]
    score = [
        *(HttpCase(f"http_score_{name}", "/score", npy, {"estimator": name}) for name in ESTIMATORS),
        HttpCase("http_score_all_attributions", "/score", npy, {"attributions": "all"}),
        HttpCase("http_score_top_attributions", "/score", npy, {"attributions": "top", "top": 2, "estimator": "oas"}),
        HttpCase("http_score_zip", "/score", bodies.as_zip(files)),
        HttpCase("http_score_tar_of_a_few", "/score", bodies.as_tar(few)),
        HttpCase("http_score_json_with_options", "/score", bodies.as_json(contents, options={"threshold": 0.9})),
        HttpCase("http_score_form", "/score", bodies.as_form(bodies.form_of(few))),
        HttpCase("http_score_spoiled_files", "/score", bodies.as_zip(spoiled)),
        HttpCase("http_score_other_formats", "/score", bodies.as_zip(few | formats | grey)),
        HttpCase("http_score_reject_other_sizes", "/score", bodies.as_zip(few | grey), {"resize": "reject"}),
        HttpCase("http_score_reference", "/score", bodies.as_zip(few | reference)),
        HttpCase("http_score_context", "/score", bodies.as_json(contents, context=robust)),
        HttpCase("http_score_contexts", "/score", bodies.as_json(contents, context=both)),
        HttpCase("http_score_density_ratio_context", "/score", bodies.as_json(contents, context=ratio)),
        HttpCase("http_score_one_image", "/score", bodies.as_npy(images[:1])),
        HttpCase("http_score_two_images", "/score", bodies.as_npy(images[4:6])),
        HttpCase("http_score_by_discovery_rate", "/score", npy, {"fdr": 0.1}),
        HttpCase("http_score_without_the_foreign_check", "/score", npy, {"foreign": "off"}),
        HttpCase("http_score_sheet", "/score", bodies.as_zip(spoiled), {}, "image/png"),
    ]
    explain = [
        HttpCase("http_explain", "/explain", npy),
        HttpCase("http_explain_interactions", "/explain", npy, {"interactions": True, "estimator": "robust"}),
        HttpCase("http_explain_all_maps", "/explain", bodies.as_zip(few), {"heat_maps": "all", "top": 2}),
        HttpCase("http_explain_sheet", "/explain", npy, {"top": 2}, "image/png"),
        HttpCase("http_explain_files", "/explain", npy, {"top": 1}, "application/zip"),
        HttpCase("http_explain_context", "/explain", bodies.as_json(contents, context=ratio), {"attributions": "top"}),
    ]
    fit = [
        HttpCase("http_fit_spoiled_files", "/fit", bodies.as_zip(spoiled)),
        HttpCase("http_fit_merges_contexts", "/fit", bodies.as_json([], context=both)),
    ]
    shift = {"edit": "shift", "which": "0,0002.png", "values": '{"size": 1.5, "2": -1}'}
    edit = [
        HttpCase("http_edit", "/edit", npy),
        HttpCase("http_edit_named_latents", "/edit", bodies.as_zip(files), {"which": "all", "latents": "hue, 2"}),
        HttpCase("http_edit_project", "/edit", npy, {"edit": "project", "estimator": "leave_one_out"}),
        HttpCase("http_edit_shift", "/edit", bodies.as_zip(files), shift),
        HttpCase("http_edit_set", "/edit", npy, {"edit": "set", "which": "3", "values": '{"hue":9}', "unit": "latent"}),
        HttpCase(
            "http_edit_quantile", "/edit", npy, {"edit": "set", "which": "3", "values": '{"4":0.1}', "unit": "quantile"}
        ),
        HttpCase("http_edit_sheet", "/edit", npy, {}, "image/png"),
        HttpCase("http_edit_files", "/edit", npy, {}, "application/zip"),
        HttpCase("http_edit_nothing", "/edit", npy, {"threshold": 1, "foreign": "off"}),
    ]
    explore = [
        HttpCase("http_traverse", "/traverse", npy, {"steps": 3}),
        HttpCase("http_traverse_a_plane", "/traverse", npy, {"latents": "size,hue", "plane": True, "steps": 3}),
        HttpCase(
            "http_traverse_context", "/traverse", bodies.as_json([], context=robust), {"latents": "1", "span": 1.5}
        ),
        HttpCase(
            "http_traverse_population", "/traverse", npy, {"latents": "angle", "span_of": "population", "start": "7"}
        ),
        HttpCase("http_interpolate", "/interpolate", bodies.as_zip(few), {"start": "0001.png", "end": 4, "frames": 3}),
        HttpCase("http_sample", "/sample", npy, {"count": 4, "seed": 3}),
        HttpCase("http_sample_gaussian", "/sample", npy, {"count": 3, "method": "gaussian"}),
        HttpCase("http_sample_context", "/sample", bodies.as_json([], context=robust), {"method": "gaussian"}),
        HttpCase("http_encode", "/encode", bodies.as_zip(spoiled)),
        HttpCase("http_decode", "/decode", ("application/json", b'{"latents": [[0,0,0,0,0,0], [1,-1,2,-2,3,9]]}')),
        HttpCase("http_decode_npy", "/decode", ("application/x-npy", bodies.npy(np.eye(6)))),
        HttpCase("http_describe", "/describe"),
    ]
    large = np.zeros((201, *exact.IMAGE_SHAPE), np.uint8)
    errors = [
        HttpCase("http_error_empty_body", "/score", ("application/zip", b"")),
        HttpCase("http_error_no_media_type", "/score", ("", b"abc")),
        HttpCase("http_error_unknown_media_type", "/score", ("text/csv", b"1,2")),
        HttpCase("http_error_not_acceptable", "/score", npy, {}, "text/html"),
        HttpCase("http_error_broken_zip", "/score", ("application/zip", b"PK\3\4 and no more")),
        HttpCase("http_error_broken_json", "/score", ("application/json", b'{"images": [')),
        HttpCase("http_error_complex", "/score", ("application/x-npy", bodies.npy(np.zeros((2, 32, 32, 3), complex)))),
        HttpCase("http_error_nothing_usable", "/score", bodies.as_zip({"a.png": b"no image"})),
        HttpCase("http_error_unknown_option", "/score", npy, {"treshold": 0.5}),
        HttpCase("http_error_wrong_options", "/score", npy, {"threshold": 2, "estimator": "best"}),
        HttpCase("http_error_two_rules", "/score", npy, {"threshold": 0.4, "fdr": 0.1}),
        HttpCase("http_error_unknown_latent", "/edit", npy, {"latents": "colour"}),
        HttpCase("http_error_unknown_image", "/interpolate", npy, {"start": "nobody.png"}),
        HttpCase("http_error_set_without_values", "/edit", npy, {"edit": "set"}),
        HttpCase("http_error_spoiled_context", "/score", bodies.as_json(contents, context=[{"size": "many"}])),
        HttpCase("http_error_too_many_images", "/score", bodies.as_npy(large)),
        HttpCase("http_error_too_many_pictures", "/sample", npy, {"count": 5000}),
        HttpCase("http_error_wrong_latents", "/decode", ("application/json", b'{"latents": [[1, 2]]}')),
        HttpCase("http_error_too_large_a_body", "/score", ("application/zip", bytes(2 * 1024 * 1024 + 1))),
        HttpCase("http_error_wrong_method", "/score", method="GET"),
        HttpCase("http_error_unknown_path", "/scores", npy),
    ]
    return [*score, *explain, *fit, *edit, *explore, *errors]


def _one(name: str, method: str, message: Any) -> GrpcCase:
    return GrpcCase(name, method, [message])


def grpc_cases() -> list[GrpcCase]:
    images = batch()
    tensor = calls.tensor(images)
    few = bodies.image_files(images[:6])
    files = calls.files(list(few.values()), ids=list(few))
    spoiled = calls.files([*few.values(), b"no image"])
    portable = Struct()
    portable.update(context(0, 20))
    by_values = pb.EditOptions(edit=pb.EDIT_KIND_SHIFT, which=["3"], values={"size": -1.0}, unit=pb.UNIT_SD)
    unknown = pb.ScoreOptions(threshold=3)
    return [
        _one("grpc_score", "Score", pb.ScoreRequest(images=tensor)),
        _one("grpc_score_spoiled_files", "Score", pb.ScoreRequest(images=spoiled)),
        _one("grpc_score_reference", "Score", pb.ScoreRequest(images=files, reference=tensor)),
        _one("grpc_score_context", "Score", pb.ScoreRequest(images=files, contexts=[portable])),
        GrpcCase(
            "grpc_score_stream",
            "ScoreStream",
            [
                pb.ScoreStreamRequest(
                    images=calls.tensor(images[:25]), options=pb.ScoreOptions(attributions=pb.ATTRIBUTIONS_TOP)
                ),
                pb.ScoreStreamRequest(images=calls.tensor(images[25:])),
            ],
        ),
        _one("grpc_explain", "Explain", pb.ExplainRequest(images=tensor, options=pb.ExplainOptions(top=2))),
        _one("grpc_fit", "Fit", pb.FitRequest(images=spoiled, options=pb.FitOptions(estimator=pb.ESTIMATOR_OAS))),
        _one("grpc_edit", "Edit", pb.EditRequest(images=tensor)),
        _one("grpc_edit_shift", "Edit", pb.EditRequest(images=tensor, options=by_values)),
        _one("grpc_traverse", "Traverse", pb.TraverseRequest(images=files, options=pb.TraverseOptions(steps=2))),
        _one("grpc_interpolate", "Interpolate", pb.InterpolateRequest(images=files)),
        _one("grpc_sample", "Sample", pb.SampleRequest(contexts=[portable], options=pb.SampleOptions(count=2))),
        _one("grpc_encode", "Encode", pb.EncodeRequest(images=files)),
        _one("grpc_decode", "Decode", pb.DecodeRequest(latents=[pb.Latents(values=[0, 1, 0, -1, 0, 0])])),
        _one("grpc_describe", "Describe", pb.DescribeRequest()),
        _one("grpc_error_no_images", "Score", pb.ScoreRequest()),
        _one("grpc_error_wrong_option", "Score", pb.ScoreRequest(images=files, options=unknown)),
        _one("grpc_error_nothing_usable", "Score", pb.ScoreRequest(images=calls.files([b"no image"]))),
        _one("grpc_error_wrong_latents", "Decode", pb.DecodeRequest(latents=[pb.Latents(values=[0])])),
        _one("grpc_error_broken_message", "Score", b"\xff\xff\xff"),
    ]
