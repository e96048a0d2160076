"""Consul's index goes backwards: a snapshot is restored, or all data is lost. Nothing is stopped for it."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from checker import violations
from consul_process import ConsulProcess
from real_world import chain
from roles import Crew, NewCrew

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import Edge
from citadel_consul.core.operation import Kind, OperationState

pytestmark = [pytest.mark.consul, pytest.mark.slow]

NewConsul = Callable[..., ConsulProcess]
SERVICES = ("s0", "s1", "s2")


@pytest.fixture
def consul(new_consul: NewConsul) -> ConsulProcess:
    """A Consul of the test's own, since what happens to it would happen to every other test."""
    return new_consul()


@pytest.fixture
def crew(consul: ConsulProcess, new_crew: NewCrew) -> Crew:
    """A chain of three services, with two orchestrators and a node agent, nothing started yet."""
    made = new_crew(consul.address)
    for number in (1, 2):
        made.orchestrator(f"o{number}")
    made.agent("n1")
    _apply(made)
    made.until_manned()
    return made


def _apply(crew: Crew) -> None:
    crew.world.apply(*chain(crew.world, len(SERVICES)))


def _snapshot(consul: ConsulProcess) -> bytes:
    with urllib.request.urlopen(f"{consul.url}/v1/snapshot", timeout=10) as answer:
        data: bytes = answer.read()
        return data


def _operate(crew: Crew, kinds: Iterable[Kind]) -> None:
    for kind in kinds:
        operation = crew.world.operate(kind, within=120.0)
        assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{crew.world.logs()}"


def _assert_sound(crew: Crew, lives: int, *, up: bool) -> None:
    world = crew.world
    assert violations(world.chronicle(), [Edge(*edge) for edge in (("s1", "s0"), ("s2", "s1"))]) == []
    running = world.running_pids()
    for service in SERVICES:
        pids = world.lives(service)
        assert len(pids) == lives, f"{service}: {pids}\n{world.logs()}"
        assert running[service] == (pids[-1:] if up else []), f"{service}\n{world.logs()}"
    world.until(lambda: _passing(crew) == (set(SERVICES) if up else set()), 30.0, "the catalog to show what runs")


def _passing(crew: Crew) -> set[str]:
    async def read(client: ConsulClient) -> set[str]:
        found = [await client.health_service(service, passing=True) for service in SERVICES]
        return {entry.service.name for answer in found for entry in answer.value}

    return crew.world.ask(read)


def test_after_the_restore_of_an_empty_stack_what_runs_is_found_running(consul: ConsulProcess, crew: Crew) -> None:
    snapshot = _snapshot(consul)
    _operate(crew, [Kind.STARTUP])
    consul.request("PUT", "/v1/snapshot", snapshot)
    _operate(crew, [Kind.STARTUP])
    _assert_sound(crew, 1, up=True)
    _operate(crew, [Kind.SHUTDOWN])
    _assert_sound(crew, 1, up=False)


def test_after_the_restore_of_an_older_state_operations_go_on_from_what_is(consul: ConsulProcess, crew: Crew) -> None:
    _operate(crew, [Kind.STARTUP])
    snapshot = _snapshot(consul)
    _operate(crew, [Kind.RESTART])
    consul.request("PUT", "/v1/snapshot", snapshot)
    _operate(crew, [Kind.STARTUP])
    _assert_sound(crew, 2, up=True)
    _operate(crew, [Kind.RESTART])
    _assert_sound(crew, 3, up=True)
    _operate(crew, [Kind.SHUTDOWN])
    _assert_sound(crew, 3, up=False)


def test_a_shutdown_before_a_restore_that_says_running_is_not_undone_by_it(consul: ConsulProcess, crew: Crew) -> None:
    _operate(crew, [Kind.STARTUP])
    snapshot = _snapshot(consul)
    _operate(crew, [Kind.SHUTDOWN])
    consul.request("PUT", "/v1/snapshot", snapshot)
    time.sleep(3.0)  # time enough for whoever would start something now
    _assert_sound(crew, 1, up=False)
    _operate(crew, [Kind.STARTUP])
    _assert_sound(crew, 2, up=True)


def test_a_startup_that_a_restore_makes_unheard_of_is_taken_up_by_the_next(consul: ConsulProcess, crew: Crew) -> None:
    world = crew.world
    world.apply([world.tiny(service, delay=1.0, start_timeout_seconds=60.0) for service in SERVICES])
    snapshot = _snapshot(consul)
    world.request(Kind.STARTUP)
    world.until(lambda: len(world.lives("s1")) == 1, 30.0, "a startup that is under way")
    consul.request("PUT", "/v1/snapshot", snapshot)
    _operate(crew, [Kind.STARTUP])
    _assert_sound(crew, 1, up=True)


def test_no_service_ends_when_consul_loses_everything_and_leaders_are_obeyed_again(
    consul: ConsulProcess, crew: Crew
) -> None:
    _operate(crew, [Kind.STARTUP])
    for _ in range(300):  # so that the new log is far behind the old one for the rest of the test
        consul.request("PUT", "/v1/kv/padding", b"x")
    leader = crew.leader()
    leader.kill()
    leader.start()
    crew.until_manned()
    _operate(crew, [Kind.RESTART])
    before = crew.world.running_pids()
    consul.kill()
    time.sleep(1.0)
    consul.start()
    crew.until_manned()
    _apply(crew)
    assert crew.world.running_pids() == before
    _operate(crew, [Kind.STARTUP])
    _assert_sound(crew, 2, up=True)
    _operate(crew, [Kind.RESTART, Kind.SHUTDOWN])
    _assert_sound(crew, 3, up=False)


FIRST_WINDOW_SECONDS = 0.05
"""The first wait of a watch after it lost Consul is a random moment of the second half of this."""


def test_watches_come_back_once_each_and_ever_more_rarely_while_consul_is_gone(
    consul: ConsulProcess, crew: Crew, tmp_path: Path
) -> None:
    _operate(crew, [Kind.STARTUP])
    crew.world.until(lambda: crew.world.standbys() == 2)
    for role in crew.roles:
        consul.suspend()  # nobody gets an answer, so what connects again stays connected
        lost = role.proxy.open_connections
        role.proxy.connections = 0
        role.proxy.cut()
        time.sleep(FIRST_WINDOW_SECONDS)
        assert role.proxy.connections <= lost, f"{role.name}: {role.proxy.connections} for {lost} that were lost"
        consul.resume()
    open_before = {role.name: role.proxy.open_connections for role in crew.roles}
    consul.kill()
    for role in crew.roles:
        role.proxy.connections = 0
    time.sleep(5.0)
    for role in crew.roles:
        # Waits of 0.05 s, doubled: a watch tries at most eight times. A sign of life takes two calls, five a second.
        most = 8 * open_before[role.name] + 60
        assert role.proxy.connections <= most, f"{role.name} tried {role.proxy.connections} times in 5 s"
    consul.start()
    assert all(len(pids) == 1 for pids in crew.world.running_pids().values())
