"""The gRPC port. The supervisor claims it before any worker starts."""

from __future__ import annotations

import socket


def claim_port(host: str, port: int) -> socket.socket:
    """Return a socket that claims `port` for this service for as long as it is open. Raises OSError where it is in use.

    Workers share the port by SO_REUSEPORT, and every other service of the same user would then share it unnoticed. So
    the
    port is bound once without that option, before any worker starts, and then held by a socket that does not listen.
    """
    (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # old connections that linger are no use of it
        probe.bind(address)
    held = socket.socket(family, kind, protocol)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(address)
    return held


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
