"""What systemd is told: readiness, status, signs of life only while the loops that matter come round."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from manager_ear import Ear

from citadel_consul.telemetry.supervision import Supervision


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    ear = Ear(str(tmp_path / "notify"))
    yield ear
    ear.socket.close()


def test_readiness_is_said_with_a_status(ear: Ear) -> None:
    Supervision(ear.address).ready("answers for node n1")
    assert ear.heard() == ["READY=1\nSTATUS=answers for node n1"]


def test_a_status_is_said_once_and_is_one_line(ear: Ear) -> None:
    supervision = Supervision(ear.address)
    for _ in range(2):
        supervision.say("waits\nREADY=1")
    assert ear.heard() == ["STATUS=waits READY=1"]


def test_an_abstract_socket_is_reached() -> None:
    ear = Ear(f"@citadel-{os.getpid()}")
    try:
        Supervision(ear.address).stopping()
        assert ear.heard() == ["STOPPING=1\nSTATUS=stopping"]
    finally:
        ear.socket.close()


def test_the_environment_of_the_manager_is_taken_and_not_handed_on(ear: Ear) -> None:
    environ = {"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    supervision = Supervision.from_environment(environ)
    assert supervision.watchdog_seconds == 3.0
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "3000000"},
        {"NOTIFY_SOCKET": "/run/nobody", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "/run/nobody", "WATCHDOG_USEC": "soon"},
    ],
)
def test_no_sign_of_life_is_given_that_nobody_asked_this_process_for(environ: dict[str, str]) -> None:
    assert Supervision.from_environment(environ).watchdog_seconds is None


def test_without_a_manager_everything_is_silent() -> None:
    supervision = Supervision()
    supervision.ready("x")
    supervision.say("y")
    assert supervision.sign()


def test_a_manager_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    Supervision(str(tmp_path / "gone"), 1.0).ready("x")


def test_a_loop_that_does_not_come_round_ends_the_signs_of_life(ear: Ear) -> None:
    clock = Clock()
    supervision = Supervision(ear.address, 30.0, clock=clock)
    with supervision.watching("the loop", 10.0) as pulse:
        clock.now = 9.0
        assert supervision.sign()
        pulse.beat()
        clock.now = 18.0
        assert supervision.sign()
        clock.now = 19.5
        assert not supervision.sign()
    assert ear.heard() == ["WATCHDOG=1", "WATCHDOG=1"]


def test_the_stalled_loop_is_named_once(ear: Ear, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    supervision = Supervision(ear.address, 30.0, clock=clock)
    with supervision.watching("the control loop", 10.0):
        clock.now = 11.0
        for _ in range(3):
            supervision.sign()
    assert [record.getMessage() for record in caplog.records] == [
        "the control loop did not come round in time: no more signs of life are given"
    ]


def test_a_loop_is_minded_only_for_as_long_as_it_runs(ear: Ear) -> None:
    clock = Clock()
    supervision = Supervision(ear.address, 30.0, clock=clock)
    with supervision.watching("the loop", 10.0):
        pass
    clock.now = 1000.0
    assert supervision.sign()


async def test_signs_of_life_are_given_from_the_event_loop(ear: Ear) -> None:
    signs = asyncio.ensure_future(Supervision(ear.address, 0.003).run())
    heard: list[str] = []
    async with asyncio.timeout(10):
        while len(heard) < 3:
            await asyncio.sleep(0)
            heard += ear.heard()
    signs.cancel()
    assert set(heard) == {"WATCHDOG=1"}
