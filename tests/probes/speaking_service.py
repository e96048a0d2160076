"""Services that a gauge can ask: each is an HTTP server on loopback that says what the test has it say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from citadel_consul.core.model import Check, CheckKind, ProcessBackend, ServiceSpec


@dataclass
class Speaker:
    """What the service says. ``asked`` holds the paths of the requests that came, ``hang`` those that get no answer."""

    port: int = 0
    bodies: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    delay_seconds: float = 0.0
    hang: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends, without an answer, what hangs."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def spec(self, *checks: Check, **fields: object) -> ServiceSpec:
        """The spec of a service with ``checks`` of this speaker."""
        return ServiceSpec("web", "test", ("n1",), ProcessBackend(("x",)), checks=checks, **fields)  # type: ignore[arg-type]

    def http(self, path: str = "/health", **fields: object) -> Check:
        return Check("http", CheckKind.HTTP, self.url(path), **fields)  # type: ignore[arg-type]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            if path not in self.hang:
                await asyncio.sleep(self.delay_seconds)
                body = self.bodies.get(path, b"{}")
                line = f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(line.encode() + body)
                await writer.drain()
            else:
                await self.let_go.wait()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def speaking(**bodies: bytes) -> AsyncIterator[Speaker]:
    """A service that answers ``/health`` with ``health``, and so on."""
    speaker = Speaker(bodies={f"/{name}": body for name, body in bodies.items()})
    server = await asyncio.start_server(speaker.serve, "127.0.0.1", 0)
    speaker.port = server.sockets[0].getsockname()[1]
    async with server:
        try:
            yield speaker
        finally:
            speaker.let_go.set()
