"""Bearer tokens for every transport. A file lists the SHA-256 of each valid token."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from service.errors import Unauthenticated

logger = logging.getLogger(__name__)

HINT = "Send the header Authorization: Bearer <token>, with a token that the operator gave out."
ONE_HINT = "Send a single header Authorization: Bearer <token>."


class Tokens:
    """The tokens of a file: one hexadecimal SHA-256 on a line, and comments after a #.

    The file is read again whenever it has changed, so tokens are rotated without a restart.
    """

    def __init__(self, file: Path | None) -> None:
        """Read the tokens of `file` when they are needed. Without a file every request passes."""
        self._file = file
        self._state: tuple[int, ...] = ()
        self._digests: list[str] = []

    @property
    def are_needed(self) -> bool:
        """Return whether a request needs a token at all."""
        return self._file is not None

    def check(self, authorizations: Sequence[str]) -> None:
        """Check the values of a request's Authorization headers.

        Raises Unauthenticated unless there is exactly one, with a valid token. If there were several, a proxy in front
        might have checked another one than this service.
        """
        if self._file is None:
            return
        if len(authorizations) > 1:
            raise Unauthenticated(f"The request has {len(authorizations)} Authorization headers.", ONE_HINT)
        authorization = "".join(authorizations)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("The request has no bearer token.", HINT)
        digest = hashlib.sha256(token.strip().encode()).hexdigest().encode()
        # Compare every digest, each in constant time, so that the time tells nothing about the tokens.
        if not sum(hmac.compare_digest(digest, valid.encode()) for valid in self._load_digests(self._file)):
            raise Unauthenticated("The bearer token is not one that is let in.", HINT)

    def _load_digests(self, file: Path) -> list[str]:
        """Return the digests of the valid tokens. The file is read again if it has changed."""
        try:
            status = file.stat()
            # The time alone does not tell of two changes in one moment, or of a file that was read half written.
            state = (status.st_mtime_ns, status.st_size, status.st_ino)
            if state != self._state:
                self._state, self._digests = state, _parse_digests(file.read_text(errors="replace"))
        except OSError:
            return []  # without the file no token is valid
        return self._digests


def _parse_digests(text: str) -> list[str]:
    """Return the digests in the text of a tokens file. Log each line that is none."""
    lines = [line.partition("#")[0].strip().lower() for line in text.splitlines()]
    for number, line in enumerate(lines, start=1):
        if line and not re.fullmatch("[0-9a-f]{64}", line):
            logger.warning("line %d of the tokens file is no SHA-256, and lets nobody in", number)
    return [line for line in lines if line]
