"""httpx transports that send a request for a service to an instance that serves.

    async with httpx.AsyncClient(transport=ConsulTransport()) as client:
        answer = await client.get("http://embedding-service.consul/models")

Names are those of Consul's DNS (see ``naming``); a request for any other host goes its usual way. In the path of a
request that goes well there is the choice of an instance and no more: tenacity comes in when the first attempt failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import TracebackType
from typing import Self

import httpx
from tenacity import AsyncRetrying

from citadel_consul.discovery.connections import Connections
from citadel_consul.discovery.failures import DeadlineExceeded
from citadel_consul.discovery.hedge import hedged
from citadel_consul.discovery.journey import ATTEMPTS, Interrupted, Journey, Rules, is_whole
from citadel_consul.discovery.naming import DOMAIN, service_named
from citadel_consul.discovery.resolver import FIRST_ANSWER_SECONDS, Resolver


class ConsulTransport(httpx.AsyncBaseTransport):
    """A transport for ``httpx.AsyncClient``.

    ``resolver`` finds the instances; without one the transport has its own, for the Consul of the environment, and
    closes it. ``over`` is the transport that the requests are sent with; it is closed as well. ``deadline_seconds``
    bounds a request with all of its attempts, ``extensions={"deadline": seconds}`` does so for one request; without
    either, httpx's time-outs bound each attempt. ``attempts`` is how often a request is tried in all. With ``hedging``
    a GET, HEAD, OPTIONS or TRACE whose answer is unusually late is sent to another instance as well, and the first
    answer counts.

    Raises ``NoInstance`` if nobody serves, ``DeadlineExceeded``, and otherwise httpx's error of the last attempt.
    """

    def __init__(
        self,
        resolver: Resolver | None = None,
        *,
        over: httpx.AsyncBaseTransport | None = None,
        attempts: int = ATTEMPTS,
        deadline_seconds: float | None = None,
        hedging: bool = True,
        domain: str = DOMAIN,
    ) -> None:
        self._resolver = resolver if resolver is not None else Resolver()
        self._owns_resolver = resolver is None
        self._over = over if over is not None else Connections()
        self._rules = Rules(attempts, deadline_seconds, hedging)
        self._domain = domain

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` to an instance of the service that its host names."""
        name = service_named(request.url.host, self._domain)
        if name is None:
            return await self._over.handle_async_request(request)
        view = self._resolver.view(name)
        if not view.known:
            view = await self._resolver.known_view(name, first_answer_seconds(request, self._rules))
        journey = Journey(request, view, self._rules)
        try:
            return await hedged(partial(self._travel, journey), journey)
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline is over") from error

    async def _travel(self, journey: Journey) -> httpx.Response:
        try:
            return await self._attempt(journey)
        except Interrupted as interrupted:
            if journey.exhausted:
                raise journey.outcome(interrupted) from interrupted
        stop, wait, retry = journey.policy()
        retrying = AsyncRetrying(stop=stop, wait=wait, retry=retry, reraise=True)
        await asyncio.sleep(journey.pause_seconds())
        try:
            return await retrying(self._attempt, journey)
        except Interrupted as last:
            raise journey.outcome(last) from last

    async def _attempt(self, journey: Journey) -> httpx.Response:
        attempt = journey.choose()
        try:
            response = await self._over.handle_async_request(journey.addressed_to(attempt.instance))
            if is_whole(response):
                response.stream = httpx.ByteStream(await _read(response))
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

    async def aclose(self) -> None:
        """Close the connections to the services and, if it is the transport's own, the resolver."""
        try:
            await self._over.aclose()
        finally:
            if self._owns_resolver:
                await self._resolver.aclose()

    async def __aenter__(self) -> Self:
        await self._over.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self.aclose()


def first_answer_seconds(request: httpx.Request, rules: Rules) -> float:
    """How long a request waits for Consul's first answer: as for a connection, and not past its deadline."""
    connect = request.extensions.get("timeout", {}).get("connect")
    deadline = request.extensions.get("deadline", rules.deadline_seconds)
    return min(float(bound) for bound in (connect, deadline, FIRST_ANSWER_SECONDS) if bound is not None)


async def _read(response: httpx.Response) -> bytes:
    stream = response.stream
    if not isinstance(stream, httpx.AsyncByteStream):
        raise TypeError("the transport gave a stream that cannot be read asynchronously")
    try:
        return b"".join([piece async for piece in stream])
    finally:
        await stream.aclose()


class _Answer(httpx.AsyncByteStream):
    """A body that is read by the caller, who closes it; then the instance has one request less under way."""

    def __init__(self, response: httpx.Response, closed: Callable[[], None]) -> None:
        if not isinstance(response.stream, httpx.AsyncByteStream):
            raise TypeError("the transport gave a stream that cannot be read asynchronously")
        self._stream = response.stream
        self._closed: Callable[[], None] | None = closed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            closed, self._closed = self._closed, None
            if closed is not None:
                closed()
