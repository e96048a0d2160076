"""The pool, against servers that do what servers do."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import pytest

from citadel_consul.consul import connection
from citadel_consul.consul.address import ConsulAddress
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.connection import Answer, ConnectionPool, Target
from citadel_consul.consul.transport import HttpxTransport
from citadel_consul.errors import ConsulRefused, ConsulUnavailable

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(
    handler: Handler, max_connections: int = 4, read_timeout_seconds: float = 5.0
) -> AsyncIterator[ConsulClient]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client hung up
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    address = ConsulAddress(port=port)
    pool = ConnectionPool(Target("127.0.0.1", port), max_connections)
    transport = HttpxTransport(
        address, transport=pool, connect_timeout_seconds=1.0, read_timeout_seconds=read_timeout_seconds
    )
    client = ConsulClient(address, transport=transport)
    try:
        yield client
    finally:
        await transport.aclose()
        server.close()


async def head_of(reader: asyncio.StreamReader) -> bytes:
    """Read one request with its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            await reader.readexactly(int(value))
    return head


def answer(body: bytes, *headers: bytes) -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"HTTP/1.1 200 OK", length, *headers, b"", body])


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await head_of(reader)
        writer.write(answer(b"true"))


def saying(raw: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(raw)
        await writer.drain()

    return handler


async def test_requests_one_after_another_share_a_connection() -> None:
    connections = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(reader, writer)

    async with serving(counting) as client:
        for _ in range(10):
            assert await client.kv_put("a", bytes(100_000))
    assert connections == 1


async def test_an_answer_leaves_nothing_to_the_garbage_collector() -> None:
    async with serving(answering) as client:
        await client.kv_put("a", b"")
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await client.kv_put("a", b"")
            assert not [left for left in gc.get_objects() if isinstance(left, Answer)]
        finally:
            gc.enable()


async def test_a_connection_that_the_server_closes_is_not_used_again() -> None:
    async with serving(saying(answer(b"true", b"Connection: close"))) as client:
        for _ in range(3):
            assert await client.kv_put("a", b"")


async def test_a_connection_that_was_idle_for_long_is_closed_while_another_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together, left, moment = asyncio.Barrier(3), asyncio.Semaphore(0), 1000.0

    async def three_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await head_of(reader)
            await together.wait()
            writer.write(answer(b"true"))
            await answering(reader, writer)
        finally:
            left.release()

    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: moment))
    async with serving(three_at_once) as client:
        await asyncio.gather(*(client.kv_put("a", b"") for _ in range(3)))
        moment += connection.IDLE_SECONDS - 1
        await client.kv_put("a", b"")
        assert left.locked()
        moment += 2
        await client.kv_put("a", b"")
        async with asyncio.timeout(10):
            await left.acquire()
            await left.acquire()
        assert left.locked()


async def test_an_idle_connection_that_the_server_dropped_is_replaced() -> None:
    dropped = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(answer(b"true"))
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        dropped.set()

    async with serving(once) as client:
        for _ in range(3):
            dropped.clear()
            assert await client.kv_put("a", b"")
            await dropped.wait()  # the kernel knows by now; this loop need not


async def test_an_answer_in_chunks_is_put_together() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ntr\r\n2\r\nue\r\n0\r\n\r\n"
    async with serving(saying(chunked)) as client:
        assert await client.kv_put("a", b"")


async def test_an_answer_that_comes_before_the_body_was_taken_is_heard() -> None:
    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large")
        await writer.drain()
        await reader.read()

    async with serving(refusing) as client:
        with pytest.raises(ConsulRefused, match="413: too large"):
            await client.kv_put("a", bytes(512 * 1024))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\ntru",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_an_answer_that_is_none_is_an_outage_and_costs_no_connection(raw: bytes) -> None:
    async with serving(saying(raw), max_connections=1) as client:
        for _ in range(3):
            with pytest.raises(ConsulUnavailable, match="cannot be reached"):
                await client.kv_put("a", b"")


async def test_nobody_listening_is_an_outage() -> None:
    async with serving(answering) as client:
        port = client.address.port
    async with ConsulClient(ConsulAddress(port=port)) as late:
        with pytest.raises(ConsulUnavailable, match="cannot be reached"):
            await late.kv_get("a")


@pytest.mark.parametrize("host", ["a" * 64, "a..b", "no-such-host.invalid"])
async def test_a_host_that_is_none_is_an_outage(host: str) -> None:
    async with ConsulClient(ConsulAddress(host=host)) as client:
        with pytest.raises(ConsulUnavailable, match="cannot be reached"):
            await client.kv_get("a")


@pytest.mark.parametrize("reused", [False, True], ids=["new connection", "used connection"])
async def test_a_request_cancelled_at_any_step_costs_no_connection(reused: bool) -> None:
    async with serving(answering, max_connections=1) as client:
        for steps in range(60):
            if reused:
                assert await client.kv_put("a", b"")
            request = asyncio.ensure_future(client.kv_put("a", b""))
            for _ in range(steps):
                await asyncio.sleep(0)
            request.cancel()
            with suppress(asyncio.CancelledError):
                await request
        # There is one connection to have: if any of the sixty had kept it, this would be an error.
        assert await client.kv_put("a", b"")


async def test_a_request_that_finds_every_connection_taken_waits_no_longer_than_for_a_connection() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(silent, max_connections=1) as client, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(client.kv_get("a"))
        await asyncio.sleep(0)
        with pytest.raises(ConsulUnavailable, match="PoolTimeout"):
            await client.kv_get("a")
        first.cancel()


async def test_dropped_connections_end_what_waits_on_them_and_serve_nobody_else() -> None:
    waiting = asyncio.Event()

    async def silent_at_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not waiting.is_set():
            await head_of(reader)
            waiting.set()
            await reader.read()
        await answering(reader, writer)

    async with serving(silent_at_first) as consul, asyncio.TaskGroup() as group:
        blocked = group.create_task(_outcome(consul))
        await waiting.wait()
        consul.drop_connections()
        assert isinstance(await blocked, ConsulUnavailable)
        assert await consul.kv_put("key", b"")


async def _outcome(consul: ConsulClient) -> object:
    try:
        return await consul.kv_put("key", b"")
    except ConsulUnavailable as error:
        return error


async def test_a_time_out_takes_the_idle_connections_with_it() -> None:
    """All that were open went dead together: only the first request pays for it."""
    dead: list[asyncio.StreamWriter] = []

    async def mortal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await head_of(reader)
            if writer in dead:
                await reader.read()
            writer.write(answer(b"true"))
            alive.append(writer)

    alive: list[asyncio.StreamWriter] = []
    async with serving(mortal, read_timeout_seconds=0.2) as consul:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(consul.kv_put("key", b""))
        dead.extend(alive)
        with pytest.raises(ConsulUnavailable):
            await consul.kv_put("key", b"")
        assert await consul.kv_put("key", b"")
