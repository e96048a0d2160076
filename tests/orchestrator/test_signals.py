"""Node agents of a large stack signal their reports by their locks, and the leader reads those that have moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager

import pytest
from consul_process import ConsulSpace

from citadel_consul.agent.reporter import Reporter
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.consul.transaction import lock
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import Instance
from citadel_consul.core.snapshot import Defaults
from citadel_consul.errors import ConsulUnavailable
from citadel_consul.orchestrator.feed import Feed
from citadel_consul.store import documents
from citadel_consul.store.documents import AgentRecord
from citadel_consul.store.keys import Keys
from citadel_consul.store.reading import read_state
from citadel_consul.store.state import StackState

WITHIN_SECONDS = 20.0
NODES = ("n1", "n2", "n3")


class Nodes:
    """Node agents that hold their locks and report; they signal if they are large, and know how to if they are new."""

    def __init__(self, client: ConsulClient, keys: Keys) -> None:
        self.client = client
        self.keys = keys
        self.large = True
        self.reporters: dict[str, Reporter] = {}
        self.sessions: dict[str, str] = {}

    async def reporter(self, node: str, *, new: bool) -> Coroutine[None, None, None]:
        """Take the lock of a node; returns the work of its reporter."""
        session = self.sessions[node] = await self.client.session_create(node)
        value = documents.AGENT.encode(AgentRecord(node, node, node, "", 1.0, signals=new))
        await self.client.transact([lock(self.keys.agent(node), value, session)])
        reporter = self.reporters[node] = Reporter(self.client, self.keys, node, None)
        return reporter.run(session, lock_value=value, signals=lambda: new and self.large)

    def report(self, node: str, generation: int) -> None:
        observed = Observed(generation, Phase.READY, 1.0)
        self.reporters[node].report(Instance("web", node), observed)


@pytest.fixture
async def nodes(consul: ConsulSpace) -> AsyncIterator[Nodes]:
    async with ConsulClient(parse_address(consul.address)) as client:
        found = Nodes(client, Keys(consul.stack))
        yield found
        for session in found.sessions.values():
            await client.session_destroy(session)


class Shaky(ConsulClient):
    """A client whose reads of single keys fail a few times, and that notes which are answered by a sure leader."""

    failing = 0
    sure: bool | None = None

    async def kv_get(self, key: str, *, consistent: bool = False) -> KVEntry | None:
        self.sure = consistent if self.sure is None else self.sure and consistent
        if self.failing:
            self.failing -= 1
            raise ConsulUnavailable("it does not answer")
        return await super().kv_get(key, consistent=consistent)


@asynccontextmanager
async def leader(nodes: Nodes, client: ConsulClient | None = None) -> AsyncIterator[tuple[StackState, asyncio.Event]]:
    """What a leader knows, kept up to date by its feed."""
    state = await read_state(nodes.client, nodes.keys.stack, Defaults())
    bell = asyncio.Event()
    task = asyncio.ensure_future(Feed(client or nodes.client, state, bell).run())
    try:
        yield state, bell
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until_seen(known: tuple[StackState, asyncio.Event], node: str, generation: int) -> None:
    """Wait until the leader knows that report; how long it may take leaves out that it reads all now and then."""
    state, bell = known
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            bell.clear()
            seen = state.snapshot().observed.get(Instance("web", node))
            if seen is not None and seen.generation == generation:
                return
            await bell.wait()


@asynccontextmanager
async def reporting(nodes: Nodes, *, old: Collection[str] = ()) -> AsyncIterator[None]:
    """The node agents at work for the time of the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(await nodes.reporter(node, new=node not in old)) for node in NODES]
        for node in NODES:
            nodes.report(node, 1)
        yield
        for task in tasks:
            task.cancel()


async def test_a_report_is_signalled_in_the_same_write_and_the_lock_stays(nodes: Nodes) -> None:
    async with leader(nodes) as known, reporting(nodes):
        await until_seen(known, "n1", 1)
        nodes.report("n1", 2)
        await until_seen(known, "n1", 2)
        key = await nodes.client.kv_get(nodes.keys.agent("n1"))
        report = await nodes.client.kv_get(nodes.keys.observed_of("n1"))
    assert key is not None
    assert report is not None
    assert (key.modify_index, key.session) == (report.modify_index, nodes.sessions["n1"])
    assert documents.AGENT.decode(key.value).node == "n1"


async def test_the_leader_reads_what_moved_once_all_signal(nodes: Nodes) -> None:
    async with leader(nodes) as known, reporting(nodes):
        for node in NODES:
            await until_seen(known, node, 1)
        assert known[0].reports_are_signalled()
        for generation in range(2, 12):
            node = NODES[generation % len(NODES)]
            nodes.report(node, generation)
            await until_seen(known, node, generation)


async def test_a_signalled_report_that_cannot_be_read_is_read_later(nodes: Nodes, consul: ConsulSpace) -> None:
    async with (
        Shaky(parse_address(consul.address)) as shaky,
        leader(nodes, shaky) as known,
        reporting(nodes),
    ):
        for node in NODES:
            await until_seen(known, node, 1)
        assert known[0].reports_are_signalled()
        shaky.sure, shaky.failing = None, 3
        nodes.report("n2", 2)
        await until_seen(known, "n2", 2)
        assert shaky.failing == 0
        assert shaky.sure, "a server that was deposed could answer with the report before"


async def test_an_agent_of_an_earlier_version_among_them_is_heard_as_well(nodes: Nodes) -> None:
    async with leader(nodes) as known, reporting(nodes, old=("n2",)):
        for generation in range(1, 4):
            for node in NODES:
                nodes.report(node, generation)
                await until_seen(known, node, generation)
        assert not known[0].reports_are_signalled()


async def test_the_report_that_says_there_will_be_no_signals_is_signalled_itself(nodes: Nodes) -> None:
    async with leader(nodes) as known, reporting(nodes):
        for node in NODES:
            await until_seen(known, node, 1)
        nodes.large = False
        for generation in range(2, 5):
            for node in NODES:
                nodes.report(node, generation)
                await until_seen(known, node, generation)
        assert not known[0].reports_are_signalled()


async def test_a_small_stack_costs_no_signals(nodes: Nodes) -> None:
    nodes.large = False
    async with leader(nodes) as known, reporting(nodes):
        await until_seen(known, "n1", 1)
        key = await nodes.client.kv_get(nodes.keys.agent("n1"))
        report = await nodes.client.kv_get(nodes.keys.observed_of("n1"))
    assert key is not None
    assert report is not None
    assert key.modify_index < report.modify_index
