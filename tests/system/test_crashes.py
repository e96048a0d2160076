"""kill -9 of any process of citadel at any step: what was begun is finished, and nothing is done twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from checker import violations
from consul_process import ConsulProcess
from consul_proxy import ConsulProxy, Trap
from real_world import World

from citadel_consul.core.model import Edge
from citadel_consul.core.operation import Kind, OperationState

pytestmark = [pytest.mark.consul, pytest.mark.slow]

DIAMOND = ("base", "left", "right", "top")
EDGES = (("left", "base"), ("right", "base"), ("top", "left"), ("top", "right"))
STEPS = (1, 4, 7)  # every write is a step: tests/faults kills at each of them


def _apply_diamond(world: World) -> None:
    world.apply([world.tiny(name) for name in DIAMOND], EDGES)


def _assert_started_once(world: World) -> None:
    edges = [Edge(*edge) for edge in EDGES]
    assert violations(world.chronicle(), edges) == []
    for service in DIAMOND:
        assert len(world.lives(service)) == 1, f"{service}: {world.lives(service)}\n{world.logs()}"
        assert world.running_pids()[service] == world.lives(service)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("nth", STEPS)
def test_a_startup_survives_the_death_of_its_leader_at_each_write(world: World, nth: int, before: bool) -> None:
    _apply_diamond(world)
    with ConsulProxy(world.consul) as proxy:
        world.agent()
        first = world.orchestrator("o1", consul=proxy.address)
        world.until_led()
        world.until(lambda: world.snapshot().agents, what="an agent")
        proxy.writes = 0
        trap = proxy.trap = Trap(nth, before, first.popen.kill)
        operation_id = world.request(Kind.STARTUP)
        world.until(lambda: trap.sprung or ((found := world.operation(operation_id)) and found.ended))
        first.kill()
        world.orchestrator("o2")
        operation = world.end_of(operation_id)
    assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{world.logs()}"
    _assert_started_once(world)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("nth", STEPS)
def test_a_startup_survives_the_death_of_the_agent_at_each_write(world: World, nth: int, before: bool) -> None:
    _apply_diamond(world)
    world.orchestrator()
    with ConsulProxy(world.consul) as proxy:
        first = world.agent(consul=proxy.address)
        world.until_led()
        world.until(lambda: world.snapshot().agents, what="an agent")
        proxy.writes = 0
        trap = proxy.trap = Trap(nth, before, first.popen.kill)
        operation_id = world.request(Kind.STARTUP)
        world.until(lambda: trap.sprung or ((found := world.operation(operation_id)) and found.ended))
        first.kill()
        world.agent()
        operation = world.end_of(operation_id)
    assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{world.logs()}"
    _assert_started_once(world)


def test_an_agent_that_is_killed_and_comes_back_restarts_nothing(world: World) -> None:
    _apply_diamond(world)
    world.orchestrator()
    first = world.agent()
    assert world.operate(Kind.STARTUP).state is OperationState.SUCCEEDED
    first.kill()
    world.agent()
    world.until(lambda: sum(e.what == "adopted" for e in world.chronicle()) == len(DIAMOND), what="adoption")
    assert world.operate(Kind.SHUTDOWN).state is OperationState.SUCCEEDED
    assert all(len(world.lives(service)) == 1 for service in DIAMOND)
    assert all(not pids for pids in world.running_pids().values())


def test_losing_consul_stops_no_service(consul_server: ConsulProcess, world: World) -> None:
    _apply_diamond(world)
    with ConsulProxy(world.consul) as proxy:
        orchestrator = world.orchestrator(consul=proxy.address)
        agent = world.agent(consul=proxy.address)
        assert world.operate(Kind.STARTUP).state is OperationState.SUCCEEDED
        before = world.running_pids()
        proxy.silence()
        world.until(lambda: world.leader() is None, 20.0, "the lock to be free")
        proxy.cut()
        assert orchestrator.alive
        assert agent.alive
        assert world.running_pids() == before
        proxy.speak()
        world.until_led(30.0)
        assert world.operate(Kind.SHUTDOWN).state is OperationState.SUCCEEDED
    assert all(len(world.lives(service)) == 1 for service in DIAMOND)


def test_a_second_agent_for_a_node_says_so_and_exits(world: World, tmp_path: Path) -> None:
    first = world.agent()
    world.until(lambda: world.snapshot().agents, what="an agent")
    second = world.agent()
    assert second.popen.wait(10) == 4
    assert "another node agent" in second.log.read_text()
    assert first.alive
