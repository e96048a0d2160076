"""citadel handback on real processes: nothing is stopped, whoever dies meanwhile, and nothing is left in Consul."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from real_world import World

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.operation import Kind
from citadel_consul.store.keys import Keys


def handback(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "CONSUL_HTTP_ADDR": world.consul, "CITADEL_STACK": world.stack, "CITADEL_NODE": "n1"}
    command = [sys.executable, "-m", "citadel_consul", "handback", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=90)


def running(world: World) -> dict[str, list[int]]:
    """Start a ← b ← c on real processes; returns their pids."""
    world.orchestrator()
    world.agent()
    world.apply([world.tiny(name) for name in "abc"], [("b", "a"), ("c", "b")])
    world.operate(Kind.STARTUP)
    return world.running_pids()


def registered(world: World) -> set[str]:
    async def ask(client: ConsulClient) -> set[str]:
        return {s for s in await client.agent_services() if s.startswith(f"{world.stack}.")}

    return world.ask(ask)


def keys_about(world: World, service: str) -> list[str]:
    """The keys of specs, edges and holds in which ``service`` is, and the reports that name it."""

    async def ask(client: ConsulClient) -> list[str]:
        keys = Keys(world.stack)
        found = []
        for prefix in (keys.specs, keys.edges, keys.holds):
            found += [e.key for e in (await client.kv_list(prefix)).value if service in e.key.split("/")]
        for entry in (await client.kv_list(keys.observed)).value:
            found += [entry.key for name in json.loads(entry.value)["instances"] if name == service]
        return found

    return world.ask(ask)


def test_a_service_that_is_handed_back_runs_on_and_is_forgotten(real: World) -> None:
    before = running(real)
    done = handback(real, "c", "--abandon")
    assert done.returncode == 0, done.stderr
    assert "c: handed back: it runs on as it is" in done.stdout
    assert real.running_pids() == before
    assert keys_about(real, "c") == []
    assert registered(real) == {f"{real.stack}.{name}.n1" for name in "ab"}
    assert {i.service for i in real.snapshot().observed} == {"a", "b"}


def test_all_of_a_stack_is_handed_back_and_nothing_is_stopped_by_who_comes_and_goes(real: World) -> None:
    before = running(real)
    assert handback(real, "--all", "--abandon").returncode == 0
    for process in list(real.processes):
        process.kill()
    real.orchestrator()
    real.agent()
    real.until(lambda: real.snapshot().agents == {"n1"}, what="another agent")
    real.until_led()
    real.until(lambda: not real.snapshot().observed, what="the new agent lets go as well")
    assert real.running_pids() == before
    assert registered(real) == set()


def test_what_was_handed_back_is_taken_over_again_as_it_runs(real: World) -> None:
    before = running(real)
    assert handback(real, "c", "--abandon").returncode == 0
    real.apply([real.tiny(name) for name in "abc"], [("b", "a"), ("c", "b")])
    assert real.running_pids() == before
    assert real.operate(Kind.STARTUP).state == "succeeded"
    assert real.running_pids() == before


@pytest.mark.long
def test_a_request_outlives_the_leader_and_the_agent(real: World) -> None:
    before = running(real)
    for process in real.processes:
        process.kill()
    real.until(lambda: not real.snapshot().agents, 30.0, "the agent's lock is free")
    environ = {**os.environ, "CONSUL_HTTP_ADDR": real.consul, "CITADEL_STACK": real.stack}
    command = [sys.executable, "-m", "citadel_consul", "handback", "c", "--abandon"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as asking:
        real.until(lambda: bool(real.snapshot().holds), what="the request stands")
        real.agent()
        real.orchestrator()
        assert asking.wait(60) == 0
    real.until(lambda: {i.service for i in real.snapshot().observed} == {"a", "b"}, what="the agent has let go")
    assert real.running_pids() == before


def test_what_others_need_is_not_handed_back_alone(real: World) -> None:
    before = running(real)
    done = handback(real, "a", "--abandon")
    assert done.returncode == 4
    assert "b would depend on what citadel does not know any more" in done.stderr
    assert real.running_pids() == before
    assert not real.snapshot().holds


def test_a_program_without_another_manager_is_not_let_go_of_unasked(real: World) -> None:
    running(real)
    done = handback(real, "c")
    assert done.returncode == 4
    assert "there is no manager to hand it to" in done.stderr
    assert not real.snapshot().holds


def test_a_dry_run_of_handback_changes_nothing(real: World) -> None:
    running(real)
    before = real.snapshot()
    assert "c: would be handed back" in handback(real, "c", "--abandon", "--dry-run").stdout
    assert real.snapshot().desired == before.desired
    assert not real.snapshot().holds


def test_without_a_leader_nothing_is_done_and_that_is_said(real: World) -> None:
    done = handback(real, "nobody")
    assert done.returncode == 2
    assert "unknown service 'nobody'" in done.stderr
