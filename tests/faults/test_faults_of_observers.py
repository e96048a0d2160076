"""Faults of the observers: services serve all the while, so nothing is restarted, and it is said what was seen."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from cluster import Cluster

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))

from moody import Ward
from roles import NewCrew

from citadel_consul.cli.looking import look
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.answers.problems import StackProblem, stack_problems
from citadel_consul.core.operation import Kind, OperationState
from citadel_consul.core.snapshot import Defaults
from citadel_consul.errors import TemporaryError

pytestmark = [pytest.mark.consul, pytest.mark.slow]

FIFTY = tuple(f"s{number:02d}" for number in range(50))
LOST_SECONDS = 20.0
INTERVAL_SECONDS = 2.0


@dataclass
class Onlooker:
    """Somebody who looks at the status all the time, by way of ``consul``, and remembers all that it said."""

    consul: str
    stack: str
    problems: set[StackProblem] = field(default_factory=set)
    errors: set[str] = field(default_factory=set)
    _done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._watch()))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    async def _watch(self) -> None:
        async with ConsulClient(parse_address(self.consul)) as client:
            while not self._done.is_set():
                try:
                    seen = await look(client, self.stack, Defaults())
                except TemporaryError as error:
                    self.errors.add(str(error))
                else:
                    self.problems.update(stack_problems(seen.snapshot, led=seen.leadership is not None))
                await asyncio.sleep(0.05)

    def said_of(self, place: str) -> list[str]:
        return [f"{problem.kind}: {problem.message}" for problem in self.problems if problem.place == place]


def onlooker(cluster: Cluster, ward: Ward) -> Onlooker:
    """One who asks the Consul agent of n2."""
    return Onlooker(cluster.clients["n2"].address, ward.world.stack)


def begin(cluster: Cluster, new_crew: NewCrew) -> Ward:
    """A stack of fifty services that are, as their node agent is, with the Consul agent of n1; led from that of n2."""
    on_node, elsewhere = (cluster.clients[node].address for node in ("n1", "n2"))
    crew = new_crew(elsewhere, on_node)
    ward = Ward(crew.world)
    crew.world.apply([ward.spec(name, checks=(ward.check(name, INTERVAL_SECONDS),)) for name in FIFTY])
    crew.world.orchestrator("o1", consul=elsewhere)
    crew.world.agent("n1", consul=on_node)
    crew.world.until_led(180.0)
    operation = crew.world.operate(Kind.STARTUP, within=120.0)
    assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{crew.world.logs()}"
    return ward


def assert_nothing_was_restarted(ward: Ward) -> None:
    assert ward.lives(*FIFTY) == dict.fromkeys(FIFTY, 1), ward.world.logs()
    assert ward.world.snapshot().incidents == {}
    assert ward.automatic() == []


def until_calm(ward: Ward) -> None:
    """Wait until the node agent is back and all is well in everybody's eyes, and a while longer."""
    ward.world.until(lambda: "n1" in ward.world.snapshot().agents, 120.0, "the node agent")
    ward.until_healthy(*FIFTY, within=120.0)
    time.sleep(5.0)


def test_a_consul_agent_that_is_restarted_under_fifty_services_restarts_none(
    cluster: Cluster, new_crew: NewCrew
) -> None:
    ward = begin(cluster, new_crew)
    member = cluster.clients["n1"]
    with onlooker(cluster, ward) as status:
        member.kill()
        time.sleep(10.0)  # until the others have missed it
        cluster.start(member)
        member.until_ready()
        until_calm(ward)
    assert_nothing_was_restarted(ward)
    assert any("Serf Health Status critical" in text for text in status.said_of("n1")), status


def test_the_end_of_consuls_own_leader_restarts_nothing(cluster: Cluster, new_crew: NewCrew) -> None:
    ward = begin(cluster, new_crew)
    with onlooker(cluster, ward) as status:
        cluster.leader().kill()
        time.sleep(10.0)
        until_calm(ward)
    assert_nothing_was_restarted(ward)
    assert status.errors, "for as long as nobody leads Consul, there is no status"
    assert all("Consul" in text for text in status.errors), status


def test_a_node_that_is_lost_for_a_while_restarts_nothing_and_status_says_what_it_saw(
    cluster: Cluster, new_crew: NewCrew
) -> None:
    """Its Consul agent neither answers nor gossips, so serfHealth is critical; its services serve."""
    ward = begin(cluster, new_crew)
    member = cluster.clients["n1"]
    with onlooker(cluster, ward) as status:
        member.suspend()
        ward.world.until(lambda: ward.world.snapshot().node_faults, 120.0, "serfHealth critical")
        time.sleep(LOST_SECONDS)
        member.resume()
        until_calm(ward)
    assert_nothing_was_restarted(ward)
    assert any("Serf Health Status critical" in text for text in status.said_of("n1")), status
    assert ward.events("agent-returned")
