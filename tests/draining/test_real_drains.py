"""Drains of real processes with a real Consul, by all the ways in which one can end."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from hall import SERVICE, Hall, succeeded
from real_world import World

from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.operation import Kind, OperationState
from citadel_consul.store.keys import Keys
from citadel_consul.store.requests import cancel

pytestmark = [pytest.mark.consul, pytest.mark.slow]


def test_a_drained_instance_leaves_the_catalog_and_finishes_what_it_has_in_hand(real: World) -> None:
    hall = Hall(real, ("n1", "n2"))
    hall.open()
    (first,) = hall.pids("n1")
    with ThreadPoolExecutor() as pool:
        held = pool.submit(hall.get, "n1", "/held")
        real.until(lambda: '"active": 1' in hall.get("n1", "/health"), what="the request to arrive")
        operation_id = real.request(Kind.DRAIN, f"{SERVICE}@n1")
        real.until(lambda: hall.observed("n1").in_flight == 1, what="the count of requests")
        real.until(lambda: hall.passing() == {"n2"}, what="the catalog")
        assert hall.maintenance()["n1"].startswith("citadel drains it")
        seen = hall.observed("n1")
        assert seen.phase is Phase.DRAINING
        assert seen.drain_until is not None
        assert hall.running("n1") == [first]
        assert not held.done()
        hall.get("n1", "/release")
        assert held.result() == str(first)
    operation = real.end_of(operation_id)
    succeeded(operation, real)
    assert (hall.running("n1"), len(hall.running("n2"))) == ([], 1)
    assert hall.maintenance() == {}
    real.operate(Kind.STARTUP, f"{SERVICE}@n1")
    real.until(lambda: hall.passing() == {"n1", "n2"}, what="both to be found again")
    assert hall.maintenance() == {}
    assert hall.history("n1") == ["started", "ready", "draining", "stopping", "stopped", "started", "ready"]


@pytest.mark.long
def test_without_a_figure_its_open_connections_are_waited_for(real: World) -> None:
    hall = Hall(real, ("n1", "n2"))
    hall.open(metrics={})
    with socket.create_connection(("127.0.0.1", hall.ports["n1"])):
        operation_id = real.request(Kind.DRAIN, f"{SERVICE}@n1")
        real.until(lambda: hall.observed("n1").in_flight == 1 and hall.passing() == {"n2"}, what="the drain")
        assert len(hall.running("n1")) == 1
    succeeded(real.end_of(operation_id), real)
    assert "drain-timed-out" not in hall.history("n1")
    assert hall.running("n1") == []


@pytest.mark.long
def test_a_drain_that_does_not_end_is_ended_by_its_time_out(real: World) -> None:
    hall = Hall(real, ("n1", "n2"))
    hall.open(metrics={})
    with socket.create_connection(("127.0.0.1", hall.ports["n1"])):
        succeeded(real.operate(Kind.DRAIN, f"{SERVICE}@n1", drain_seconds=2.0), real)
        assert hall.history("n1")[-4:] == ["draining", "drain-timed-out", "stopping", "stopped"]
        assert hall.running("n1") == []


def test_a_cancelled_drain_serves_on_as_the_same_process(real: World) -> None:
    hall = Hall(real, ("n1", "n2"))
    hall.open(metrics={})
    with socket.create_connection(("127.0.0.1", hall.ports["n1"])):
        operation_id = real.request(Kind.DRAIN, f"{SERVICE}@n1")
        real.until(lambda: hall.passing() == {"n2"}, what="the drain")
        real.ask(lambda client: cancel(client, Keys(real.stack), operation_id, by="test"))
        operation = real.end_of(operation_id)
        assert operation.state is OperationState.CANCELLED
        real.until(lambda: hall.passing() == {"n1", "n2"}, what="both to be found again")
    assert hall.maintenance() == {}
    assert hall.running("n1") == hall.pids("n1")
    real.until(lambda: hall.observed("n1").phase is Phase.READY, what="it to be said ready")


@pytest.mark.long
def test_a_node_agent_that_dies_while_it_drains_leaves_the_drain_to_its_successor(real: World) -> None:
    hall = Hall(real, ("n1", "n2"))
    hall.open(metrics={})
    with socket.create_connection(("127.0.0.1", hall.ports["n1"])):
        operation_id = real.request(Kind.DRAIN, f"{SERVICE}@n1", drain_seconds=120.0)
        real.until(lambda: hall.observed("n1").in_flight == 1 and hall.passing() == {"n2"}, what="the drain")
        until = hall.observed("n1").drain_until
        hall.agents["n1"].kill()
        real.agent("n1")
        real.until(lambda: "adopted" in hall.history("n1"), 30.0, "the successor")
        assert hall.passing() == {"n2"}
        assert len(hall.running("n1")) == 1
        assert hall.observed("n1").drain_until == until
    succeeded(real.end_of(operation_id), real)
    assert hall.running("n1") == []
    assert hall.pids("n1") == [hall.pids("n1")[0]]
