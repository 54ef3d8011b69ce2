"""Request ids, and errors as clients see them, the same for every transport."""

from __future__ import annotations

import logging
import random
import re
from http import HTTPStatus

from service.errors import DeadlineExceeded, MisfitError, TooLarge
from service.telemetry import logs
from service.transports.error_status import STATUS

RETRY_AFTER_SECONDS = "1"
CLIENT_ID = re.compile(r"[\w.-]{1,64}")

logger = logging.getLogger(__name__)


def request_id_of(client_id: str) -> str:
    """Return the client's own request id if it is a plain word, else a new one."""
    # Random as a UUID is, without a system call that hands Python's lock to another thread.
    return client_id if CLIENT_ID.fullmatch(client_id) else f"{random.getrandbits(128):032x}"


def to_client_error(error: Exception, request_id: str) -> MisfitError:
    """Return `error` as the client sees it. For an internal error, the client only learns where to look it up.

    Log internal errors with their trace.
    """
    is_intended = isinstance(error, MisfitError) and type(error) is not MisfitError
    hint = f"The log tells more: look for request {request_id}."
    reply = error if is_intended else MisfitError("Something went wrong inside.", hint)
    assert isinstance(reply, MisfitError)
    logs.record_error(reply.code)
    if STATUS[type(reply)].http >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("request %s failed", request_id, exc_info=error)
    return reply


def build_timeout_error(timeout_seconds: float) -> DeadlineExceeded:
    """Return the error of a request that took longer than `timeout_seconds`."""
    return DeadlineExceeded(f"The request took longer than {timeout_seconds:g} s.", "Send fewer images at a time.")


def check_length(length: int, max_bytes: int) -> None:
    """Raise TooLarge if a body has more than `max_bytes`."""
    if length > max_bytes:
        raise TooLarge(
            f"The body has {length} bytes or more; at most {max_bytes} are taken.",
            "Send it in several requests, with a reference set so that the context stays the same.",
        )
