"""Service ``api-gateway``: the one door for clients.

========  ======================  =========  ====================================================
method    path                    scope      body or answer
========  ======================  =========  ====================================================
POST      /v1/ask                 ask        ``{"question": …}`` → answer, sources, the way it took
POST      /v1/search              ask        ``{"query": …, "limit": 10}``
POST      /v1/summarise           ask        ``{"text": …}``
POST      /v1/documents           documents  ``{"title": …, "text": …, "id": …}``; indexed soon after
GET       /v1/documents/{id}      documents
GET       /v1/usage               usage      what each client used
========  ======================  =========  ====================================================

Each request needs an API key, as ``Authorization: Bearer …`` or ``X-Api-Key``, and a token of its client's bucket.
Without redis the limit cannot be kept: requests pass, and the gateway says that it is degraded.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from math import ceil
from time import perf_counter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .application import Connections, Service, run
from .failures import Failure, Forbidden, Rejected, TooMany, Unauthorized, Unavailable
from .payload import Json, body_of
from .peers import Peers
from .rate_limit import take
from .redis_link import RedisLink
from .settings import Settings
from .tracing import Hop, hops_below, request_id
from .work_queue import EVENTS, put

log = logging.getLogger(__name__)

_EVENTS_KEPT = 10_000
Answer = Callable[[Request], Awaitable[dict[str, Any]]]


def key_of(request: Request) -> str:
    """The API key in ``request``. Raises Unauthorized when there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not key:
        challenge = {"www-authenticate": 'Bearer realm="ai-platform"'}
        raise Unauthorized("an API key is required: Authorization: Bearer …", headers=challenge)
    return key


class Gateway:
    """Lets requests in, passes them on, counts them."""

    def __init__(self, settings: Settings, peers: Peers, link: RedisLink) -> None:
        self._settings = settings
        self._peers = peers
        self._link = link
        self.refused = 0
        self.events_lost = 0

    def endpoint(self, kind: str, scope: str, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of one kind of request, which keys of ``scope`` may use."""

        async def endpoint(request: Request) -> Response:
            begun = perf_counter()
            client, status = "unknown", 500
            try:
                owner = await self._owner(request, scope)
                client = owner["client"]
                await self._limit(owner)
                body = await answer(request)
                status = 200
                return Json({**body, **self._way(begun)})
            except Failure as failure:
                status = failure.status
                self.refused += isinstance(failure, Rejected)
                raise
            finally:
                await self._count(client, kind, status, perf_counter() - begun)

        return endpoint

    async def routed(self, request: Request, kind: str) -> dict[str, Any]:
        """The router's answer to the body of ``request``."""
        return await self.route({**await body_of(request), "kind": kind})

    async def route(self, body: dict[str, Any]) -> dict[str, Any]:
        """The router's answer to ``body``."""
        answer: dict[str, Any] = await self._peers.call("request-router", "POST", "/route", body, timeout_seconds=20.0)
        return answer

    async def usage(self, _: Request) -> dict[str, Any]:
        """What each client used, from the event collector."""
        answer: dict[str, Any] = await self._peers.call("event-collector", "GET", "/usage")
        return answer

    async def _owner(self, request: Request, scope: str) -> dict[str, Any]:
        owner: dict[str, Any] = await self._peers.call("auth-service", "POST", "/verify", {"key": key_of(request)})
        if scope not in owner["scopes"]:
            raise Forbidden(f"this API key is not for {scope}")
        return owner

    async def _limit(self, owner: dict[str, Any]) -> None:
        try:
            verdict = await take(self._link, owner["id"], owner["per_minute"], owner["burst"])
        except Unavailable as reason:
            log.warning("rate limit not kept", extra={"fields": {"reason": reason.detail}})
            return
        if not verdict.allowed:
            wait = ceil(verdict.retry_after_seconds)
            raise TooMany(f"more than {owner['per_minute']} requests a minute", headers={"retry-after": str(wait)})

    def _way(self, begun: float) -> dict[str, Any]:
        """The services that a request passed through, in order, with the time each took (ms, of its own reckoning)."""
        own = Hop(self._settings.service, self._settings.node, 1000 * (perf_counter() - begun))
        trace = [own, *(hops_below.get() or ())]
        return {
            "request_id": request_id.get(),
            "path": list(dict.fromkeys(hop.service for hop in trace)),
            "trace": [{**asdict(hop), "ms": round(hop.ms, 2)} for hop in trace],
        }

    async def _count(self, client: str, kind: str, status: int, seconds: float) -> None:
        event = {
            "at": datetime.now(UTC).isoformat(),
            "client": client,
            "kind": kind,
            "status": str(status),
            "ms": f"{1000 * seconds:.2f}",
            "request_id": request_id.get(),
        }
        try:
            await put(self._link, EVENTS, event, most=_EVENTS_KEPT)
        except Unavailable:
            self.events_lost += 1

    async def figures(self) -> dict[str, Any]:
        """What was turned away, and which usage could not be noted."""
        return {"requests_refused": self.refused, "events_lost": self.events_lost}


def build(settings: Settings, connections: Connections) -> Service:
    """The service over the peers and the redis that Consul knows."""
    link = RedisLink(connections.resolver)
    gateway = Gateway(settings, connections.peers, link)

    def passed_on(kind: str) -> Answer:
        return lambda request: gateway.routed(request, kind)

    async def get_document(request: Request) -> dict[str, Any]:
        return await gateway.route({"kind": "get-document", "id": request.path_params["id"]})

    def route(path: str, method: str, kind: str, scope: str, answer: Answer) -> Route:
        return Route(path, gateway.endpoint(kind, scope, answer), methods=[method])

    return Service(
        settings,
        [
            route("/v1/ask", "POST", "ask", "ask", passed_on("ask")),
            route("/v1/search", "POST", "search", "ask", passed_on("search")),
            route("/v1/summarise", "POST", "summarise", "ask", passed_on("summarise")),
            route("/v1/documents", "POST", "put-document", "documents", passed_on("put-document")),
            route("/v1/documents/{id}", "GET", "get-document", "documents", get_document),
            route("/v1/usage", "GET", "usage", "usage", gateway.usage),
        ],
        figures=gateway.figures,
        probes={"redis": link.probe},
        close=[link.close],
    )


if __name__ == "__main__":
    run("api-gateway", build)
