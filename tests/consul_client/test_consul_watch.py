from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from consul_process import ConsulProcess, ConsulSpace

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.api import Indexed
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.connection import MAX_CONNECTIONS
from citadel_consul.consul.watch import Backoff, Fresh, Lost, Throttle, next_index, watch
from citadel_consul.errors import CitadelError, ConsulUnavailable, PermissionDenied

AWAY = ConsulUnavailable("away")
DENIED = PermissionDenied("denied")


class ScriptEndedError(Exception):
    """Not one of citadel's: the watch must let it through, which ends the test."""


@dataclass
class Script:
    """Answers of a Consul that exists on paper; remembers what it was asked and how long was slept."""

    answers: list[int | tuple[int, str] | CitadelError]
    asked: list[tuple[int | None, float | None]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    now: float = 0.0

    async def fetch(self, index: int | None, wait_seconds: float | None) -> Indexed[str]:
        self.asked.append((index, wait_seconds))
        if not self.answers:
            raise ScriptEndedError
        answer = self.answers.pop(0)
        if isinstance(answer, CitadelError):
            raise answer
        number, value = answer if isinstance(answer, tuple) else (answer, f"at {answer}")
        return Indexed(number, value)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def play(self, draw: float = 0.0) -> list[Fresh[str] | Lost]:
        seen: list[Fresh[str] | Lost] = []
        facts = watch(self.fetch, wait_seconds=30, jitter=lambda: draw, clock=lambda: self.now, sleep=self.sleep)
        while True:
            try:
                seen.append(await anext(facts))
            except ScriptEndedError:
                return seen


async def test_each_movement_is_yielded_and_the_next_question_waits_past_it() -> None:
    script = Script([5, 7, 9])
    assert await script.play() == [Fresh(5, "at 5"), Fresh(7, "at 7"), Fresh(9, "at 9")]
    assert script.asked == [(None, None), (5, 30), (7, 30), (9, 30)]
    assert script.slept == []


async def test_a_return_without_movement_is_not_a_change() -> None:
    script = Script([5, 5, (5, "a different rendering"), 6])
    assert await script.play() == [Fresh(5, "at 5"), Fresh(6, "at 6")]


async def test_an_index_that_went_backwards_starts_over_and_says_so() -> None:
    script = Script([9, 4, 4, 5])
    assert await script.play() == [Fresh(9, "at 9"), Fresh(4, "at 4", restarted=True), Fresh(5, "at 5")]
    assert [index for index, _ in script.asked] == [None, 9, None, 4, 5]


async def test_an_index_that_went_backwards_during_an_outage_says_so_too() -> None:
    script = Script([9, AWAY, 4, 5])
    assert await script.play() == [Fresh(9, "at 9"), Lost(AWAY), Fresh(4, "at 4", restarted=True), Fresh(5, "at 5")]


async def test_an_index_below_one_is_never_sent() -> None:
    script = Script([0, 0, 3])
    assert [fact.index for fact in await script.play() if isinstance(fact, Fresh)] == [1, 3]
    assert all(index is None or index >= 1 for index, _ in script.asked)


async def test_an_outage_is_yielded_once_and_its_end_always() -> None:
    script = Script([5, AWAY, ConsulUnavailable("still"), ConsulUnavailable("still"), 5, AWAY, 5])
    facts = await script.play()
    assert facts == [Fresh(5, "at 5"), Lost(AWAY), Fresh(5, "at 5"), Lost(AWAY), Fresh(5, "at 5")]
    assert [index for index, _ in script.asked] == [None, 5, None, None, None, 5, None, 5]


async def test_an_outage_that_becomes_a_refusal_is_news() -> None:
    script = Script([AWAY, DENIED, DENIED, AWAY, 5])
    assert await script.play() == [Lost(AWAY), Lost(DENIED), Lost(AWAY), Fresh(5, "at 5")]


async def test_reconnects_back_off_and_a_success_forgets_the_failures() -> None:
    script = Script([*[AWAY] * 12, 5, AWAY])
    await script.play(draw=0.0)
    assert script.slept == pytest.approx([0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5, 0.025])


def test_reconnects_of_many_watchers_are_spread_over_half_a_step() -> None:
    backoff = Backoff()
    assert [backoff.seconds(1, AWAY, draw) for draw in (0.0, 0.5, 1.0)] == pytest.approx([0.025, 0.0375, 0.05])
    assert [backoff.seconds(10_000, AWAY, draw) for draw in (0.0, 1.0)] == pytest.approx([5, 10])


def test_a_refusal_is_asked_again_as_rarely_as_it_gets() -> None:
    assert Backoff().seconds(1, DENIED, 1.0) == 10


async def test_a_result_that_changes_all_the_time_does_not_become_a_busy_loop() -> None:
    script = Script([*range(1, 1001)])
    facts = await script.play()
    assert len(facts) == 1000
    # A hundred at once; the other nine hundred at a hundred a second.
    assert script.now == pytest.approx(9.0, abs=0.2)


def test_a_throttle_fills_up_again_in_quiet_times() -> None:
    throttle = Throttle(burst=2, per_second=10)
    assert [throttle.delay(0.0) for _ in range(3)] == pytest.approx([0, 0, 0.1])
    assert throttle.delay(100.0) == 0
    assert throttle.delay(100.0) == 0
    assert throttle.delay(100.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("sent", "answered", "expected"), [(None, 5, 5), (None, 0, 1), (5, 5, 5), (5, 6, 6), (5, 4, None), (1, 0, 1)]
)
def test_the_next_index_follows_consuls_rules(sent: int | None, answered: int, expected: int | None) -> None:
    assert next_index(sent, answered) == expected


async def test_a_watch_is_left_by_cancellation_and_by_closing() -> None:
    async def never(index: int | None, wait_seconds: float | None) -> Indexed[str]:
        await asyncio.Event().wait()
        return Indexed(1, "")

    async def follow() -> None:
        async for _ in watch(never):
            pass

    before = asyncio.all_tasks()
    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    counter = itertools.count(1)

    async def moving(index: int | None, wait_seconds: float | None) -> Indexed[int]:
        return Indexed(next(counter), 0)

    async with aclosing(watch(moving)) as facts:
        async for _ in facts:
            break
    assert asyncio.all_tasks() == before


@pytest.mark.consul
async def test_a_watch_of_a_real_prefix_sees_each_write_at_once(client: ConsulClient, consul: ConsulSpace) -> None:
    async with asyncio.timeout(10), aclosing(watch(_listing(client, consul.prefix), wait_seconds=5)) as facts:
        first = await anext(facts)
        assert isinstance(first, Fresh)
        assert first.value == ()
        for number in range(5):
            await client.kv_put(f"{consul.prefix}{number}", b"")
            fact = await anext(facts)
            assert isinstance(fact, Fresh)
            assert len(fact.value) == number + 1


@pytest.mark.consul
async def test_more_watches_than_connections_are_an_error_and_not_a_wait_without_end(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    index = (await client.kv_list(consul.prefix)).index
    async with asyncio.TaskGroup() as tasks:
        queries = [tasks.create_task(client.kv_list(consul.prefix, index, 5)) for _ in range(MAX_CONNECTIONS)]

        async def read_until_the_pool_is_full() -> None:
            while True:
                await client.kv_get(consul.prefix + "a")

        with pytest.raises(ConsulUnavailable, match="PoolTimeout"):
            await read_until_the_pool_is_full()
        for query in queries:
            query.cancel()


@pytest.mark.consul
async def test_a_write_elsewhere_does_not_wake_a_watch(client: ConsulClient, consul: ConsulSpace) -> None:
    await client.kv_put(consul.prefix + "a/1", b"")
    async with asyncio.timeout(10), aclosing(watch(_listing(client, consul.prefix + "a/"), wait_seconds=0.2)) as facts:
        await anext(facts)
        for number in range(20):
            await client.kv_put(f"{consul.prefix}b/{number}", b"")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(facts), 0.5)


@pytest.mark.consul
async def test_a_watch_outlives_a_consul_that_restarts_and_forgets(
    new_consul: Callable[..., ConsulProcess],
) -> None:
    server = new_consul()
    async with asyncio.timeout(60), ConsulClient(parse_address(server.address)) as client:
        for number in range(50):
            await client.kv_put(f"a/{number}", b"")
        async with aclosing(watch(_listing(client, "a/"), wait_seconds=30)) as facts:
            first = await anext(facts)
            assert isinstance(first, Fresh)
            assert len(first.value) == 50
            server.kill()
            lost = await anext(facts)
            assert isinstance(lost, Lost)
            assert isinstance(lost.error, ConsulUnavailable)
            await asyncio.to_thread(server.start)
            back = await anext(facts)
            assert isinstance(back, Fresh)
            assert back.value == ()
            assert back.restarted


def _listing(
    client: ConsulClient, prefix: str
) -> Callable[[int | None, float | None], Awaitable[Indexed[tuple[object, ...]]]]:
    return lambda index, wait_seconds: client.kv_list(prefix, index, wait_seconds)
