"""Connections are kept, used again and given up: against real servers on loopback."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from tiny_server import TinyServer

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.discovery.connections import Connections


@asynccontextmanager
async def client_over(connections: Connections) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=connections) as client:
        yield client


def kept(connections: Connections) -> int:
    """How many idle connections there are, by both accounts of them."""
    by_address = sum(len(queue) for queue in connections._by_origin.values())
    assert by_address == len(connections._idle)
    return by_address


async def test_a_connection_is_used_again_and_closed_in_the_end() -> None:
    connections = Connections()
    async with TinyServer("a").listening() as a, client_over(connections) as client:
        for _ in range(3):
            assert (await client.get(f"http://127.0.0.1:{a.port}/")).text == "a"
        assert a.connections == 1
        assert kept(connections) == 1
    assert kept(connections) == 0


async def test_requests_at_once_have_a_connection_each_and_no_more_than_the_limit_is_kept() -> None:
    connections = Connections(max_idle=2)
    async with TinyServer("a").listening() as a, TinyServer("b").listening() as b, client_over(connections) as client:
        urls = [f"http://127.0.0.1:{one.port}/" for one in (a, b)] * 4
        answers = await asyncio.gather(*[client.get(url) for url in urls])
    assert [answer.text for answer in answers] == ["a", "b"] * 4
    assert a.connections + b.connections == 8
    assert kept(connections) == 0


async def test_the_limit_holds_after_each_answer() -> None:
    connections = Connections(max_idle=2)
    async with TinyServer("a").listening() as a, client_over(connections) as client:
        await asyncio.gather(*[client.get(f"http://127.0.0.1:{a.port}/") for _ in range(5)])
        assert kept(connections) == 2


async def test_an_expired_connection_is_not_used_and_is_closed_by_the_next_answer_of_anybody() -> None:
    connections = Connections(keepalive_seconds=0.0)
    async with TinyServer("a").listening() as a, TinyServer("b").listening() as b, client_over(connections) as client:
        await client.get(f"http://127.0.0.1:{a.port}/")
        await client.get(f"http://127.0.0.1:{a.port}/")
        assert a.connections == 2
        await client.get(f"http://127.0.0.1:{b.port}/")
        assert len(connections._by_origin) == 1


async def test_a_connection_that_the_server_has_closed_is_noticed_before_a_request_is_lost_on_it() -> None:
    connections = Connections()
    async with client_over(connections) as client:
        async with TinyServer("a").listening() as a:
            await client.get(f"http://127.0.0.1:{a.port}/")
        async with TinyServer("again", port=a.port).listening():
            # A POST may not be repeated, so nothing hides it.
            assert (await client.post(f"http://127.0.0.1:{a.port}/", content=b"x")).text == "again"


async def test_a_request_that_was_cancelled_takes_its_connection_with_it() -> None:
    connections = Connections()
    async with TinyServer("a", behave=lambda: "hang").listening() as a, client_over(connections) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.get(f"http://127.0.0.1:{a.port}/")
        async with asyncio.timeout(10):
            while a.open:  # noqa: ASYNC110  # what is waited for says nothing when it comes
                await asyncio.sleep(0.005)
    assert kept(connections) == 0


async def test_a_stream_left_in_the_middle_takes_its_connection_with_it() -> None:
    connections = Connections()
    async with TinyServer("a", behave=lambda: "stream").listening() as a, client_over(connections) as client:
        async with client.stream("GET", f"http://127.0.0.1:{a.port}/") as answer:
            assert await anext(answer.aiter_raw()) == b"first "
        assert kept(connections) == 0


async def test_an_answer_that_is_closed_after_the_transport_leaves_nothing_behind() -> None:
    connections = Connections()
    async with TinyServer("a").listening() as a:
        request = httpx.Request("GET", f"http://127.0.0.1:{a.port}/", extensions={"timeout": {}})
        answer = await connections.handle_async_request(request)
        await connections.aclose()
        assert await answer.aread() == b"a"
        await answer.aclose()
        await answer.aclose()
    assert kept(connections) == 0


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("reset", httpx.RemoteProtocolError),
        ("break", httpx.RemoteProtocolError),
        ("hang", httpx.ReadTimeout),
    ],
)
async def test_errors_are_those_of_httpx(behaviour: str, error: type[httpx.TransportError]) -> None:
    connections = Connections()
    async with TinyServer("longer", behave=lambda: behaviour).listening() as a, client_over(connections) as client:
        with pytest.raises(error) as caught:
            await client.get(f"http://127.0.0.1:{a.port}/", timeout=0.2)
    assert type(caught.value) is error
    assert kept(connections) == 0


async def test_nobody_there_is_a_connect_error_and_another_scheme_is_refused() -> None:
    async with TinyServer("a").listening() as a:
        pass
    async with client_over(Connections()) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{a.port}/")
        with pytest.raises(httpx.UnsupportedProtocol):
            await client.get("gopher://127.0.0.1/")


async def test_tls_is_spoken_and_the_certificate_is_held_against_the_name_that_was_asked_for(
    consul_binary: ConsulBinary, tmp_path: Path
) -> None:
    for arguments in (["ca", "create"], ["cert", "create", "-server", "-additional-dnsname", "web.consul"]):
        made = await asyncio.create_subprocess_exec(
            str(consul_binary.path), "tls", *arguments, cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        assert await made.wait() == 0
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(tmp_path / "dc1-server-consul-0.pem", tmp_path / "dc1-server-consul-0-key.pem")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "consul-agent-ca.pem"))
    async with TinyServer("a", tls=served).listening() as a:
        url = f"https://127.0.0.1:{a.port}/"
        async with client_over(Connections(verify=trusting)) as client:
            assert (await client.get(url, extensions={"sni_hostname": "web.consul"})).text == "a"
        async with client_over(Connections(verify=trusting)) as client:
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await client.get(url, extensions={"sni_hostname": "other.consul"})
        async with client_over(Connections()) as client:
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await client.get(url)
