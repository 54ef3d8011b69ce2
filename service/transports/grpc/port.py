"""The gRPC port. The supervisor claims it before any worker starts."""

from __future__ import annotations

import socket


def claim_port(host: str, port: int) -> socket.socket:
    """Return a socket that claims `port` for this service as long as it is open. Raises OSError if the port is in use.

    Workers share the port by SO_REUSEPORT. With that option alone, another service of the same user could share it
    unnoticed. So this function binds the port once without the option, before any worker starts. After that, a socket
    that does not listen holds the port.
    """
    (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have just ended do not count
        probe.bind(address)
    claim = socket.socket(family, kind, protocol)
    claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    claim.bind(address)
    return claim


def bracket_host(host: str) -> str:
    """Return the host as an address names it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host
