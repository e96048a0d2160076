"""Counting what the API is asked, for Prometheus. Each application counts for itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

UNROUTED = "other"
"""The route of requests that match none: their paths are the asker's choice, and would make labels without end."""


class Asked(NamedTuple):
    """What requests are counted by."""

    method: str
    route: str
    code: int


class Meter:
    """How often what was asked, and how it was answered."""

    def __init__(self) -> None:
        self._requests: Counter[Asked] = Counter()

    @property
    def requests(self) -> Mapping[Asked, int]:
        return self._requests

    def count(self, scope: Scope, code: int) -> None:
        """Take note of an answer with status ``code`` to the request of ``scope``."""
        path = getattr(scope.get("route"), "path", None)
        method = str(scope["method"]) if path is not None else UNROUTED
        self._requests[Asked(method, path or UNROUTED, code)] += 1


class MeteredApp:
    """An ASGI application that counts the answers of another."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._meter.count(scope, int(message["status"]))
            await send(message)

        await self._app(scope, receive, counting)
