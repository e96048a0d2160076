"""When a leader gives signs of life, and when it stops: on a clock that only its own sleeping moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from citadel_consul.errors import ConsulUnavailable, LeadershipLost
from citadel_consul.orchestrator.heartbeat import HUNG_SECONDS, RETRY_SECONDS, Heartbeat

EVERY_SECONDS = 0.5


class Recorder:
    """Notes when signs of life are given. Each takes ``takes_seconds``; the run ends at ``until``."""

    def __init__(self, until: float, *, takes_seconds: float = 0.0) -> None:
        self.now = 0.0
        self.given: list[float] = []
        self.error: Exception | None = None
        self.on_sleep: Callable[[], None] = lambda: None
        self.heartbeat = Heartbeat(self._beat, EVERY_SECONDS, clock=lambda: self.now, sleep=self._sleep)
        self._until = until
        self._takes = takes_seconds

    async def run(self) -> list[float]:
        with pytest.raises(asyncio.CancelledError):
            await self.heartbeat.run()
        return self.given

    async def _beat(self) -> None:
        self.given.append(round(self.now, 6))
        self.now += self._takes
        if self.error is not None:
            raise self.error

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()
        if self.now >= self._until:
            raise asyncio.CancelledError


async def test_the_first_sign_is_given_at_once_and_the_others_at_even_intervals() -> None:
    assert await Recorder(2.0).run() == [0.0, 0.5, 1.0, 1.5]


async def test_a_sign_that_takes_its_time_does_not_put_off_the_next() -> None:
    assert await Recorder(2.0, takes_seconds=0.3).run() == [0.0, 0.5, 1.0, 1.5]


async def test_signs_that_take_longer_than_their_interval_follow_one_another_at_once() -> None:
    assert await Recorder(2.0, takes_seconds=0.7).run() == [0.0, 0.7, 1.4]


async def test_a_loop_that_does_not_come_round_gives_no_more_signs_and_is_called_hung_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = await Recorder(3 * HUNG_SECONDS).run()
    assert given[-1] == HUNG_SECONDS
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]


async def test_a_loop_that_comes_round_again_gives_signs_again() -> None:
    recorder = Recorder(3 * HUNG_SECONDS)

    def come_round_late() -> None:
        if recorder.now >= 2 * HUNG_SECONDS:
            recorder.heartbeat.come_round()

    recorder.on_sleep = come_round_late
    given = await recorder.run()
    assert not [at for at in given if HUNG_SECONDS < at < 2 * HUNG_SECONDS]
    assert given[-1] > 3 * HUNG_SECONDS - 2 * EVERY_SECONDS


async def test_an_absent_consul_is_told_again_after_a_moment() -> None:
    recorder = Recorder(3 * RETRY_SECONDS)
    recorder.error = ConsulUnavailable("gone")
    assert await recorder.run() == [0.0, RETRY_SECONDS, 2 * RETRY_SECONDS]


async def test_a_lost_leadership_is_not_beaten_on() -> None:
    recorder = Recorder(10.0)
    recorder.error = LeadershipLost("gone")
    with pytest.raises(LeadershipLost):
        await recorder.heartbeat.run()
    assert recorder.given == [0.0]
