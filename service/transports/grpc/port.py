"""The port is bound before any worker starts."""

from __future__ import annotations

import socket


def claim_port(host: str, port: int) -> socket.socket:
    """Take `port` for this service: keep the socket for as long as it runs. Raises OSError where the port is in use.

    Workers share the port by SO_REUSEPORT, and with it every other service of the same user would share it
    unnoticed. So before any worker starts, the port is bound once without, and then held by a socket that does not
    listen: until the workers do, nobody else can claim it.
    """
    (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # old connections that linger are no use of it
        probe.bind(address)
    held = socket.socket(family, kind, protocol)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(address)
    return held


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
