"""The roles as processes under a service manager: when they are ready, what they say, what ends their signs of life."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from consul_process import ConsulProcess
from manager_ear import Ear
from real_world import World

from citadel_consul.agent.agent import _beat_for_ever
from citadel_consul.core.operation import Kind
from citadel_consul.telemetry.supervision import Supervision

WATCHDOG = {"WATCHDOG_USEC": "600000"}


@pytest.fixture
def real(consul_server: ConsulProcess, role_environment: dict[str, str], tmp_path: Path) -> Iterator[World]:
    """A stack of the test's own with real processes, which end with it."""
    with World(consul_server.address, tmp_path, f"t{uuid.uuid4().hex[:8]}", role_environment) as made:
        yield made


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    ear = Ear(str(tmp_path / "notify"))
    yield ear
    ear.socket.close()


def until_said(world: World, ear: Ear, line: str, heard: list[str]) -> None:
    """Wait until a message has ``line``; all that comes is added to ``heard``."""

    def said() -> bool:
        heard.extend(ear.heard())
        return any(line in message.splitlines() for message in heard)

    world.until(said, 60.0, line)


def test_an_orchestrator_is_ready_when_it_stands_by_and_says_when_it_leads(real: World, ear: Ear) -> None:
    heard: list[str] = []
    process = real.orchestrator(NOTIFY_SOCKET=ear.address, **WATCHDOG)
    until_said(real, ear, "READY=1", heard)
    assert f"READY=1\nSTATUS=standing by for stack {real.stack}" in heard
    until_said(real, ear, f"STATUS=leading stack {real.stack} with epoch {real.until_led()['epoch']}", heard)
    heard.clear()
    until_said(real, ear, "WATCHDOG=1", heard)
    assert process.terminate() == 0
    until_said(real, ear, "STOPPING=1", heard)


def test_an_agent_is_ready_when_it_holds_its_lock_and_not_before(real: World, ear: Ear) -> None:
    heard: list[str] = []
    first = real.agent()
    real.until(lambda: real.snapshot().agents == {"n1"}, what="the first agent has the lock")
    real.agent(NOTIFY_SOCKET=ear.address, CITADEL_STATE_DIR=str(real.folder / "other"), **WATCHDOG)
    until_said(real, ear, "WATCHDOG=1", heard)
    until_said(real, ear, f"STATUS=waits for the lock of node n1 of stack {real.stack}", heard)
    assert not any("READY=1" in message for message in heard), "it waits, and lives"
    assert first.terminate() == 0
    until_said(real, ear, f"STATUS=answers for node n1 of stack {real.stack}", heard)
    assert any(message.startswith("READY=1") for message in heard)


def test_services_know_nothing_of_the_manager_of_their_agent(real: World, ear: Ear) -> None:
    real.orchestrator()
    real.agent(NOTIFY_SOCKET=ear.address, **WATCHDOG)
    real.apply([real.tiny("a")])
    real.operate(Kind.STARTUP)
    (pid,) = real.running_pids()["a"]
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in environment
    assert b"WATCHDOG" not in environment


async def test_an_agent_whose_loop_is_stuck_gives_no_more_signs_of_life_though_others_go_on(ear: Ear) -> None:
    now = 0.0
    supervision = Supervision(ear.address, 30.0, clock=lambda: now)

    async def never() -> None:
        await asyncio.Event().wait()

    lease = SimpleNamespace(beat=never, check=SimpleNamespace(ttl_seconds=5.0))
    with supervision.watching("the loop of the node agent") as pulse:
        stuck = asyncio.ensure_future(_beat_for_ever(lease, lambda: None, pulse))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert supervision.sign()
        now = 61.0
        assert not supervision.sign()
        stuck.cancel()
