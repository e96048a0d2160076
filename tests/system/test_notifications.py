"""Notifications by real processes: one pair an incident, whoever leads, and however the receiver behaves."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from consul_process import ConsulProcess
from real_world import World

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "notification"))

from receiver import Receiver

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Edge, Instance, OnRecovery
from citadel_consul.core.operation import Kind, OperationState
from citadel_consul.store.keys import Keys
from citadel_consul.store.postings import Posting, read_postings

pytestmark = [pytest.mark.consul, pytest.mark.long]

DEPENDENTS = tuple(f"user{n}" for n in range(3))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


def config_of(world: World, *receivers: dict[str, Any]) -> str:
    """A configuration file with these receivers; returns its path."""
    path = world.folder / "orchestrator.yaml"
    path.write_text(yaml.safe_dump({"notification": {"receivers": list(receivers)}}))
    return str(path)


def bring_up(world: World, *receivers: dict[str, Any], **settings: str) -> None:
    """A database with its dependents, under one orchestrator that notifies ``receivers``."""
    edges = [Edge(name, "db", on_recovery=OnRecovery.NOTIFY) for name in DEPENDENTS]
    world.apply([world.tiny("db"), *(world.tiny(name) for name in DEPENDENTS)], edges)
    world.orchestrator("o1", ORCHESTRATOR_CONFIG_PATH=config_of(world, *receivers), **settings)
    world.agent()
    world.until_led()
    world.until(lambda: world.snapshot().agents, what="an agent")
    started = world.operate(Kind.STARTUP)
    assert started.state is OperationState.SUCCEEDED, f"{started.steps}\n{world.logs()}"


def kill(world: World, service: str) -> float:
    """SIGKILL; returns when (unix seconds)."""
    (pid,) = world.running_pids()[service]
    at = time.time()
    os.kill(pid, signal.SIGKILL)
    return at


def recovered_at(world: World, service: str, after: float) -> float | None:
    """When the process was started that took the place of one killed at ``after``; None if there is none yet."""
    observed = world.snapshot().observed[Instance(service, "n1")]
    if observed.phase is not Phase.READY or observed.started_at is None or observed.started_at < after:
        return None
    return observed.started_at


def postings(world: World) -> list[Posting]:
    async def read(client: ConsulClient) -> list[Posting]:
        return await read_postings(client, Keys(world.stack))

    return world.ask(read)


def test_a_killed_database_makes_one_pair_of_notices_that_names_whom_it_takes_along(
    world: World, receiver: Receiver
) -> None:
    bring_up(world, {"name": "hook", "webhook": receiver.url})
    kill(world, "db")
    world.until(lambda: len(receiver.requests) >= 2, 90.0, "the end of the incident to be told")
    opened, closed = receiver.notices
    assert (opened["transition"], closed["transition"]) == ("opened", "closed")
    assert opened["service"] == closed["service"] == "db"
    assert opened["incident"]["id"] == closed["incident"]["id"]
    assert opened["incident"]["affected"] == list(DEPENDENTS)
    assert closed["incident"]["attempts"] == 1
    assert len(closed["incident"]["operations"]) == 1
    assert opened["leader"] == world.until_led()["id"]
    world.until(lambda: not any(posting.pending for posting in postings(world)), 90.0, "the deliveries to be noted")
    time.sleep(1.0)
    assert len(receiver.requests) == 2, receiver.notices
    assert all(len(world.lives(name)) == 1 for name in DEPENDENTS)


def test_what_a_killed_leader_did_not_deliver_is_delivered_by_the_next(world: World, receiver: Receiver) -> None:
    receiver.hang = True
    bring_up(world, {"name": "hook", "webhook": receiver.url})
    first = world.processes[0]
    kill(world, "db")
    world.until(lambda: receiver.requests, 90.0, "the first delivery to begin")
    first.kill()
    receiver.release()
    world.orchestrator("o2", ORCHESTRATOR_CONFIG_PATH=str(world.folder / "orchestrator.yaml"))
    world.until(lambda: any(n["transition"] == "closed" for n in receiver.notices), 90.0, "the end to be told")
    first_delivery, *rest = receiver.notices
    assert [notice["transition"] for notice in rest] == ["opened", "closed"]
    assert rest[0] == first_delivery, "the same notice again, with the same id"
    assert rest[1]["leader"] == world.until_led()["id"]


def test_a_leader_that_dies_after_it_delivered_leaves_nothing_to_be_said_twice(
    world: World, receiver: Receiver
) -> None:
    bring_up(world, {"name": "hook", "webhook": receiver.url})
    kill(world, "db")
    world.until(lambda: (found := postings(world)) and not found[0].pending, 90.0, "the delivery to be noted")
    world.processes[0].kill()
    world.orchestrator("o2", ORCHESTRATOR_CONFIG_PATH=str(world.folder / "orchestrator.yaml"))
    world.until(lambda: len(receiver.requests) >= 2, 90.0, "the end to be told")
    assert [notice["transition"] for notice in receiver.notices] == ["opened", "closed"]


def test_receivers_that_hang_slow_neither_recovery_nor_each_other(world: World, receiver: Receiver) -> None:
    receiver.hang = True
    with Receiver() as prompt:
        stuck = [sys.executable, "-c", "import time; time.sleep(1000)"]
        bring_up(
            world,
            {"name": "hangs", "webhook": receiver.url, "timeout": "60s"},
            {"name": "sleeps", "command": stuck, "timeout": "60s"},
            {"name": "prompt", "webhook": prompt.url},
        )
        times = []
        for _ in range(3):
            killed_at = kill(world, "db")
            world.until(lambda: recovered_at(world, "db", killed_at), 90.0, "the recovery")  # noqa: B023
            times.append((recovered_at(world, "db", killed_at) or 0.0) - killed_at)
            world.until(lambda: prompt.requests, 90.0, "the prompt receiver to be told")
            if len(times) < 3:
                world.operate(Kind.RECOVER, "db")  # by hand, so that the next attempt is an immediate one, too
        # A receiver that is waited for takes a minute; a busy machine takes seconds.
        assert max(times) < 20.0, times
        assert prompt.requests[0].at - killed_at < 20.0
        assert receiver.requests, "it was tried"
        assert world.processes[0].terminate() == 0, "and it does not hold up the end of the orchestrator"


def test_without_notification_nobody_is_told(world: World, receiver: Receiver) -> None:
    bring_up(world, {"name": "hook", "webhook": receiver.url}, ORCHESTRATOR_NOTIFICATION_ENABLED="false")
    killed_at = kill(world, "db")
    world.until(lambda: recovered_at(world, "db", killed_at), 90.0, "the recovery")
    assert postings(world) == []
    assert receiver.requests == []


def test_dependents_are_told_by_a_user_event_of_consul(world: World, consul_server: ConsulProcess) -> None:
    bring_up(world)
    kill(world, "db")
    name = f"citadel-{world.stack}-recovered"
    world.until(lambda: consul_server.request("GET", f"/v1/event/list?name={name}"), 90.0, "the event")
    (event,) = consul_server.request("GET", f"/v1/event/list?name={name}")
    payload = json.loads(base64.b64decode(event["Payload"]))
    assert payload["recovered"] == ["db"]
    assert payload["dependents"] == [f"{name}@n1" for name in DEPENDENTS]
    operation = world.operation(payload["operation"])
    assert operation is not None
    assert operation.automatic
