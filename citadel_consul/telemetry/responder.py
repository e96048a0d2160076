"""A small HTTP server for processes that have something to show and nothing to be told.

It answers GET and HEAD of a few paths, one request a connection. What it costs is bounded whatever anybody sends: so
many connections at a time, so many seconds for each, so many bytes of a request. A framework would double the memory of
a node agent.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

import h11
import orjson

log = logging.getLogger(__name__)

CONNECTIONS = 16
REQUEST_SECONDS = 5.0
MAX_HEAD_BYTES = 8 * 1024
ACCEPT_PAUSE_SECONDS = 0.1

JSON = "application/json"


class Page(NamedTuple):
    """What one path shows."""

    body: bytes
    media_type: str = JSON


Answer = Callable[[], Awaitable[Page]]
"""Makes the page of one path at the moment of the request."""


class _Reply(NamedTuple):
    status: HTTPStatus
    page: Page


class Responder:
    """Serves ``answers`` by path. Run :meth:`serve` in a task."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = answers
        self._places = asyncio.Semaphore(CONNECTIONS)

    async def serve(self, listener: socket.socket) -> None:
        """Answer what comes on ``listener`` until cancelled; what waits for a place waits in the kernel's backlog."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                await self._places.acquire()
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:  # no descriptors left, or the peer has gone again
                    self._places.release()
                    log.warning("a connection was not accepted: %s", error)
                    await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                    continue
                task = group.create_task(self._serve_one(connection))
                task.add_done_callback(lambda _, connection=connection: self._let_go(connection))  # type: ignore[misc]

    def _let_go(self, connection: socket.socket) -> None:
        connection.close()
        self._places.release()

    async def _serve_one(self, connection: socket.socket) -> None:
        wire = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await self._exchange(wire, connection)
        except (TimeoutError, OSError, h11.LocalProtocolError):
            return  # nobody is there any more to be told

    async def _exchange(self, wire: h11.Connection, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            request = await _read_request(wire, connection)
        except h11.RemoteProtocolError as error:
            reply = _refusal(HTTPStatus(error.error_status_hint), "not an HTTP request")
            await loop.sock_sendall(connection, _written(wire, reply, with_body=True))
            connection.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(connection, MAX_HEAD_BYTES):  # closing on what is unread would undo the answer
                pass
            return
        if request is not None:
            with_body = request.method != b"HEAD"
            await loop.sock_sendall(connection, _written(wire, await self._reply_to(request), with_body=with_body))

    async def _reply_to(self, request: h11.Request) -> _Reply:
        if request.method not in (b"GET", b"HEAD"):
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "there is nothing to be changed here")
        answer = self._answers.get(request.target.partition(b"?")[0].decode("ascii", "replace"))
        if answer is None:
            return _refusal(HTTPStatus.NOT_FOUND, f"there are: {', '.join(self._answers)}")
        try:
            return _Reply(HTTPStatus.OK, await answer())
        except Exception:  # what is only looked at must not bring down what runs
            log.exception("%s could not be answered", request.target.decode("ascii", "replace"))
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "a bug; the log tells")


async def _read_request(wire: h11.Connection, connection: socket.socket) -> h11.Request | None:
    """The head of the request; None if the client has closed before. Raises RemoteProtocolError."""
    loop = asyncio.get_running_loop()
    while True:
        event = wire.next_event()
        if event is h11.NEED_DATA:
            wire.receive_data(await loop.sock_recv(connection, MAX_HEAD_BYTES))
            continue
        return event if isinstance(event, h11.Request) else None


def _refusal(status: HTTPStatus, detail: str) -> _Reply:
    return _Reply(status, Page(orjson.dumps({"status": status.value, "detail": detail})))


def _written(wire: h11.Connection, reply: _Reply, *, with_body: bool) -> bytes:
    headers = [
        ("Content-Type", reply.page.media_type),
        ("Content-Length", str(len(reply.page.body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Connection", "close"),
    ]
    if reply.status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "GET, HEAD"))
    events: list[h11.Event] = [
        h11.Response(status_code=reply.status.value, headers=headers, reason=reply.status.phrase)
    ]
    if with_body:
        events.append(h11.Data(data=reply.page.body))
    return b"".join(wire.send(event) or b"" for event in [*events, h11.EndOfMessage()])
