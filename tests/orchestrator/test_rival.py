"""Proof of death: what lets a standby end a leader's session, and what does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from consul_process import ConsulSpace

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.orchestrator.rival import RivalWatch
from citadel_consul.store import documents
from citadel_consul.store.documents import LeaderRecord
from citadel_consul.store.keys import Keys

pytestmark = pytest.mark.consul


@asynccontextmanager
async def _leader_at(space: ConsulSpace, api: str) -> AsyncIterator[tuple[ConsulClient, str, Keys]]:
    """A held leader lock whose holder says that it is at ``api``."""
    keys = Keys(space.stack)
    async with ConsulClient(parse_address(space.address)) as client:
        session = await client.session_create("leader", 10)
        value = documents.LEADER.encode(LeaderRecord("other:1", "other", api, 0.0))
        assert await client.kv_put(keys.leader, value, acquire=session)
        try:
            yield client, session, keys
        finally:
            await client.session_destroy(session)


async def _watch_for(client: ConsulClient, keys: Keys, seconds: float, own_id: str = "me:1") -> None:
    try:
        async with asyncio.timeout(seconds):
            await RivalWatch(client, keys.leader, own_id).run()
    except TimeoutError:
        return


async def _until_gone(client: ConsulClient, keys: Keys) -> None:
    """Wait, by a blocking query, until nobody holds the leader lock."""
    index: int | None = None
    async with asyncio.timeout(5):
        while True:
            answer = await client.kv_read(keys.leader, index, 5.0)
            if answer.value is None or answer.value.session is None:
                return
            index = answer.index


class Listener:
    """What a leader's address looks like from outside. ``polite`` keeps connections open, as a living leader does."""

    def __init__(self, *, polite: bool) -> None:
        self.connections = 0
        self.reached = asyncio.Event()
        self._polite = polite
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Listener:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()

    async def die(self) -> None:
        """As a killed process does: the port is closed, and every connection ends."""
        if self._server is not None:
            self._server.close()
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    async def _accept(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.reached.set()
        if self._polite:
            self._writers.append(writer)
        else:
            writer.close()


async def test_a_refusal_after_a_connection_that_stood_frees_the_lock(consul: ConsulSpace) -> None:
    async with (
        Listener(polite=True) as listener,
        _leader_at(consul, listener.address) as (client, _, keys),
        asyncio.TaskGroup() as group,
    ):
        watching = group.create_task(_watch_for(client, keys, 10))
        async with asyncio.timeout(5):
            await listener.reached.wait()
        await listener.die()
        await _until_gone(client, keys)
        watching.cancel()


async def test_a_refusal_by_an_address_that_was_never_reached_proves_nothing(consul: ConsulSpace) -> None:
    async with Listener(polite=True) as listener:
        await listener.die()
        async with _leader_at(consul, listener.address) as (client, session, keys):
            await _watch_for(client, keys, 2.5)
            assert await client.session_info(session) is not None
    assert listener.connections == 0


async def test_a_connection_that_ends_while_the_address_still_accepts_proves_nothing(consul: ConsulSpace) -> None:
    async with (
        Listener(polite=False) as listener,
        _leader_at(consul, listener.address) as (client, session, keys),
    ):
        await _watch_for(client, keys, 2.0)
        assert await client.session_info(session) is not None
    assert 2 <= listener.connections < 60, "it looks again, and not in a busy loop"


async def test_an_orchestrator_does_not_watch_itself(consul: ConsulSpace) -> None:
    async with Listener(polite=True) as listener, _leader_at(consul, listener.address) as (client, _, keys):
        await _watch_for(client, keys, 0.5, own_id="other:1")
    assert listener.connections == 0
