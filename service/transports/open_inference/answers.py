"""Answers of the endpoints as tensors, with the very numbers of the endpoints' own answers.

An image that could not be used has its error in the output `error`. Its floats are no number and its flags are false.
Its rank is the number of images, which no other has: it comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.api.schemas import EncodeResponse, ErrorDetail, ScoredItem, ScoreResponse
from service.errors import InvalidInput
from service.pipeline.chunked_response import ChunkedResponse
from service.pipeline.edit.edit_result import EditResult
from service.transports.dispatch import Answer
from service.transports.open_inference.codec import InferRequest
from service.transports.open_inference.models import ATTRIBUTIONS, Model
from service.transports.open_inference.tensors import Tensor

NO_NUMBER = float("nan")
NO_IMAGE = -1

# Bytes that a byte of an output takes as JSON, or as a list and as a message: a pixel has up to four characters.
NUMBER_BYTES = 20

Parameters = dict[str, str | int | float | bool]


@dataclass(frozen=True)
class InferResponse:
    """The answer to an inference request. `binary` are the names of the outputs that are to be bytes, over HTTP."""

    model: Model
    id: str
    parameters: Parameters
    outputs: Sequence[Tensor]
    binary: frozenset[str]
    raw: bool

    def count_written_bytes(self, is_raw: Callable[[Tensor], bool]) -> int:
        """Return the bytes that the outputs take while they are written: as bytes where `is_raw`, else as numbers."""
        return sum(
            2 * tensor.byte_count if is_raw(tensor) else NUMBER_BYTES * tensor.byte_count for tensor in self.outputs
        )


def build_response(model: Model, request: InferRequest, outputs: Sequence[str], answer: Answer) -> InferResponse:
    """Return the answer as tensors: those in `outputs`, or all that it has where these are none."""
    if isinstance(answer, EditResult):
        tensors, parameters = {"images": Tensor.of("images", "UINT8", answer.images)}, Parameters()
    elif model.endpoint.name == "encode":
        tensors, parameters = _encoded(cast("ChunkedResponse[EncodeResponse]", answer), model)
    else:
        tensors, parameters = _scored(cast("ChunkedResponse[ScoreResponse]", answer), model, "answer" in outputs)
    for name in outputs:
        if name not in tensors:
            raise InvalidInput(
                f"The output {name} is asked for, but this bundle cannot tell it.",
                "Leave the output out: the parameter `warnings` of the answer says why.",
            )
    selected = [tensors[name] for name in outputs or tensors]
    return InferResponse(model, request.id, parameters, selected, request.binary, request.raw)


def _encoded(answer: ChunkedResponse[EncodeResponse], model: Model) -> tuple[dict[str, Tensor], Parameters]:
    dims = model.outputs[0].shape[1]
    rows: dict[str, list[Sequence[float]]] = {"mean": [], "logvar": []}
    errors: list[str] = []
    missing = [NO_NUMBER] * dims
    for records in answer.records():
        for item in cast("Sequence[Any]", records):
            errors.append(_error_text(item.error))
            for name, values in rows.items():
                values.append(getattr(item, name) or missing)
    tensors = {name: Tensor.of(name, "FP32", np.array(values, dtype=np.float32)) for name, values in rows.items()}
    tensors["error"] = Tensor.of_texts("error", errors)
    return tensors, _with_errors({"warnings": " ".join(answer.head.warnings)}, errors)


def _scored(
    answer: ChunkedResponse[ScoreResponse], model: Model, is_whole: bool
) -> tuple[dict[str, Tensor], Parameters]:
    """Return all tensors that the answer has numbers for, `answer` itself where `is_whole`, and what is told of all."""
    columns = _Columns(next(spec.shape[1] for spec in model.outputs if spec.name == "attributions"))
    for records in answer.records():
        for item in records:
            columns.add(cast("ScoredItem", item))
    head = answer.head
    tensors = columns.tensors()
    if head.duplicates is not None:
        firsts = np.arange(len(columns.errors))
        for members in head.duplicates:
            firsts[members] = min(members)
        tensors["duplicates"] = Tensor.of("duplicates", "INT64", firsts)
    if is_whole:
        tensors["answer"] = Tensor("answer", "BYTES", (1,), [b"".join(answer.json())])
    context = head.context
    parameters: Parameters = {
        "context_source": context.source,
        "context_size": context.size,
        "estimator": context.estimator,
        "reliability": context.reliability,
        "warnings": " ".join(context.warnings),
    }
    if context.contamination is not None:
        parameters["contamination"] = context.contamination
    return tensors, _with_errors(parameters, columns.errors)


class _Columns:
    """Gathers the fields of items, one after the other."""

    def __init__(self, latent_dim: int) -> None:
        self._latent_dim = latent_dim
        self._items: dict[str, list[Any]] = {
            name: [] for name in ("outlier_score", "mahalanobis_squared", "outlier_probability", "is_outlier", "rank")
        }
        self._is_foreign: list[bool | None] = []
        self._reasons: list[str | None] = []
        self._attributions: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ATTRIBUTIONS}
        self._nearest: list[Sequence[tuple[int, float]]] = []
        self._has_nearest = False
        self._has_attributions = False
        self.errors: list[str] = []

    def add(self, item: ScoredItem) -> None:
        for name, column in self._items.items():
            column.append(getattr(item, name))
        self._is_foreign.append(item.is_foreign)
        self._reasons.append(item.reason)
        self.errors.append(_error_text(item.error))
        self._has_nearest |= item.nearest is not None
        self._nearest.append([(each.index, each.distance) for each in item.nearest or ()])
        self._has_attributions |= item.attributions is not None
        for name, field in ATTRIBUTIONS.items():
            row = np.full(self._latent_dim, NO_NUMBER) if item.attributions or self._has_attributions else _NOTHING
            for each in item.attributions or ():
                row[each.index] = getattr(each, field)
            self._attributions[name].append(row)

    def tensors(self) -> dict[str, Tensor]:
        tensors = {}
        for name, column in self._items.items():
            if name == "is_outlier":
                tensors[name] = Tensor.of(name, "BOOL", np.array([bool(value) for value in column]))
            elif name == "rank":
                ranks = [value or len(column) for value in column]
                tensors[name] = Tensor.of(name, "INT64", np.array(ranks, dtype=np.int64))
            else:
                tensors[name] = Tensor.of(name, "FP64", _floats(column))
        if any(value is not None for value in self._is_foreign):
            tensors["is_foreign"] = Tensor.of("is_foreign", "BOOL", np.array([bool(each) for each in self._is_foreign]))
        tensors["error"] = Tensor.of_texts("error", self.errors)
        if any(reason is not None for reason in self._reasons):
            tensors["reason"] = Tensor.of_texts("reason", [reason or "" for reason in self._reasons])
        if self._has_attributions:
            missing = np.full(self._latent_dim, NO_NUMBER)
            for name, rows in self._attributions.items():
                filled = [row if len(row) else missing for row in rows]
                tensors[name] = Tensor.of(name, "FP64", np.array(filled))
        if self._has_nearest:
            tensors |= self._neighbours()
        return tensors

    def _neighbours(self) -> Mapping[str, Tensor]:
        width = max(map(len, self._nearest))
        positions = np.full((len(self._nearest), width), NO_IMAGE, dtype=np.int64)
        distances = np.full(positions.shape, NO_NUMBER)
        for row, neighbours in enumerate(self._nearest):
            for column, (position, distance) in enumerate(neighbours):
                positions[row, column], distances[row, column] = position, distance
        return {
            "nearest": Tensor.of("nearest", "INT64", positions),
            "nearest_distance": Tensor.of("nearest_distance", "FP64", distances),
        }


_NOTHING: NDArray[np.float64] = np.empty(0)


def _floats(column: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([NO_NUMBER if value is None else value for value in column], dtype=np.float64)


def _error_text(error: ErrorDetail | None) -> str:
    return "" if error is None else f"{error.code}: {error}"


def _with_errors(parameters: Parameters, errors: Sequence[str]) -> Parameters:
    """Return the parameters with the number of images that could not be used."""
    parameters = {name: value for name, value in parameters.items() if value != ""}
    return {**parameters, "errors": sum(map(bool, errors))}
