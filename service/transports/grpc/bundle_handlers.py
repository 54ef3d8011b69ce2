"""The methods of several bundles under one name: the call's metadata `misfit-bundle` choose among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from service.api.wire import BUNDLE
from service.errors import UnknownModel, quoted
from service.transports.dispatch import Dispatcher
from service.transports.grpc.interceptors import make_refusal
from service.transports.grpc.servicer import Servicer, method_name


class BundleHandlers(grpc.GenericRpcHandler):
    """Finds the handler of a call among those of the bundle that it names; "" is the bundle of calls that name none."""

    def __init__(self, dispatchers: Mapping[str, Dispatcher]) -> None:
        self._handlers = {name: Servicer(dispatcher).handlers() for name, dispatcher in dispatchers.items()}
        self._metrics = dispatchers[""].metrics

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        names = [value for key, value in handler_call_details.invocation_metadata or () if key == BUNDLE]
        name = str(names[0]) if names else ""
        if len(names) < 2 and name in self._handlers:
            handler: grpc.RpcMethodHandler[Any, Any] | None = self._handlers[name].service(handler_call_details)
            return handler
        if (method := method_name(handler_call_details.method)) == "unknown":
            return None
        known = ", ".join(filter(None, self._handlers)) or "none"
        error = UnknownModel(
            f"The metadata {BUNDLE} is {quoted(', '.join(map(str, names)))}, which is no bundle of this service.",
            f"Leave it out for the default bundle. Others are: {known}.",
        )
        return make_refusal(error, method, self._metrics)
