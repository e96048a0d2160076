"""Runs one service: its HTTP server, its health, its trace, its background work, its end.

A service is *starting* until its ``start`` hook is done: it listens from the first moment, so that whoever asks is
told 503 with the reason and need not guess, and serves only afterwards. ``/health`` answers 200 while all is well,
429 while the service works with less than it should (Consul reads 429 as 'warning'), and 503 while it cannot serve.
``/ready`` answers the same without the figures: Consul asks it, and keeps the answer, which therefore must not change
while nothing happens.
A background task that ends with an error ends the process: whoever supervises it starts it anew from a known state.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from . import logs
from .discovery import client_over, resolver_for
from .failures import Failure, Unavailable
from .middleware import Gate
from .payload import Json
from .peers import Peers
from .settings import Settings
from .vitals import Vitals

log = logging.getLogger(__name__)

GRACE_SECONDS = 0.7
"""How long requests under way may take to finish once the service is told to stop."""

RETRY_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""The delays between attempts of ``start``; the last one repeats."""

Hook = Callable[[], Awaitable[None]]
Figures = Callable[[], Awaitable[dict[str, Any]]]
Probe = Callable[[], Awaitable[object]]


@dataclass
class Service:
    """What a service module hands over to be run.

    ``probes`` are what the service keeps a connection to; one that fails makes it degraded. ``figures`` adds
    numbers to ``/health``; the key ``degraded`` in them names further reasons (a list of texts).
    """

    settings: Settings
    routes: Sequence[BaseRoute]
    start: Hook | None = None
    background: Sequence[Hook] = ()
    figures: Figures | None = None
    probes: dict[str, Probe] = field(default_factory=dict)
    close: Sequence[Hook] = ()


class Connections:
    """The way of a service to the others: what Consul knows of them, a pooled HTTP client, and the peers behind it."""

    def __init__(self, settings: Settings) -> None:
        self.resolver = resolver_for(settings)
        self.http = client_over(self.resolver)
        self.peers = Peers(self.http)

    async def close(self) -> None:
        """Close every pooled connection, and stop following services."""
        await self.http.aclose()
        await self.resolver.aclose()


class Application:
    """The running form of a Service: an ASGI application and what goes on beside it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.settings = service.settings
        self.vitals = Vitals()
        self.waiting_for = "starting"
        self.open_connections: Callable[[], int] = lambda: 0
        routes = [Route("/health", self._health), Route("/ready", self._ready), *service.routes]
        handlers: dict[Any, Any] = {Failure: problem, HTTPException: http_problem}
        starlette = Starlette(routes=routes, exception_handlers=handlers)
        self.asgi = Gate(starlette, self.settings, self.vitals, lambda: self.waiting_for)

    async def start(self) -> None:
        """Run the start hook until it succeeds; what it needs may appear only now."""
        for attempt in itertools.count():
            try:
                if self.service.start:
                    await self.service.start()
            except Unavailable as reason:
                self.waiting_for = reason.detail
                log.warning("not ready yet", extra={"fields": {"reason": reason.detail, "attempt": attempt + 1}})
                await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            else:
                self.waiting_for = ""
                log.info("ready", extra={"fields": {"after_seconds": self.vitals.figures()["uptime_seconds"]}})
                return

    async def work(self) -> None:
        """Start, then do the background work until cancelled."""
        await self.start()
        async with asyncio.TaskGroup() as group:
            for job in self.service.background:
                group.create_task(_forever(job))

    async def close(self) -> None:
        """Close what the service holds open."""
        for close in self.service.close:
            await close()

    async def _health(self, _: Request) -> Response:
        state, figures, code = await self._condition()
        return Json({**state, **figures}, code)

    async def _ready(self, _: Request) -> Response:
        state, _figures, code = await self._condition()
        return Json(state, code)

    async def _condition(self) -> tuple[dict[str, Any], dict[str, Any], int]:
        """How the service is, the figures, and the HTTP status that says it."""
        figures: dict[str, Any] = {"active_connections": self.open_connections(), **self.vitals.figures()}
        reasons = [] if self.waiting_for else await self._failing_probes()
        if self.service.figures and not self.waiting_for:
            figures |= await self.service.figures()
            reasons += figures.pop("degraded", [])
        if self.waiting_for:
            status, code, reasons = "starting", 503, [self.waiting_for]
        else:
            status, code = ("degraded", 429) if reasons else ("ok", 200)
        head: dict[str, Any] = {"status": status, "service": self.settings.service, "node": self.settings.node}
        return {**head, **({"reasons": reasons} if reasons else {})}, figures, code

    async def _failing_probes(self) -> list[str]:
        async def failing(name: str, probe: Probe) -> str:
            try:
                async with asyncio.timeout(1.0):
                    await probe()
            except Failure as failure:
                return f"{name}: {failure.detail}"
            except TimeoutError:
                return f"{name}: no answer within 1 s"
            return ""

        found = await asyncio.gather(*(failing(name, probe) for name, probe in self.service.probes.items()))
        return [reason for reason in found if reason]


async def _forever(job: Hook) -> None:
    await job()
    raise RuntimeError(f"{job} ended, though it should go on as long as the service does")


async def problem(_: Request, failure: Exception) -> Response:
    """A Failure as a problem document (RFC 9457)."""
    if not isinstance(failure, Failure):
        raise failure
    title = type(failure).__name__
    body = {"type": "about:blank", "title": title, "status": failure.status, "detail": failure.detail}
    return Json(body, failure.status, headers=failure.headers, media_type="application/problem+json")


async def http_problem(_: Request, error: Exception) -> Response:
    """What the routing itself refuses (no such path, no such method), as a problem document."""
    if not isinstance(error, HTTPException):
        raise error
    body = {"type": "about:blank", "title": error.detail, "status": error.status_code, "detail": error.detail}
    return Json(body, error.status_code, headers=dict(error.headers or {}), media_type="application/problem+json")


class _Server(uvicorn.Server):
    """A server that leaves signals alone: stopping is decided in one place, by ``serve``."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Ends the process with the reason when the address cannot be had.

    The protocol is named because asyncio turns Nagle's algorithm off only on sockets that name it, as those do that
    it opens itself; with it on, a response in two parts waits 40 ms for the client's delayed acknowledgement.
    """
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(256)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise SystemExit(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


async def serve(application: Application, stop: asyncio.Event | None = None) -> None:
    """Run ``application`` until SIGTERM or SIGINT, or until ``stop`` is set; then end within a second."""
    settings = application.settings
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listener = listen(settings.host, settings.port)
    config = uvicorn.Config(
        application.asgi,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
        server_header=False,
    )
    server = _Server(config)
    application.open_connections = lambda: len(server.server_state.connections)
    log.info("listening", extra={"fields": {"address": f"{settings.host}:{settings.port}"}})
    try:
        async with asyncio.TaskGroup() as group:
            working = group.create_task(application.work())
            serving = group.create_task(server.serve(sockets=[listener]))
            await stop.wait()
            log.info("stopping")
            server.should_exit = True
            await asyncio.wait({serving}, timeout=GRACE_SECONDS)
            serving.cancel()
            working.cancel()
    finally:
        await application.close()
        log.info("stopped")


def run(name: str, build: Callable[[Settings, Connections], Service]) -> None:
    """The ``main`` of every service: read the environment, build, serve. Ends with status 0 when told to stop."""
    settings = Settings.read(name)
    logs.set_up(name, settings.node, settings.log_level)

    async def main() -> None:
        connections = Connections(settings)
        service = build(settings, connections)
        service.close = [*service.close, connections.close]
        await serve(Application(service))

    asyncio.run(main())
