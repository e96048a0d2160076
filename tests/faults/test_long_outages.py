"""Faults that last a minute. Most wait all the time, so they are played side by side, each on its own Consul."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from campaign import EDGES, PLACES
from cluster import Cluster
from kv_audit import Audit
from real_world import World
from roles import Crew, PatientWorld, spread
from verdict import every_instance, judge, lives_of, running

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.operation import Kind, OperationState
from citadel_consul.store.keys import Keys

pytestmark = [pytest.mark.consul, pytest.mark.slow]

OUTAGE_SECONDS = 60.0
HALF_OPEN_SECONDS = 60.0
"""Well below what a watch waits for an answer: who lost its lock to silence must not wait on what is silent."""
SUCCESSOR_SECONDS = 10.0
"""Several times what the check of a leader allows it between two signs of life."""
SECOND_AGENT_SECONDS = 60.0
"""A node agent waits half as long for a lock that may be that of a predecessor that died."""
REFUSED = 4
"""The exit status of a role that may not do what it was started for."""


def _crew(
    stack: ExitStack, folder: Path, environ: dict[str, str], consuls: tuple[str, ...], orchestrators: int
) -> Crew:
    """A stack on both nodes, with orchestrators and agents spread over ``consuls``."""
    folder.mkdir()
    world = stack.enter_context(PatientWorld(consuls[0], folder, f"f{folder.name}", environ, consuls=consuls))
    crew = stack.enter_context(Crew(world))
    for number in range(orchestrators):
        crew.orchestrator(f"o{number + 1}", consuls[number % len(consuls)])
    for number, node in enumerate(("n1", "n2")):
        crew.agent(node, consuls[number % len(consuls)])
    # Slow enough that a startup is still under way when the fault comes.
    world.apply(
        [spread(world, name, nodes, delay=1.0, start_timeout_seconds=120.0) for name, nodes in PLACES.items()], EDGES
    )
    crew.until_manned()
    return crew


def _assert_sound(crew: Crew, lives: int = 1) -> None:
    """Every service has had so many lives and still has the last, and no invariant is broken."""
    world, audit = crew.world, Audit()
    for instance in every_instance(PLACES):
        found = [life.pid for life in lives_of(world, instance)]
        assert len(found) == lives, f"{instance}: {found}\n{world.logs()}"
        assert running(world, instance) == found[-1:], f"{instance}\n{world.logs()}"
    audit.look(world)
    assert judge(world, PLACES, EDGES, audit, ()).broken == []


def _lose_quorum(binary: ConsulBinary, folder: Path, environ: dict[str, str]) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(binary, folder, ("n1", "n2")))
        consuls = tuple(member.address for member in (*cluster.clients.values(), cluster.servers[2]))
        crew = _crew(stack, folder / "quorum", environ, consuls, 3)
        world = crew.world
        assert world.operate(Kind.STARTUP, "db", "cache").state is OperationState.SUCCEEDED
        operation_id = world.request(Kind.STARTUP)
        world.until(lambda: len(world.lives("api@n2")) == 1, 30.0, "a startup that is under way")
        before = world.running_pids()
        processes = [role.process for role in crew.roles]
        cluster.lose_quorum()
        deadline = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(1.0)
            now = world.running_pids()
            assert all(now[name] == pids for name, pids in before.items()), world.logs()
            assert all(process.alive for process in processes), world.logs()
        cluster.heal()
        operation = world.end_of(operation_id, 120.0)
        assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{world.logs()}"
        assert [role.process for role in crew.roles] == processes
        _assert_sound(crew)


def _late_consul(binary: ConsulBinary, folder: Path, environ: dict[str, str]) -> None:
    """Every call is answered 300 ms late, at the default settings, at rest and during operations."""
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(binary, folder, ("n1", "n2")))
        crew = _crew(stack, folder / "late", environ, tuple(m.address for m in cluster.clients.values()), 2)
        for role in crew.roles:
            role.proxy.delay_seconds = 0.3
        world = crew.world
        epoch = world.until_led()["epoch"]
        deadline = time.monotonic() + OUTAGE_SECONDS
        lives = 0
        while time.monotonic() < deadline:
            assert world.operate(Kind.STARTUP, within=120.0).state is OperationState.SUCCEEDED
            lives += 1
            leader = world.leader()
            assert leader is not None, world.logs()
            assert leader["epoch"] == epoch, world.logs()
            if time.monotonic() < deadline:
                assert world.operate(Kind.SHUTDOWN, within=120.0).state is OperationState.SUCCEEDED
        if not any(world.running_pids().values()):
            assert world.operate(Kind.STARTUP, within=120.0).state is OperationState.SUCCEEDED
            lives += 1
        assert world.until_led()["epoch"] == epoch, world.logs()
        _assert_sound(crew, lives)
        _assert_a_successor_stays(crew, epoch)
        _assert_sound(crew, lives)


def _assert_a_successor_stays(crew: Crew, epoch: int) -> None:
    """The leader dies, and whoever takes over has to read everything at 300 ms a call before it can do anything."""
    world = crew.world
    crew.leader().kill()
    world.until(lambda: (found := world.leader()) is not None and found["epoch"] > epoch, 30.0, "a successor")
    successor = world.until_led()["epoch"]
    deadline = time.monotonic() + SUCCESSOR_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.5)
        leader = world.leader()
        assert leader is not None, world.logs()
        assert leader["epoch"] == successor, world.logs()


def _half_open(binary: ConsulBinary, folder: Path, environ: dict[str, str]) -> None:
    """The connections of the leader and of a node agent go dead without a word, in the middle of a startup."""
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(binary, folder, ("n1", "n2")))
        crew = _crew(stack, folder / "halfopen", environ, tuple(m.address for m in cluster.clients.values()), 2)
        world = crew.world
        operation_id = world.request(Kind.STARTUP)
        world.until(lambda: len(world.lives("db@n1")) == 1, 30.0, "a startup that is under way")
        crew.leader().proxy.freeze()
        crew.agents[0].proxy.freeze()
        operation = world.end_of(operation_id, HALF_OPEN_SECONDS)
        assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{world.logs()}"
        _assert_sound(crew)


def _second_agent(binary: ConsulBinary, folder: Path, environ: dict[str, str]) -> None:
    """By mistake a second agent is started for a node, on another machine: only the lock in Consul can tell it."""
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(binary, folder, ("n1", "n2")))
        crew = _crew(stack, folder / "second", environ, tuple(m.address for m in cluster.clients.values()), 1)
        world, first = crew.world, crew.agents[0]
        record = _record_of(world, first.node)
        second = crew.agent(first.node, cluster.clients["n2"].address, CITADEL_STATE_DIR=str(folder / "elsewhere"))
        assert world.operate(Kind.STARTUP, within=120.0).state is OperationState.SUCCEEDED, world.logs()
        assert second.process.popen.wait(SECOND_AGENT_SECONDS) == REFUSED, second.log
        assert f"another node agent answers for node '{first.node}'" in second.log
        assert first.process.alive
        assert _record_of(world, first.node) == record
        _assert_sound(crew)


def _record_of(world: World, node: str) -> bytes:
    """What the agent that has the lock of a node says of itself there, its own id included."""

    async def read(client: ConsulClient) -> bytes:
        entry = await client.kv_get(Keys(world.stack).agent(node))
        assert entry is not None
        return entry.value

    return world.ask(read)


SCENARIOS: dict[str, Callable[[ConsulBinary, Path, dict[str, str]], None]] = {
    "quorum": _lose_quorum,
    "half-open": _half_open,
    "second-agent": _second_agent,
}


@pytest.fixture(scope="module")
def outcomes(
    consul_binary: ConsulBinary, role_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """All scenarios, begun at once; a test waits for the outcome of its own."""
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {
            name: pool.submit(play, consul_binary, tmp_path_factory.mktemp(name), role_environment)
            for name, play in SCENARIOS.items()
        }


def test_a_quorum_lost_for_a_minute_stops_no_service_and_the_operation_under_way_finishes(
    outcomes: dict[str, Future[None]],
) -> None:
    outcomes["quorum"].result()


def test_half_open_connections_hold_an_operation_up_but_do_not_break_it(outcomes: dict[str, Future[None]]) -> None:
    outcomes["half-open"].result()


def test_a_second_agent_for_a_node_says_so_and_exits_and_the_first_goes_on(outcomes: dict[str, Future[None]]) -> None:
    outcomes["second-agent"].result()


def test_a_consul_that_is_late_for_a_minute_does_not_depose_the_leader(
    consul_binary: ConsulBinary, role_environment: dict[str, str], tmp_path: Path
) -> None:
    """After the others and by itself: their polls would make it later still, in the process that all proxies share."""
    _late_consul(consul_binary, tmp_path, role_environment)
