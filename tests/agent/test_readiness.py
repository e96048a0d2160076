"""Readiness: the checks of a service are run until they pass, often while that is cheap, and by Consul's rules."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from citadel_consul.agent.readiness import ASKING, CONNECTING, Pace, Prober, connect, is_connected_to_itself
from citadel_consul.core.model import Check, CheckKind, ProcessBackend, ServiceSpec

WITHIN_SECONDS = 10.0


def spec_with(*checks: Check) -> ServiceSpec:
    return ServiceSpec(name="s", type="t", nodes=("n",), backend=ProcessBackend(command=("x",)), checks=checks)


@pytest.fixture
def port() -> Iterator[int]:
    """A port that is ours and that nobody listens on."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def listen(port: int) -> socket.socket:
    """Listen on a held port."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def http_server(port: int, statuses: Iterator[int]) -> AsyncIterator[list[str]]:
    """Answers each request with the next status; connections without a request get no answer. Yields the requests."""
    seen: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(65536)
        if head:
            seen.append(head.split(b"\r\n", 1)[0].decode())
            writer.write(f"HTTP/1.1 {next(statuses)} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, sock=listen(port)):
        yield seen


@pytest.mark.parametrize(
    ("elapsed", "pause"), [(0.0, 0.01), (0.05, 0.01), (1.0, 0.1), (5.0, 0.5), (50.0, 0.5)], ids=str
)
def test_pauses_are_a_share_of_what_was_waited_between_two_bounds(elapsed: float, pause: float) -> None:
    assert Pace(first_seconds=0.01, share=0.1, longest_seconds=0.5).pause_after(elapsed) == pytest.approx(pause)


@pytest.mark.parametrize(("pace", "probes"), [(CONNECTING, 135), (ASKING, 40)])
def test_the_first_second_takes_a_bounded_number_of_probes(pace: Pace, probes: int) -> None:
    elapsed, count = 0.0, 0
    while elapsed < 1.0:
        elapsed += pace.pause_after(elapsed)
        count += 1
    assert count <= probes


async def test_a_port_that_nobody_listens_on_is_told_from_one_that_somebody_does(port: int) -> None:
    assert await connect("127.0.0.1", port) is not None
    with listen(port):
        assert await connect("127.0.0.1", port) is None
        assert await connect("localhost", port) is None
    assert await connect("localhost", port) is not None


def test_a_connection_that_met_itself_is_nobody_and_leaves_the_port_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
        probe.connect(address)
        assert is_connected_to_itself(probe)
    with socket.socket() as service:  # without SO_REUSEADDR: a connection in TIME_WAIT would refuse it
        service.bind(address)


def test_a_connection_to_another_did_not_meet_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as probe:
        assert not is_connected_to_itself(probe)


async def test_a_tcp_check_is_ready_when_somebody_listens(port: int) -> None:
    spec = spec_with(Check("tcp", CheckKind.TCP, f"127.0.0.1:{port}"))
    async with Prober() as prober, asyncio.TaskGroup() as group, asyncio.timeout(WITHIN_SECONDS):
        ready = group.create_task(prober.until_ready(spec))
        await asyncio.sleep(0)
        assert not ready.done()
        with listen(port):
            await ready


async def test_an_http_check_is_ready_at_the_first_good_answer_and_not_before(port: int) -> None:
    spec = spec_with(Check("http", CheckKind.HTTP, f"http://127.0.0.1:{port}/health"))
    async with Prober() as prober, asyncio.TaskGroup() as group, asyncio.timeout(WITHIN_SECONDS):
        ready = group.create_task(prober.until_ready(spec))
        await asyncio.sleep(0)
        async with http_server(port, iter([503, 500, 204, 204])) as seen:
            await ready
            assert seen == ["GET /health HTTP/1.1"] * 3


async def test_all_checks_have_to_pass(port: int, tmp_path: Path) -> None:
    flag = tmp_path / "ready"
    script = (sys.executable, "-S", "-c", f"import os, sys; sys.exit(not os.path.exists({str(flag)!r}))")
    spec = spec_with(Check("tcp", CheckKind.TCP, f"127.0.0.1:{port}"), Check("script", CheckKind.SCRIPT, args=script))
    async with Prober() as prober, asyncio.TaskGroup() as group, asyncio.timeout(WITHIN_SECONDS):
        ready = group.create_task(prober.until_ready(spec))
        with listen(port):
            assert await prober.failure_of(spec.checks[0]) is None
            assert await prober.failure_of(spec.checks[1]) == "exit status 1"
            assert not ready.done()
            flag.touch()
            await ready


async def test_what_only_consul_can_check_is_left_to_consul() -> None:
    async with Prober() as prober, asyncio.timeout(WITHIN_SECONDS):
        await prober.until_ready(spec_with(Check("alive", CheckKind.TTL), Check("rpc", CheckKind.GRPC, "127.0.0.1:1")))


async def test_a_service_that_never_answers_is_asked_until_somebody_gives_up(port: int) -> None:
    spec = spec_with(Check("tcp", CheckKind.TCP, f"127.0.0.1:{port}"))
    async with Prober() as prober:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await prober.until_ready(spec)
