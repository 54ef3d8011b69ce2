"""Keep the control sockets of circus, BentoML's supervisor, inside its own process.

circus listens on two TCP ports of the loopback interface, and runs any program that a client there names. Every other
container of the pod, and every other user of a laptop, could be that client. The service itself needs no such client.
"""

from __future__ import annotations

from typing import Any

from service.hosting.private_names import private_names, require, require_in_code

with private_names(__name__):
    from bentoml._internal.utils import circus
    from circus.arbiter import Arbiter

    require(circus, "Arbiter.__init__", "ThreadedArbiter.__init__")
    require_in_code(circus.create_standalone_arbiter, "Arbiter", "ThreadedArbiter")
    require_in_code(Arbiter.__init__, "endpoint", "pubsub_endpoint", "plugins")


class _InProcessSockets:
    """A mixin for arbiters. It puts the control sockets inside the process (ZeroMQ's transport `inproc`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not kwargs.get("plugins"):  # the plugin of `bentoml serve --reload` is a process, and needs the TCP ports
            kwargs |= {"endpoint": "inproc://control", "pubsub_endpoint": "inproc://events"}
        super().__init__(*args, **kwargs)


class _Arbiter(_InProcessSockets, circus.Arbiter):
    """The supervisor of `bentoml serve`."""


class _ThreadedArbiter(_InProcessSockets, circus.ThreadedArbiter):
    """The supervisor of `serve_http(..., threaded=True)`, which runs in a thread of its caller."""


def close_control_sockets() -> None:
    """Replace the classes of BentoML's supervisor. Call this before BentoML makes the supervisor."""
    vars(circus).update(Arbiter=_Arbiter, ThreadedArbiter=_ThreadedArbiter)
