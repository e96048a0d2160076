"""Node agents that are killed, paused, cut off or rebooted: what runs goes on, and nothing is started twice."""

from __future__ import annotations

import os
import signal
import time

import pytest
from checker import stops_in_place, violations
from consul_proxy import Trap
from roles import Crew, Role, spread
from verdict import lives_of, operations_of

from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Edge, Instance
from citadel_consul.core.operation import Kind, OperationState

pytestmark = [pytest.mark.consul, pytest.mark.slow]

SERVICES = ("base", "left", "right", "top")
EDGES = tuple(Edge(*pair) for pair in (("left", "base"), ("right", "base"), ("top", "left"), ("top", "right")))
INSTANCES = [Instance(service, "n1") for service in SERVICES]
PAST_ITS_LOCK_SECONDS = 8.0
"""The lock of a node agent hangs on a check of 5 s."""
LEAST_WRITES = 8


@pytest.fixture
def agent(crew: Crew) -> Role:
    """The agent of a node on which a diamond of services runs, led by one orchestrator."""
    crew.orchestrator("o1")
    made = crew.agent("n1")
    allowed = {"start_timeout_seconds": 120.0, "stop_timeout_seconds": 120.0}
    crew.world.apply([spread(crew.world, name, ("n1",), **allowed) for name in SERVICES], EDGES)
    crew.until_manned()
    _operate(crew, Kind.STARTUP)
    return made


def _operate(crew: Crew, kind: Kind, *targets: str) -> None:
    operation = crew.world.operate(kind, *targets, within=120.0)
    assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{crew.world.logs()}"


def _assert_sound(crew: Crew, lives: int = 1) -> None:
    """Each service had so many lives, the last of which goes on, and it is reported as it is."""
    world = crew.world
    assert violations(world.chronicle(), EDGES, in_place=stops_in_place(operations_of(world))) == []
    running = world.running_pids()
    world.until(lambda: world.snapshot().agents == {"n1"}, 30.0, "the lock of the node")
    observed = world.snapshot().observed
    for instance in INSTANCES:
        pids = [life.pid for life in lives_of(world, instance)]
        assert len(pids) == lives, f"{instance}: {pids}\n{world.logs()}"
        assert running[str(instance)] == pids[-1:], f"{instance}\n{world.logs()}"
        assert (observed[instance].phase, observed[instance].pid) == (Phase.READY, pids[-1]), world.logs()


def test_an_agent_that_was_paused_past_its_lock_takes_it_again_and_follows_what_was_ordered(
    crew: Crew, agent: Role
) -> None:
    agent.pause()
    crew.world.until(lambda: not crew.world.snapshot().agents, 30.0, "the lock to be free")
    operation_id = crew.world.request(Kind.RESTART, "top")
    time.sleep(1.0)
    _assert_running_as_before(crew)
    agent.process.resume()
    assert crew.world.end_of(operation_id, 120.0).state is OperationState.SUCCEEDED
    top = [life.pid for life in lives_of(crew.world, Instance("top", "n1"))]
    assert len(top) == 2
    _operate(crew, Kind.RESTART, "base", "left", "right")
    _assert_sound(crew, lives=2)


def _assert_running_as_before(crew: Crew) -> None:
    for instance in INSTANCES:
        assert crew.world.running_pids()[str(instance)] == [life.pid for life in lives_of(crew.world, instance)]


def test_an_agent_that_was_cut_off_reports_what_happened_meanwhile(crew: Crew, agent: Role) -> None:
    agent.proxy.silence()
    crew.world.until(lambda: not crew.world.snapshot().agents, 30.0, "the lock to be free")
    _assert_running_as_before(crew)
    agent.proxy.cut()
    agent.proxy.speak()
    crew.world.until(lambda: bool(crew.world.snapshot().agents), 30.0, "the lock to be taken again")
    _assert_sound(crew)
    _operate(crew, Kind.RESTART, "all")
    _assert_sound(crew, lives=2)


def test_an_operation_waits_for_an_agent_that_is_killed_and_comes_back(crew: Crew, agent: Role) -> None:
    agent.kill()
    operation_id = crew.world.request(Kind.RESTART, "all")
    time.sleep(1.0)
    _assert_running_as_before(crew)
    agent.start()
    assert crew.world.end_of(operation_id, 120.0).state is OperationState.SUCCEEDED
    _assert_sound(crew, lives=2)


def test_after_a_reboot_what_was_wanted_is_started_once_each_and_in_order(crew: Crew, agent: Role) -> None:
    """A machine goes down with everything on it and comes back: the agent finds nothing running."""
    agent.kill()
    for pids in crew.world.running_pids().values():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    time.sleep(1.0)
    agent.start()
    crew.world.until(lambda: all(len(lives_of(crew.world, i)) == 2 for i in INSTANCES), 120.0, "a second life of each")
    ready = lambda: all(seen.phase is Phase.READY for seen in crew.world.snapshot().observed.values())  # noqa: E731
    crew.world.until(ready, 120.0, "all to be ready")
    _assert_sound(crew, lives=2)


def test_a_paused_agent_whose_node_was_taken_over_does_nothing_when_it_wakes(crew: Crew, agent: Role) -> None:
    """The second has a state folder of its own, as on another machine: only the lock in Consul tells them apart."""
    _operate(crew, Kind.SHUTDOWN, "all")
    agent.pause()
    crew.world.until(lambda: not crew.world.snapshot().agents, 30.0, "the lock to be free")
    second = crew.agent("n1", CITADEL_STATE_DIR=str(crew.world.folder / "state2"))
    crew.world.until(lambda: bool(crew.world.snapshot().agents), 120.0, "the second agent")
    _operate(crew, Kind.STARTUP, "all")
    agent.process.resume()
    assert agent.process.popen.wait(60) == 4, agent.log
    assert second.process.alive
    assert all(len(lives_of(crew.world, instance)) == 2 for instance in INSTANCES), crew.world.logs()
    assert all(len(pids) == 1 for pids in crew.world.running_pids().values())
    _operate(crew, Kind.SHUTDOWN, "all")


def test_an_order_that_comes_before_its_spec_is_not_refused_for_it(crew: Crew, agent: Role) -> None:
    """Orders and specs are watched side by side, and after an outage one can come back seconds before the other."""
    agent.proxy.withhold("/specs/?")
    crew.world.apply([spread(crew.world, "late", ("n1",))])
    _operate(crew, Kind.STARTUP, "late")
    agent.proxy.withhold("")


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_restart_survives_the_death_of_the_agent_at_each_write(crew: Crew, agent: Role, before: bool) -> None:
    nth = 1
    while _restart_with_a_death(crew, agent, nth, before=before):
        _assert_sound(crew, lives=1 + nth)
        nth += 1
    print(f"the agent was killed at {nth - 1} writes")
    assert nth > LEAST_WRITES


def _restart_with_a_death(crew: Crew, agent: Role, nth: int, *, before: bool) -> bool:
    """Restart everything, and kill the agent at its nth write; returns whether there was one."""
    world = crew.world
    agent.proxy.writes = 0
    trap = agent.proxy.trap = Trap(nth, before, agent.process.popen.kill)
    operation_id = world.request(Kind.RESTART, "all", cascade=True)
    world.until(lambda: trap.sprung or world.operation(operation_id).ended, 120.0)  # type: ignore[union-attr]
    if sprung := agent.proxy.disarm():
        agent.kill()
        agent.start()
    operation = world.end_of(operation_id, 120.0)
    assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{world.logs()}"
    return sprung
