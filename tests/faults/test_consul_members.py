"""Members of the Consul cluster fail while a stack runs: registrations come back, and no service notices."""

from __future__ import annotations

import os
import signal

import pytest
from campaign import ALLOWED_SECONDS, EDGES, PLACES
from checker import violations
from cluster import Cluster
from kv_audit import Audit
from roles import Crew, NewCrew, spread
from verdict import every_instance, judge, lives_of, running, unrest

from citadel_consul.core.operation import Kind, OperationState

pytestmark = [pytest.mark.consul, pytest.mark.slow]


@pytest.fixture
def crew(cluster: Cluster, new_crew: NewCrew) -> Crew:
    """A stack on both nodes, up and at rest; its orchestrators are at both clients and at a server."""
    consuls = [*cluster.clients.values(), cluster.servers[2]]
    made = new_crew(*(consul.address for consul in consuls))
    for number, consul in enumerate(consuls, 1):
        made.orchestrator(f"o{number}", consul.address)
    for consul in cluster.clients.values():
        made.agent(consul.node, consul.address)
    allowed = {"start_timeout_seconds": ALLOWED_SECONDS, "stop_timeout_seconds": ALLOWED_SECONDS}
    made.world.apply([spread(made.world, name, nodes, **allowed) for name, nodes in PLACES.items()], EDGES)
    made.until_manned()
    assert made.world.operate(Kind.STARTUP, within=120.0).state is OperationState.SUCCEEDED
    return made


def _assert_nothing_happened(crew: Crew, lives: int = 1) -> None:
    """At rest again; the same processes run, and nothing was recovered that had not failed."""
    world, audit = crew.world, Audit()
    world.until(lambda: unrest(crew, PLACES) is None, 120.0, "rest")
    for instance in every_instance(PLACES):
        found = [life.pid for life in lives_of(world, instance)]
        assert len(found) == lives, f"{instance}: {found}\n{world.logs()}"
        assert running(world, instance) == found[-1:]
    audit.look(world)
    assert judge(world, PLACES, EDGES, audit, ()).broken == []


@pytest.mark.parametrize("wiped", [False, True], ids=["with-its-data", "without-its-data"])
def test_a_consul_agent_that_is_restarted_gets_its_registrations_back(
    cluster: Cluster, crew: Crew, wiped: bool
) -> None:
    member = cluster.clients["n1"]
    member.kill()
    if wiped:
        member.wipe()
    cluster.start(member)
    member.until_ready()
    wanted = {f"{crew.world.stack}.{i.service}.{i.node}" for i in every_instance(PLACES) if i.node == member.node}
    crew.world.until(lambda: wanted <= set(member.request("GET", "/v1/agent/services")), 30.0, "the registrations")
    _assert_nothing_happened(crew)
    assert crew.world.operate(Kind.RESTART, within=120.0).state is OperationState.SUCCEEDED
    _assert_nothing_happened(crew, lives=2)


def test_a_machine_that_is_rebooted_gets_what_was_wanted_there_once_each_and_in_order(
    cluster: Cluster, crew: Crew
) -> None:
    """All of it ends: its Consul agent, its node agent, an orchestrator and the services. The others go on."""
    world, member = crew.world, cluster.clients["n1"]
    roles = [role for role in crew.roles if role.node in ("n1", "o1")]
    ended = [instance for instance in every_instance(PLACES) if instance.node == "n1"]
    member.kill()
    for role in roles:
        role.kill()
    for instance in ended:
        for pid in running(world, instance):
            os.kill(pid, signal.SIGKILL)
    world.until(lambda: "n1" not in world.snapshot().agents, 120.0, "the lock of the node to be free")
    cluster.start(member)
    for role in roles:
        role.start()
    world.until(lambda: all(len(lives_of(world, i)) == 2 for i in ended), 120.0, "a second life of each")
    world.until(lambda: unrest(crew, PLACES) is None, 120.0, "rest")
    lives = {instance: [life.pid for life in lives_of(world, instance)] for instance in every_instance(PLACES)}
    assert {i: len(pids) for i, pids in lives.items()} == {i: 2 if i in ended else 1 for i in lives}, world.logs()
    assert all(running(world, instance) == pids[-1:] for instance, pids in lives.items()), world.logs()
    counts = {service: len(nodes) for service, nodes in PLACES.items()}
    assert violations(world.chronicle(), EDGES, instances=counts) == []


def test_the_consul_server_that_leads_is_lost_during_an_operation(cluster: Cluster, crew: Crew) -> None:
    operation_id = crew.world.request(Kind.RESTART)
    cluster.leader().kill()
    operation = crew.world.end_of(operation_id, 120.0)
    assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{crew.world.logs()}"
    _assert_nothing_happened(crew, lives=2)
    cluster.heal()


def test_each_consul_server_is_restarted_in_turn(cluster: Cluster, crew: Crew) -> None:
    for server in cluster.servers:
        server.stop()
        cluster.start(server)
        cluster.until_ready()
    _assert_nothing_happened(crew)
