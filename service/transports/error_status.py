"""The one table from error type to HTTP status and gRPC status."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from service import errors


class Status(NamedTuple):
    http: HTTPStatus
    grpc: str  # a member of grpc.StatusCode, by name: this module needs no gRPC


STATUS: dict[type[errors.MisfitError], Status] = {
    errors.MisfitError: Status(HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL"),
    errors.InvalidInput: Status(HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT"),
    errors.UndecodableImage: Status(HTTPStatus.UNPROCESSABLE_ENTITY, "INVALID_ARGUMENT"),
    errors.UnsupportedMediaType: Status(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "INVALID_ARGUMENT"),
    errors.NotAcceptable: Status(HTTPStatus.NOT_ACCEPTABLE, "INVALID_ARGUMENT"),
    errors.ShapeMismatch: Status(HTTPStatus.UNPROCESSABLE_ENTITY, "INVALID_ARGUMENT"),
    errors.TooManyImages: Status(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "INVALID_ARGUMENT"),
    errors.TooLarge: Status(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "RESOURCE_EXHAUSTED"),
    errors.UnknownLatent: Status(HTTPStatus.UNPROCESSABLE_ENTITY, "INVALID_ARGUMENT"),
    errors.InvalidOption: Status(HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT"),
    errors.UnknownModel: Status(HTTPStatus.NOT_FOUND, "NOT_FOUND"),
    errors.ContextTooSmall: Status(HTTPStatus.UNPROCESSABLE_ENTITY, "FAILED_PRECONDITION"),
    errors.Overloaded: Status(HTTPStatus.TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"),
    errors.InferenceUnavailable: Status(HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE"),
    errors.DeadlineExceeded: Status(HTTPStatus.GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"),
    errors.TooSlow: Status(HTTPStatus.REQUEST_TIMEOUT, "DEADLINE_EXCEEDED"),
    errors.Unauthenticated: Status(HTTPStatus.UNAUTHORIZED, "UNAUTHENTICATED"),
    errors.AcceleratorMissing: Status(HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE"),
    errors.BundleError: Status(HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE"),
    errors.BundleMissing: Status(HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE"),
    errors.BundleCorrupt: Status(HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE"),
    errors.BundleIncompatible: Status(HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE"),
}
