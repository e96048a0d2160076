"""What every request passes on its way in and out: the gate of a starting service, the figures, the trace."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .payload import Json
from .settings import Settings
from .tracing import HOPS_HEADER, REQUEST_ID_HEADER, Hop, accepted_id, encode, hops_below, request_id
from .vitals import Vitals

log = logging.getLogger(__name__)


class Gate:
    """An ASGI middleware around a whole service. Health checks pass it uncounted: they are no use of the service."""

    def __init__(self, app: ASGIApp, settings: Settings, vitals: Vitals, waiting_for: Callable[[], str]) -> None:
        self._app = app
        self._settings = settings
        self._vitals = vitals
        self._waiting_for = waiting_for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ("/health", "/ready"):
            await self._app(scope, receive, send)
        elif reason := self._waiting_for():
            detail = {"type": "about:blank", "title": "Starting", "status": 503, "detail": reason}
            await Json(detail, 503, headers={"retry-after": "1"})(scope, receive, send)
        else:
            await self._traced(scope, receive, send)

    async def _traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        below: list[Hop] = []
        hops_below.set(below)
        current = accepted_id(Headers(scope=scope).get(REQUEST_ID_HEADER)) or uuid.uuid4().hex
        request_id.set(current)
        begun = perf_counter()
        status = 500

        async def send_traced(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = Hop(self._settings.service, self._settings.node, 1000 * (perf_counter() - begun))
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers[HOPS_HEADER] = encode([own, *below])
                headers[REQUEST_ID_HEADER] = current
            await send(message)

        try:
            await self._app(scope, receive, send_traced)
        finally:
            self._account(scope, status, perf_counter() - begun)

    def _account(self, scope: Scope, status: int, seconds: float) -> None:
        self._vitals.record(seconds, failed=status >= 500)
        fields = {"method": scope["method"], "path": scope["path"], "status": status, "ms": round(1000 * seconds, 2)}
        log.info("request", extra={"fields": fields})
