"""Bearer tokens, for every transport: a file lists the SHA-256 of each token that is let in."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from service.errors import Unauthenticated

HINT = "Send the header Authorization: Bearer <token>, with a token that the operator gave out."


class Tokens:
    """The tokens of a file, one hexadecimal SHA-256 on a line; what follows a # is a comment.

    The file is read again whenever it has changed: tokens are rotated without a restart.
    """

    def __init__(self, file: Path | None) -> None:
        """Without a file everybody is let in."""
        self._file = file
        self._read: tuple[int, list[str]] = (0, [])

    def check(self, authorization: str) -> None:
        """Raises Unauthenticated unless that is the value of an Authorization header with a known token."""
        if self._file is None:
            return
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("The request has no bearer token.", HINT)
        digest = hashlib.sha256(token.strip().encode()).hexdigest().encode()
        # Every digest is compared, each in constant time: how long it takes tells nothing.
        if not sum(hmac.compare_digest(digest, known.encode()) for known in self._known(self._file)):
            raise Unauthenticated("The bearer token is not one that is let in.", HINT)

    def _known(self, file: Path) -> list[str]:
        try:
            changed = file.stat().st_mtime_ns
            if changed != self._read[0]:
                lines = (line.partition("#")[0].strip().lower() for line in file.read_text().splitlines())
                self._read = (changed, [line for line in lines if line])
        except OSError:
            return []  # a file that is gone lets nobody in
        return self._read[1]
