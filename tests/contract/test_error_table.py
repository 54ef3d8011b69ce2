"""The one table from error type to status: complete, and of statuses that exist."""

import inspect

from service import errors
from service.transports.error_status import STATUS

GRPC_STATUS_NAMES = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "UNAUTHENTICATED",
    "INTERNAL",
}


def error_types() -> set[type[errors.MisfitError]]:
    classes = {value for _, value in inspect.getmembers(errors, inspect.isclass)}
    return {value for value in classes if issubclass(value, errors.MisfitError)}


def test_every_error_has_its_own_row():
    assert set(STATUS) == error_types()


def test_every_code_is_used_once():
    codes = [error.code for error in error_types()]
    assert len(codes) == len(set(codes))


def test_what_the_client_did_wrong_is_4xx_and_what_we_did_is_5xx():
    for error, status in STATUS.items():
        theirs = issubclass(
            error,
            (errors.InvalidInput, errors.ContextTooSmall, errors.Overloaded, errors.TooSlow, errors.Unauthenticated),
        )
        assert (400 <= status.http < 500) == theirs, error
        assert status.grpc in GRPC_STATUS_NAMES


def test_the_tree_in_the_docstring_is_the_tree():
    for error in error_types():
        assert error.__name__ in (errors.__doc__ or "")
