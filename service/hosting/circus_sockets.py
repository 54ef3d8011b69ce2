"""The sockets of circus, BentoML's supervisor: its control sockets stay inside its process, and its port must be free.

circus listens on two TCP ports of the loopback interface, and runs any program that a client there names. Every other
container of the pod, and every other user of a laptop, could be that client. The service itself needs no such client.
"""

from __future__ import annotations

import socket
from typing import Any

from service.hosting.private_names import private_names, require, require_in_code

with private_names(__name__):
    from bentoml._internal.utils import circus
    from circus.arbiter import Arbiter
    from circus.sockets import CircusSocket

    require(circus, "Arbiter.__init__", "ThreadedArbiter.__init__")
    require_in_code(circus.create_standalone_arbiter, "Arbiter", "ThreadedArbiter")
    require_in_code(Arbiter.__init__, "endpoint", "pubsub_endpoint", "plugins", "sockets")
    require_in_code(CircusSocket.__init__, "is_unix", "host", "port", "socktype")


class _InProcessSockets:
    """A mixin for arbiters. It puts the control sockets inside the process (ZeroMQ's transport `inproc`).

    Where the HTTP port cannot be had, it ends this process with one line; circus would write one trace for each socket.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for each in kwargs.get("sockets", ()):
            if not each.is_unix:
                _check_port(each)
        if not kwargs.get("plugins"):  # the plugin of `bentoml serve --reload` is a process, and needs the TCP ports
            kwargs |= {"endpoint": "inproc://control", "pubsub_endpoint": "inproc://events"}
        super().__init__(*args, **kwargs)


def _check_port(wanted: CircusSocket) -> None:
    """Raise SystemExit where the socket could not be bound."""
    try:
        with socket.socket(wanted.family, wanted.socktype) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have just ended do not count
            probe.bind((wanted.host, wanted.port))
    except OSError as error:
        raise SystemExit(
            f"misfit cannot start: HTTP cannot listen on {wanted.host}:{wanted.port}: {error.strerror}. Choose another "
            "with --port, which is not that of MISFIT_GRPC_PORT."
        ) from None


class _Arbiter(_InProcessSockets, circus.Arbiter):
    """The supervisor of `bentoml serve`."""


class _ThreadedArbiter(_InProcessSockets, circus.ThreadedArbiter):
    """The supervisor of `serve_http(..., threaded=True)`, which runs in a thread of its caller."""


def close_control_sockets() -> None:
    """Replace the classes of BentoML's supervisor. Call this before BentoML makes the supervisor."""
    vars(circus).update(Arbiter=_Arbiter, ThreadedArbiter=_ThreadedArbiter)
