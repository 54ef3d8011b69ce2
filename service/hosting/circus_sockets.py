"""The supervisor's control sockets, kept inside its own process.

BentoML's supervisor, circus, listens on two TCP ports of the loopback interface and does what anybody there asks, such
as running a program: every other container of the pod could, and every other user of a laptop. Nothing of ours asks.
"""

from __future__ import annotations

from typing import Any

from bentoml._internal.utils import circus


class _Unreachable(circus.Arbiter):
    """The supervisor, listening where only its own process can reach it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not kwargs.get("plugins"):  # with `bentoml serve --reload` a process of its own asks for reloads
            kwargs |= {"endpoint": "inproc://control", "pubsub_endpoint": "inproc://events"}
        super().__init__(*args, **kwargs)


def close_control_sockets() -> None:
    """To be called before BentoML makes its supervisor."""
    circus.Arbiter = _Unreachable  # type: ignore[misc]
