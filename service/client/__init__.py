"""The Python client: HTTP and gRPC behind one interface, plainly called or awaited, with retries."""

from service.client.calls import CallError, NamedImage
from service.client.client import AsyncClient, Client, png
from service.client.retries import Retries

__all__ = ["AsyncClient", "CallError", "Client", "NamedImage", "Retries", "png"]
