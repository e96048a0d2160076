"""The small HTTP server of the node agents: what it answers, and what nobody can make it do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest

from citadel_consul.errors import InvalidInput
from citadel_consul.telemetry import responder
from citadel_consul.telemetry.listener import address_of, bind
from citadel_consul.telemetry.responder import Page, Responder


async def _numbers() -> Page:
    return Page(b'{"a": 1}')


async def _broken() -> Page:
    raise KeyError("a bug")


@asynccontextmanager
async def _serving(host: str = "127.0.0.1") -> AsyncIterator[str]:
    """A responder on a socket of its own; yields its address."""
    with bind(host, 0, setting="test.bind", flag="--test") as listener:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(Responder({"/v1/numbers": _numbers, "/broken": _broken}).serve(listener))
            yield address_of(listener, host)
            serving.cancel()


def _http(address: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=5.0)


async def _raw(address: str, *sent: bytes) -> bytes:
    """Everything that comes back when ``sent`` is sent piece by piece."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    for piece in sent:
        writer.write(piece)
        await writer.drain()
    found = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return found


async def test_it_answers_what_it_has_and_ends_the_connection() -> None:
    async with _serving() as address, _http(address) as http:
        answer = await http.get("/v1/numbers?pretty")
        assert (answer.status_code, answer.json()) == (200, {"a": 1})
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["connection"] == "close"


async def test_it_listens_on_ipv6_too() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with _serving("::1") as address, _http(address) as http:
        assert (await http.get("/v1/numbers")).status_code == 200


async def test_head_has_no_body() -> None:
    async with _serving() as address:
        answer = await _raw(address, b"HEAD /v1/numbers HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_can_be_changed(method: str) -> None:
    async with _serving() as address, _http(address) as http:
        answer = await http.request(method, "/v1/numbers", content=b"")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD"


async def test_an_unknown_path_is_told_the_known_ones() -> None:
    async with _serving() as address, _http(address) as http:
        answer = await http.get("/../etc/passwd")
        assert answer.status_code == 404
        assert "/v1/numbers" in answer.json()["detail"]


async def test_a_bug_in_an_answer_is_answered_and_logged_and_nothing_ends(caplog: pytest.LogCaptureFixture) -> None:
    async with _serving() as address, _http(address) as http:
        assert (await http.get("/broken")).status_code == 500
        assert "a bug" in caplog.text
        assert (await http.get("/v1/numbers")).status_code == 200


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ("no host", b"GET / HTTP/1.1\r\n\r\n"),
        ("another version", b"GET / HTTP/3.0\r\nHost: x\r\n\r\n"),
        ("a head without end", b"GET /v1/numbers HTTP/1.1\r\nX: " + b"a" * 20_000),
    ],
)
async def test_what_is_no_request_is_refused(name: str, sent: bytes) -> None:
    async with _serving() as address:
        assert (await _raw(address, sent)).startswith(b"HTTP/1.1 4"), name
        async with _http(address) as http:
            assert (await http.get("/v1/numbers")).status_code == 200


async def test_a_request_in_pieces_is_put_together() -> None:
    async with _serving() as address:
        answer = await _raw(address, b"GET /v1/nu", b"mbers HTTP/1.1\r\nHo", b"st: x\r\n\r\n")
        assert orjson.loads(answer.rpartition(b"\r\n")[2]) == {"a": 1}


async def test_who_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "REQUEST_SECONDS", 0.1)
    async with _serving() as address:
        assert await _raw(address, b"GET /v1/numbers HTT") == b""


async def test_idle_connections_keep_nobody_out_for_longer_than_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "REQUEST_SECONDS", 0.3)
    async with _serving() as address, contextlib.AsyncExitStack() as stack:
        host, port = address.rsplit(":", 1)
        for _ in range(responder.CONNECTIONS + 3):
            _, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
        async with _http(address) as http:
            assert (await http.get("/v1/numbers")).status_code == 200


async def test_a_cancelled_server_leaves_no_connection_behind() -> None:
    async with _serving() as address:
        host, port = address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


def test_an_address_that_cannot_be_had_is_named() -> None:
    with bind("127.0.0.1", 0, setting="agent.bind", flag="--agent-bind") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"agent.bind.*127.0.0.1:{port} cannot be bound.*--agent-bind"):
            bind("127.0.0.1", port, setting="agent.bind", flag="--agent-bind")
    with pytest.raises(InvalidInput, match=r"no-such-host\.invalid:0 cannot be bound"):
        bind("no-such-host.invalid", 0, setting="agent.bind", flag="--agent-bind")
