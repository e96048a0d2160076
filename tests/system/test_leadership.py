"""Leadership on real processes: who leads, how it passes on, and what a deposed leader can do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from consul_proxy import ConsulProxy
from real_world import Process, World, chain

from citadel_consul.core.operation import Kind, OperationState

pytestmark = [pytest.mark.consul, pytest.mark.slow]


def _two_orchestrators(world: World) -> tuple[Process, Process]:
    """A leader, and a standby that watches it."""
    leader = world.orchestrator("o1")
    assert world.until_led()["node"] == "o1"
    standby = world.orchestrator("o2")
    world.until(lambda: len(_sessions(world)) == 2, what="a standby with a session")
    time.sleep(0.3)  # until it also has its connection to the leader
    return leader, standby


def _sessions(world: World) -> list[str]:
    from citadel_consul.consul.client import ConsulClient
    from citadel_consul.orchestrator.handover import candidates

    async def read(client: ConsulClient) -> list[str]:
        return [candidate.id for candidate in await candidates(client, world.stack)]

    return world.ask(read)


def _seconds_until_led_by(world: World, node: str, epoch: int, within: float = 15.0) -> float:
    began = time.monotonic()

    def led() -> bool:
        leader = world.leader()
        return leader is not None and leader["node"] == node and leader["epoch"] > epoch

    world.until(led, within, f"{node} to lead")
    return time.monotonic() - began


def _cli(world: World, *args: str) -> subprocess.CompletedProcess[str]:
    environ = {**world.environ, "CONSUL_HTTP_ADDR": world.consul, "CITADEL_STACK": world.stack}
    return subprocess.run(
        [sys.executable, "-m", "citadel_consul", *args],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_killed_leader_is_followed_at_once_because_its_address_refuses_connections(world: World) -> None:
    leader, _ = _two_orchestrators(world)
    epoch = world.until_led()["epoch"]
    leader.kill()
    assert _seconds_until_led_by(world, "o2", epoch) < 1.5  # its TTL check alone would need two seconds


def test_a_hung_leader_loses_the_lock_and_its_late_writes_are_refused(world: World) -> None:
    leader, _ = _two_orchestrators(world)
    world.agent()
    specs, edges = chain(world, 3)
    world.apply(specs, edges)
    world.until(lambda: world.snapshot().agents, what="an agent")
    epoch = world.until_led()["epoch"]
    leader.pause()
    _seconds_until_led_by(world, "o2", epoch)
    assert world.operate(Kind.STARTUP).state is OperationState.SUCCEEDED
    leader.resume()
    world.until(lambda: "no longer the leader" in leader.log.read_text(), what="the old leader to notice")
    leader_now = world.until_led()
    assert leader_now["node"] == "o2"
    assert all(len(world.lives(spec.name)) == 1 for spec in specs)


def test_a_leader_that_ends_in_order_gives_the_lock_back_first(world: World) -> None:
    leader, _ = _two_orchestrators(world)
    epoch = world.until_led()["epoch"]
    assert leader.terminate() == 0
    assert _seconds_until_led_by(world, "o2", epoch) < 1.0


def test_the_leadership_is_handed_over_on_request(world: World) -> None:
    _two_orchestrators(world)
    epoch = world.until_led()["epoch"]
    done = _cli(world, "leader", "transfer", "o2")
    assert done.returncode == 0, done.stderr
    assert "o2:" in done.stdout
    leader = world.until_led()
    assert leader["node"] == "o2"
    assert leader["epoch"] > epoch
    world.until(lambda: len(_sessions(world)) == 2, what="the old leader to stand by again")
    assert _cli(world, "leader", "step-down").returncode == 0
    _seconds_until_led_by(world, "o1", leader["epoch"])


def test_stepping_down_without_a_standby_is_refused(world: World) -> None:
    world.orchestrator("o1")
    world.until_led()
    done = _cli(world, "leader", "step-down")
    assert done.returncode == 4
    assert "nobody could take over" in done.stderr
    shown = _cli(world, "leader", "show")
    assert "o1:" in shown.stdout
    assert "standing by: nobody" in shown.stdout


@pytest.mark.long
def test_a_starved_machine_does_not_depose_its_leader(world: World) -> None:
    """Every core is busy with other processes for a while, at the default settings."""
    _two_orchestrators(world)
    before = world.until_led()
    seconds = float(os.environ.get("CITADEL_STARVE_SECONDS", "8"))
    burners = [
        subprocess.Popen([sys.executable, "-S", "-E", "-c", "while True: pass"])
        for _ in range(2 * (os.cpu_count() or 2))
    ]
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.5)
            now = world.leader()
            assert now is not None, world.logs()
            assert now["epoch"] == before["epoch"], world.logs()
    finally:
        for burner in burners:
            burner.send_signal(signal.SIGKILL)
            burner.wait()


@pytest.mark.long
def test_a_slow_consul_does_not_depose_the_leader(world: World) -> None:
    """Every call is answered 300 ms late, at the default settings."""
    seconds = float(os.environ.get("CITADEL_STARVE_SECONDS", "8"))
    with ConsulProxy(world.consul) as proxy:
        proxy.delay_seconds = 0.3
        world.orchestrator("o1", consul=proxy.address)
        world.orchestrator("o2", consul=proxy.address)
        before = world.until_led(30.0)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.5)
            now = world.leader()
            assert now is not None, world.logs()
            assert now["epoch"] == before["epoch"], world.logs()
