"""A small HTTP server of a test's own, which can misbehave; Consul knows it if it is told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from consul_process import ConsulProcess, ConsulSpace


@dataclass
class TinyServer:
    """Answers each request with its name.

    ``behave`` is asked for each request: ``answer`` it, ``reset`` the connection, ``break`` off in the middle of the
    body, ``hang``, or ``stream`` (a body of unknown length, which ends when the client goes). ``connections`` is how
    many there have been, ``open`` how many there are.
    """

    name: str
    port: int = 0
    behave: Callable[[], str] = lambda: "answer"
    requests: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    connections: int = 0
    open: int = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[TinyServer]:
        """Serve for the time of the block; connections end with it."""
        writers: set[asyncio.StreamWriter] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.add(writer)
            self.connections += 1
            self.open += 1
            try:
                while await self._serve_one(reader, writer):
                    pass
            except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
                pass
            finally:
                self.open -= 1
                writers.discard(writer)
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in list(writers):
                writer.transport.abort()
            await server.wait_closed()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lengths = [line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
        body = (await reader.readexactly(int(lengths[0]) if lengths else 0)).decode()
        self.requests.append(head.split("\r\n")[0] + (f" {body}" if body else ""))
        self.heads.append(head)
        behaviour = self.behave()
        if behaviour == "hang":
            await reader.read()
        elif behaviour == "reset":
            writer.transport.abort()
        elif behaviour == "stream":
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst ")
            await reader.read()
        else:
            answer = self.name.encode()
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n".encode())
            writer.write(answer if behaviour == "answer" else answer[:1])
            await writer.drain()
        return behaviour == "answer"


def register(
    consul: ConsulSpace | ConsulProcess, service: str, port: int, status: str = "passing", **more: Any
) -> None:
    """Tell Consul of an instance with a TTL check that is in ``status``."""
    identity = more.pop("ID", f"{service}-{port}")
    check = {"CheckID": f"{identity}:alive", "Name": "alive", "TTL": "600s", "Status": status}
    body = {"Name": service, "ID": identity, "Address": "127.0.0.1", "Port": port, "Check": check, **more}
    consul.request("PUT", "/v1/agent/service/register?replace-existing-checks=true", body)


def set_status(consul: ConsulSpace | ConsulProcess, service: str, port: int, status: str) -> None:
    """Feed the check of an instance that :func:`register` made."""
    consul.request("PUT", f"/v1/agent/check/update/{service}-{port}:alive", {"Status": status})


def deregister(consul: ConsulSpace | ConsulProcess, service: str, port: int) -> None:
    consul.request("PUT", f"/v1/agent/service/deregister/{service}-{port}")
