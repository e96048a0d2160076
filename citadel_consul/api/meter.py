"""Counting what the API is asked, and the registry that Prometheus reads it from.

Each application has a registry of its own: two orchestrators in one process must not share counters.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citadel_consul import __version__

UNROUTED = "other"
"""The route of requests that match none: their paths are the asker's choice, and would make labels without end."""


class Meter:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.requests = Counter(
            "citadel_api_requests",
            "Requests to the HTTP API that were answered.",
            ("method", "route", "code"),
            registry=self.registry,
        )
        self.version = __version__


class MeteredApp:
    """An ASGI application that counts the answers of another."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(scope, int(message["status"]))
            await send(message)

        await self._app(scope, receive, counting)

    def _count(self, scope: Scope, code: int) -> None:
        path = getattr(scope.get("route"), "path", None)
        method = str(scope["method"]) if path is not None else UNROUTED
        self._meter.requests.labels(method, path or UNROUTED, str(code)).inc()
