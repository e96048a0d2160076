"""What a client without the library does: an SRV lookup at Consul's DNS, and any one of the answers.

Enough of DNS (RFC 1035, RFC 2782) for what Consul answers over UDP, and no more.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import struct
import time

import httpx

_SRV, _A, _IN = 33, 1, 1
_numbers = itertools.count(1)


class _Answer(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.data: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _addr: object) -> None:
        if not self.data.done():
            self.data.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.data.done():
            self.data.set_exception(exc)


def _question(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">6H", next(_numbers) % 65536, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, _SRV, _IN)


def _name(data: bytes, at: int) -> tuple[str, int]:
    """The name at a place, and the place after it; names may end in a pointer to an earlier one."""
    labels, end = [], None
    while length := data[at]:
        if length >= 0xC0:
            end = end or at + 2
            at = struct.unpack_from(">H", data, at)[0] & 0x3FFF
        else:
            labels.append(data[at + 1 : at + 1 + length].decode())
            at += 1 + length
    return ".".join(labels), end or at + 1


def parse_srv(data: bytes) -> list[tuple[str, int]]:
    """The addresses and ports of an answer to an SRV question."""
    _, _, questions, *records = struct.unpack_from(">6H", data)
    at = 12
    for _ in range(questions):
        at = _name(data, at)[1] + 4
    targets: list[tuple[str, int]] = []
    hosts: dict[str, str] = {}
    for _ in range(sum(records)):
        owner, at = _name(data, at)
        kind, _, _, length = struct.unpack_from(">HHIH", data, at)
        at += 10
        if kind == _SRV:
            targets.append((_name(data, at + 6)[0], struct.unpack_from(">H", data, at + 4)[0]))
        elif kind == _A:
            hosts[owner] = socket.inet_ntoa(data[at : at + 4])
        at += length
    return [(hosts[target], port) for target, port in targets if target in hosts]


async def look_up(server: tuple[str, int], name: str) -> list[tuple[str, int]]:
    """Ask ``server`` for the SRV records of ``name``. Raises TimeoutError or OSError."""
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(_Answer, remote_addr=server)
    try:
        async with asyncio.timeout(1.0):
            transport.sendto(_question(name))
            return parse_srv(await protocol.data)
    finally:
        transport.close()


class DnsTransport(httpx.AsyncBaseTransport):
    """Sends each request for ``<service>.consul`` to an address in DNS; answers are kept for ``ttl_seconds``."""

    def __init__(self, server: tuple[str, int], ttl_seconds: float = 1.0) -> None:
        self._server = server
        self._ttl = ttl_seconds
        self._over = httpx.AsyncHTTPTransport()
        self._known: list[tuple[str, int]] = []
        self._until = 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if time.monotonic() >= self._until:
            service = request.url.host.split(".")[0]
            try:
                self._known = await look_up(self._server, f"{service}.service.consul")
            except (OSError, TimeoutError) as error:
                raise httpx.ConnectError(f"no answer from DNS: {error!r}") from error
            self._until = time.monotonic() + self._ttl
        if not self._known:
            raise httpx.ConnectError("DNS knows nobody")
        host, port = random.choice(self._known)
        request.url = request.url.copy_with(host=host, port=port)
        return await self._over.handle_async_request(request)

    async def aclose(self) -> None:
        await self._over.aclose()
