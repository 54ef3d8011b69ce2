"""Errors over HTTP as the Open Inference Protocol has them: one text, and 400 for whatever a request does wrong."""

from __future__ import annotations

from http import HTTPStatus

from pydantic_core import to_json

ROOT = "/v2"


def is_path(path: str) -> bool:
    """Return whether the protocol says how an error at `path` looks."""
    return path == ROOT or path.startswith(f"{ROOT}/")


def choose_status(status: HTTPStatus) -> HTTPStatus:
    """Return the status in place of `status`: the protocol knows no 422."""
    return HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status


def write(message: str, hint: str) -> bytes:
    """Return the body of an error."""
    return to_json({"error": f"{message} {hint}".strip()})
