"""Faults of the observers: services serve all the while, so nothing is restarted, and it is said what was seen."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from cluster import Cluster

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))

from moody import Ward
from roles import NewCrew

from citadel_consul.core.answers.problems import stack_problems
from citadel_consul.core.operation import Kind, OperationState

pytestmark = [pytest.mark.consul, pytest.mark.slow]

FIFTY = tuple(f"s{number:02d}" for number in range(50))
LOST_SECONDS = 20.0


def begin(cluster: Cluster, new_crew: NewCrew, names: tuple[str, ...]) -> Ward:
    """A stack whose services and node agent are with the Consul agent of n1, led from that of n2."""
    on_node, elsewhere = (cluster.clients[node].address for node in ("n1", "n2"))
    crew = new_crew(elsewhere, on_node)
    ward = Ward(crew.world)
    crew.world.apply([ward.spec(name) for name in names])
    crew.world.orchestrator("o1", consul=elsewhere)
    crew.world.agent("n1", consul=on_node)
    crew.world.until_led(180.0)
    operation = crew.world.operate(Kind.STARTUP, within=120.0)
    assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{crew.world.logs()}"
    return ward


def assert_nothing_was_restarted(ward: Ward, names: tuple[str, ...]) -> None:
    assert ward.lives(*names) == dict.fromkeys(names, 1), ward.world.logs()
    assert ward.world.snapshot().incidents == {}
    assert ward.automatic() == []


def until_calm(ward: Ward, names: tuple[str, ...]) -> None:
    """Wait until the node agent is back and all is well in everybody's eyes."""
    ward.world.until(lambda: "n1" in ward.world.snapshot().agents, 60.0, "the node agent")
    ward.until_healthy(*names, within=60.0)


def test_a_consul_agent_that_is_restarted_under_fifty_services_restarts_none(
    cluster: Cluster, new_crew: NewCrew
) -> None:
    ward = begin(cluster, new_crew, FIFTY)
    member = cluster.clients["n1"]
    member.kill()
    time.sleep(3.0)
    cluster.start(member)
    member.until_ready()
    until_calm(ward, FIFTY)
    time.sleep(5.0)
    assert_nothing_was_restarted(ward, FIFTY)


def test_the_end_of_consuls_own_leader_restarts_nothing(cluster: Cluster, new_crew: NewCrew) -> None:
    names = FIFTY[:10]
    ward = begin(cluster, new_crew, names)
    cluster.leader().kill()
    time.sleep(10.0)
    until_calm(ward, names)
    assert_nothing_was_restarted(ward, names)


def test_a_node_that_is_lost_for_a_while_restarts_nothing_and_status_says_what_it_saw(
    cluster: Cluster, new_crew: NewCrew
) -> None:
    """Its Consul agent neither answers nor gossips, so serfHealth is critical; its services serve."""
    names = FIFTY[:10]
    ward = begin(cluster, new_crew, names)
    member = cluster.clients["n1"]
    member.suspend()
    ward.world.until(lambda: ward.world.snapshot().node_faults, 60.0, "serfHealth critical")
    problems = stack_problems(ward.world.snapshot(), led=True)
    time.sleep(LOST_SECONDS)
    member.resume()
    until_calm(ward, names)
    time.sleep(5.0)
    assert_nothing_was_restarted(ward, names)
    (observer,) = [problem for problem in problems if problem.kind == "observer"]
    assert observer.place == "n1"
    assert "Serf Health Status critical" in observer.message
    assert ward.events("agent-returned")
