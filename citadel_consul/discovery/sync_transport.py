"""The transport for ``httpx.Client``: the same journeys, in the caller's thread.

    with httpx.Client(transport=SyncConsulTransport()) as client:
        answer = client.get("http://embedding-service.consul/models")

The watches run in one thread beside, however many services there are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import httpx
from tenacity import Retrying

from citadel_consul.consul.address import ConsulAddress
from citadel_consul.discovery.connections import KEEPALIVE_SECONDS, MAX_IDLE
from citadel_consul.discovery.journey import ATTEMPTS, Interrupted, Journey, Rules, is_whole
from citadel_consul.discovery.naming import DOMAIN, ServiceName, service_named
from citadel_consul.discovery.resolver import Resolver
from citadel_consul.discovery.thread import LoopThread
from citadel_consul.discovery.transport import first_answer_seconds
from citadel_consul.discovery.view import View

THREAD_NAME: Final = "service discovery"

LIMITS: Final = httpx.Limits(
    max_connections=None, max_keepalive_connections=MAX_IDLE, keepalive_expiry=KEEPALIVE_SECONDS
)


class SyncConsulTransport(httpx.BaseTransport):
    """A transport for ``httpx.Client``; threads may share it.

    ``consul``, ``near`` and ``failover`` are those of ``Resolver``, the rest those of ``ConsulTransport``. A deadline
    bounds each wait for the network by itself, because a thread cannot be interrupted in it.
    """

    def __init__(
        self,
        consul: ConsulAddress | None = None,
        *,
        near: bool = False,
        failover: bool = False,
        over: httpx.BaseTransport | None = None,
        attempts: int = ATTEMPTS,
        deadline_seconds: float | None = None,
        domain: str = DOMAIN,
    ) -> None:
        self._resolver = Resolver(consul, near=near, failover=failover)
        self._over = over if over is not None else httpx.HTTPTransport(limits=LIMITS)
        self._rules = Rules(attempts, deadline_seconds)
        self._domain = domain
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._views: dict[ServiceName, View] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` to an instance of the service that its host names."""
        name = service_named(request.url.host, self._domain)
        if name is None:
            return self._over.handle_request(request)
        return self._travel(Journey(request, self._view(name, request), self._rules))

    def _view(self, name: ServiceName, request: httpx.Request) -> View:
        view = self._views.get(name)
        if view is None or view.retired:
            seconds = first_answer_seconds(request, self._rules)
            view = self._views[name] = self._running().call(self._resolver.known_view(name, seconds))
        return view

    def _running(self) -> LoopThread:
        with self._lock:
            if self._thread is None:
                self._thread = LoopThread(THREAD_NAME)
            return self._thread

    def _travel(self, journey: Journey) -> httpx.Response:
        try:
            return self._attempt(journey)
        except Interrupted as interrupted:
            if journey.exhausted:
                raise journey.outcome(interrupted) from interrupted
        stop, wait, retry = journey.policy()
        time.sleep(journey.pause_seconds())
        try:
            return Retrying(stop=stop, wait=wait, retry=retry, reraise=True)(self._attempt, journey)
        except Interrupted as last:
            raise journey.outcome(last) from last

    def _attempt(self, journey: Journey) -> httpx.Response:
        attempt = journey.choose()
        try:
            response = self._over.handle_request(journey.addressed_to(attempt.instance))
            if is_whole(response):
                response.stream = httpx.ByteStream(_read(response))
                journey.responded(attempt)
                journey.answered(attempt)
            else:
                journey.responded(attempt)
                response.stream = _Answer(response, lambda: journey.answered(attempt))
        except httpx.TransportError as error:
            raise journey.failed(attempt, error) from error
        except BaseException:
            journey.abandoned(attempt)
            raise
        return response

    def close(self) -> None:
        """Close all connections and end the thread."""
        try:
            self._over.close()
        finally:
            with self._lock:
                thread, self._thread = self._thread, None
            if thread is not None:
                thread.call(self._resolver.aclose())
                thread.close()


def _read(response: httpx.Response) -> bytes:
    stream = response.stream
    if not isinstance(stream, httpx.SyncByteStream):
        raise TypeError("the transport gave a stream that cannot be read synchronously")
    try:
        return b"".join(stream)
    finally:
        stream.close()


class _Answer(httpx.SyncByteStream):
    """A body that is read by the caller, who closes it; then the instance has one request less under way."""

    def __init__(self, response: httpx.Response, closed: Callable[[], None]) -> None:
        if not isinstance(response.stream, httpx.SyncByteStream):
            raise TypeError("the transport gave a stream that cannot be read synchronously")
        self._stream = response.stream
        self._closed: Callable[[], None] | None = closed

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            closed, self._closed = self._closed, None
            if closed is not None:
                closed()
