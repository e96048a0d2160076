"""Connections to Consul: an httpx transport over asyncio's streams and httptools.

httpx's own transport loses a connection for good if a request is cancelled between connecting and sending (httpcore
1.0.9: it stays 'new', which is neither idle nor closed). A control loop cancels requests all day, by time-outs and by
lost leases, and a pool that leaks is one day empty. Here a connection belongs to one request until that request ends,
and a request that does not end well takes its connection with it. Answers are parsed by llhttp (httptools), which
takes less of the CPU than a parser in Python.

What is left out is what Consul's API has no use for: proxies, HTTP/2, compression, answers that are streamed.
"""

from __future__ import annotations

import asyncio
import re
import select
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import httptools
import httpx

MAX_CONNECTIONS: Final = 48
MAX_IDLE: Final = 16
IDLE_SECONDS: Final = 60.0
_CHUNK: Final = 256 * 1024
_FORBIDDEN: Final = re.compile(rb"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class Target:
    """Where connections go to. ``socket_path`` comes before host and port; ``tls`` is the context if TLS is spoken."""

    host: str
    port: int
    socket_path: str | None = None
    tls: ssl.SSLContext | None = None
    tls_server_name: str | None = None

    async def connect(self) -> Connection:
        """Open a connection; raises ``OSError``."""
        if self.socket_path is not None:
            reader, writer = await asyncio.open_unix_connection(self.socket_path, limit=_CHUNK)
        else:
            name = (self.tls_server_name or self.host) if self.tls else None
            reader, writer = await asyncio.open_connection(
                self.host, self.port, ssl=self.tls, server_hostname=name, limit=_CHUNK
            )
        return Connection(reader, writer)


class Answer:
    """One response, as httptools' parser tells of it. Interim ones (1xx) are passed over."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.content: list[bytes] = []
        self.complete = False
        self.keeps_alive = False
        self.followed = False
        """Whether anything came after it, which nobody asked for."""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Read what arrived; raises httpx's ``RemoteProtocolError`` if that is no answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise httpx.RemoteProtocolError("the server changed the protocol") from error
        except httptools.HttpParserError as error:
            raise httpx.RemoteProtocolError(f"the server does not speak HTTP/1.1: {error}") from error

    def close(self) -> None:
        """Let go of the parser. It holds us as we hold it, and both would be kept until the garbage collector comes."""
        del self._parser

    def on_message_begin(self) -> None:
        self.followed = self.complete
        if not self.complete:
            self.headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if not self.complete:
            self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.content.append(body)

    def on_message_complete(self) -> None:
        if not self.complete and self.status >= 200:
            self.complete, self.keeps_alive = True, self._parser.should_keep_alive()

    def take_end(self) -> None:
        """Take note that the server hung up: the end of a response that says nothing of its length."""
        lengths = {b"content-length", b"transfer-encoding"}
        if self.status < 200 or any(name.lower() in lengths for name, _ in self.headers):
            raise httpx.RemoteProtocolError("the server hung up without an answer")
        self.complete = True


class Connection:
    """One connection, with one request on it at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._at_rest = True
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        """Whether another request can be sent on it, as far as is known."""
        return self._at_rest and not self._reader.at_eof() and not self._writer.is_closing()

    def has_news(self) -> bool:
        """Whether something arrived that nobody asked for: the end of the connection, nearly always.

        The event loop may not have seen it yet, so the kernel is asked.
        """
        poll = select.poll()
        poll.register(self._writer.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def exchange(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` and read the whole answer."""
        head = _head(request)
        self._at_rest = False
        await self._send(head + request.content)
        answer = Answer()
        try:
            while not answer.complete:
                data = await self._reader.read(_CHUNK)
                if data:
                    answer.feed(data)
                else:
                    answer.take_end()
        finally:
            answer.close()
        self._at_rest = answer.keeps_alive and not answer.followed
        return httpx.Response(answer.status, headers=answer.headers, content=b"".join(answer.content))

    def abort(self) -> None:
        """Drop the connection as it is, unsent bytes included."""
        self._writer.transport.abort()

    async def aclose(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return  # it was broken already

    async def _send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            # Consul answers a body that is too large, and hangs up, before it has read it all: look for that answer.
            return


def _head(request: httpx.Request) -> bytes:
    """The head of a request. Raises httpx's ``LocalProtocolError`` for what would be read as something else."""
    target = request.url.raw_path
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), target)]
    lines += [b"%s: %s" % header for header in request.headers.raw]
    if b" " in target or any(_FORBIDDEN.search(line) for line in lines):
        raise httpx.LocalProtocolError("the request has characters that no head can have")
    return b"\r\n".join([*lines, b"", b""])


@dataclass(slots=True)
class ConnectionPool(httpx.AsyncBaseTransport):
    """Connections to one target. Time-outs come with each request, as httpx has them (``extensions["timeout"]``).

    ``opened`` counts those that were made.
    """

    target: Target
    max_connections: int = MAX_CONNECTIONS
    opened: int = 0
    _idle: list[Connection] = field(default_factory=list)
    _busy: set[Connection] = field(default_factory=set)
    _slots: asyncio.Semaphore = field(init=False)
    _closed: bool = False

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.max_connections)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and read its answer whole. Raises httpx's ``TransportError`` s."""
        timeouts = request.extensions["timeout"]
        async with self._slot(timeouts["pool"]):
            connection = self._take_idle() or await self._connect(timeouts["connect"])
            self._busy.add(connection)
            try:
                response = await self._exchange(connection, request, timeouts["read"])
            except httpx.ReadTimeout:
                connection.abort()
                self._drop_idle()  # they may be as dead as this one, and each would cost a time-out of its own
                raise
            except BaseException:
                connection.abort()
                raise
            finally:
                self._busy.discard(connection)
            self._give_back(connection)
            return response

    def drop(self) -> None:
        """Drop every connection: requests that are under way fail, and the next ones connect anew."""
        self._drop_idle()
        for connection in self._busy:
            connection.abort()

    def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()

    async def aclose(self) -> None:
        """Close the idle connections now, and each other one when its request ends."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.aclose()

    @asynccontextmanager
    async def _slot(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError as error:
            raise httpx.PoolTimeout(f"all {self.max_connections} connections are in use") from error
        try:
            yield
        finally:
            self._slots.release()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            fresh = time.monotonic() - connection.idle_since < IDLE_SECONDS
            if fresh and connection.usable and not connection.has_news():
                return connection
            connection.abort()
        return None

    async def _connect(self, seconds: float) -> Connection:
        try:
            async with asyncio.timeout(seconds):
                connection = await self.target.connect()
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error)) from error
        self.opened += 1
        return connection

    async def _exchange(self, connection: Connection, request: httpx.Request, seconds: float) -> httpx.Response:
        try:
            async with asyncio.timeout(seconds):
                return await connection.exchange(request)
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ReadError(str(error)) from error

    def _give_back(self, connection: Connection) -> None:
        now = time.monotonic()
        while self._idle and now - self._idle[0].idle_since >= IDLE_SECONDS:
            self._idle.pop(0).abort()  # the last one is taken first, so these would never have their turn again
        if connection.usable and not self._closed and len(self._idle) < MAX_IDLE:
            connection.idle_since = now
            self._idle.append(connection)
        else:
            connection.abort()
