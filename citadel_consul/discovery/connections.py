"""Connections to the instances: kept per address, each belonging to one request until its answer was read.

The connections themselves are httpcore's, as under httpx's own transport; what is different is how they are kept. That
pool looks at every connection it has, and asks the kernel about each idle one, twice for every request: 0.5 ms for
twenty of them (measured). A moment in which answers are late leaves many behind, so it is when a client has no time to
lose that its requests get slower, for as long as it goes on. Here a request looks at one connection: the one that was
used last at its address. A request that was cancelled takes its connection with it, wherever it was.
"""

from __future__ import annotations

import ssl
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import httpcore
import httpx

KEEPALIVE_SECONDS: Final = 4.0
"""Shorter than the five seconds after which many servers close an idle connection, lest both do it at once."""

MAX_IDLE: Final = 100

Origin = tuple[bytes, bytes, int]
"""Scheme, host and port."""

_PORTS: Final = {b"http": 80, b"https": 443}

# The most specific first: the first that an error is an instance of is what it becomes.
_ERRORS: Final[tuple[tuple[type[Exception], type[httpx.TransportError]], ...]] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.PoolTimeout, httpx.PoolTimeout),
    (httpcore.TimeoutException, httpx.TimeoutException),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.NetworkError, httpx.NetworkError),
    (httpcore.ProxyError, httpx.ProxyError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
    (httpcore.ProtocolError, httpx.ProtocolError),
    (httpcore.ConnectionNotAvailable, httpx.ConnectError),
)
_FOREIGN: Final = tuple(foreign for foreign, _ in _ERRORS)


class Connections(httpx.AsyncBaseTransport):
    """An httpx transport with connections of its own, as many as there are requests under way.

    ``keepalive_seconds`` is how long one that is idle may be used again, ``max_idle`` how many are kept in all.
    ``verify`` is the context for TLS; without one it is httpx's usual one, made when it is first needed.
    """

    def __init__(
        self,
        *,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        max_idle: int = MAX_IDLE,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._keepalive = keepalive_seconds
        self._max_idle = max_idle
        self._tls = verify
        # Both hold the idle connections: by address, and all in the order in which they will expire.
        self._by_origin: dict[Origin, deque[httpcore.AsyncHTTPConnection]] = {}
        self._idle: OrderedDict[httpcore.AsyncHTTPConnection, tuple[Origin, float]] = OrderedDict()
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; its connection is given back when the answer is closed. Raises httpx's errors."""
        url = request.url
        if url.raw_scheme not in _PORTS:
            raise httpx.UnsupportedProtocol(f"{url.scheme}:// is not HTTP")
        origin = (url.raw_scheme, url.raw_host, url.port or _PORTS[url.raw_scheme])
        connection = await self._take(origin) or self._new(origin)
        try:
            response = await connection.handle_async_request(_core_request(request, origin))
        except _FOREIGN as error:
            await connection.aclose()
            raise _translated(error) from error
        except BaseException:
            await connection.aclose()
            raise

        async def done() -> None:
            await self._give_back(origin, connection)

        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response, done),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close the idle connections now, and each other one when its answer is closed."""
        self._closed = True
        while self._idle:
            await self._forget_oldest().aclose()

    def _new(self, origin: Origin) -> httpcore.AsyncHTTPConnection:
        if origin[0] == b"https" and self._tls is None:
            self._tls = httpx.create_ssl_context()
        return httpcore.AsyncHTTPConnection(
            httpcore.Origin(*origin), ssl_context=self._tls, keepalive_expiry=self._keepalive
        )

    async def _take(self, origin: Origin) -> httpcore.AsyncHTTPConnection | None:
        """The idle connection that was used last: the others may expire, and one that is warm is the fastest."""
        kept = self._by_origin.get(origin)
        while kept:
            connection = kept.pop()
            del self._idle[connection]
            if not connection.has_expired():  # asks the kernel, too: the event loop may not have seen its end yet
                return connection
            await connection.aclose()
        return None

    async def _give_back(self, origin: Origin, connection: httpcore.AsyncHTTPConnection) -> None:
        if self._closed or not connection.is_idle():
            await connection.aclose()
            return
        now = time.monotonic()
        self._by_origin.setdefault(origin, deque()).append(connection)
        self._idle[connection] = (origin, now + self._keepalive)
        for surplus in self._surplus(now):
            await surplus.aclose()

    def _surplus(self, now: float) -> list[httpcore.AsyncHTTPConnection]:
        """Forget those that have expired, and the oldest of too many; all at once, since closing lets others in."""
        found = []
        while self._idle and (len(self._idle) > self._max_idle or next(iter(self._idle.values()))[1] < now):
            found.append(self._forget_oldest())
        return found

    def _forget_oldest(self) -> httpcore.AsyncHTTPConnection:
        connection, (origin, _) = self._idle.popitem(last=False)
        kept = self._by_origin[origin]
        kept.popleft()  # the oldest of all is the oldest of its address
        if not kept:
            del self._by_origin[origin]
        return connection


class _Body(httpx.AsyncByteStream):
    """The body of an answer, whose connection is free when it is closed."""

    def __init__(self, response: httpcore.Response, done: Callable[[], Awaitable[None]]) -> None:
        self._response = response
        self._done: Callable[[], Awaitable[None]] | None = done

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.aiter_stream():
                yield piece
        except _FOREIGN as error:
            raise _translated(error) from error

    async def aclose(self) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        try:
            await self._response.aclose()
        finally:
            await done()


def _core_request(request: httpx.Request, origin: Origin) -> httpcore.Request:
    stream = request.stream
    if not isinstance(stream, httpx.AsyncByteStream):
        raise TypeError("the request has a body that cannot be read asynchronously")
    scheme, host, port = origin
    return httpcore.Request(
        request.method,
        httpcore.URL(scheme=scheme, host=host, port=port, target=request.url.raw_path),
        headers=request.headers.raw,
        content=stream,
        extensions=request.extensions,
    )


def _translated(error: Exception) -> httpx.TransportError:
    return next(ours for foreign, ours in _ERRORS if isinstance(error, foreign))(str(error))
