"""A blocking query as a stream of facts.

What a caller wants to know is 'this is how it is now' each time it changes, and 'I cannot see it any more' once. What
Consul offers is a long poll with rules of its own, which are kept here and nowhere else:

- the index may go backwards (restored snapshot, deleted key, upgrade): start over, or miss changes for ever;
- an index below 1 does not block, so it is never sent;
- a return does not prove a change: the same index again is not worth a word;
- a thousand watchers that lost the same server must not come back in the same millisecond;
- a result that changes all the time must not become a busy loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from citadel_consul.consul.api import Indexed
from citadel_consul.errors import CitadelError, TemporaryError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Fetch = Callable[[int | None, float | None], Awaitable[Indexed[T]]]
Sleep = Callable[[float], Awaitable[object]]

WAIT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Fresh(Generic[T_co]):
    """How it is now. ``restarted`` says that the index went backwards, so what is seen need not be newer."""

    index: int
    value: T_co
    restarted: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """It cannot be seen at the moment, and why. The next :class:`Fresh` says that it can be seen again."""

    error: CitadelError


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt: half of an exponential step, and a random share of its other half.

    An error that time does not heal (a refused token) waits as long as it gets from the start.
    """

    first_seconds: float = 0.05
    longest_seconds: float = 10.0

    def seconds(self, attempt: int, error: CitadelError, draw: float) -> float:
        """The wait after ``attempt`` failures (from 1); ``draw`` is a random number of [0, 1)."""
        # The exponent is bounded because a float is not: an outage of hours has thousands of attempts.
        step = self.first_seconds * 2.0 ** min(attempt - 1, 32)
        if not isinstance(error, TemporaryError):
            step = self.longest_seconds
        return min(step, self.longest_seconds) * (1 + draw) / 2


_BACKOFF: Final = Backoff()


@dataclass(slots=True)
class Throttle:
    """A token bucket: ``burst`` answers at once, ``per_second`` of them for ever."""

    burst: float = 100.0
    per_second: float = 100.0
    _level: float = field(init=False)
    _at: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self._level = self.burst

    def delay(self, now: float) -> float:
        """Take one token at ``now``; how many seconds to wait for it."""
        if self._at > float("-inf"):
            self._level = min(self.burst, self._level + (now - self._at) * self.per_second)
        self._at = now
        self._level -= 1.0
        return max(0.0, -self._level / self.per_second)


def next_index(sent: int | None, answered: int) -> int | None:
    """The index to wait past after an answer; ``None`` if it went backwards and one has to start over."""
    answered = max(answered, 1)
    return None if sent is not None and answered < sent else answered


async def watch(
    fetch: Fetch[T],
    *,
    wait_seconds: float = WAIT_SECONDS,
    backoff: Backoff = _BACKOFF,
    jitter: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
    sleep: Sleep = asyncio.sleep,
    throttle: Throttle | None = None,
) -> AsyncGenerator[Fresh[T] | Lost, None]:
    """Yield what ``fetch(index, wait_seconds)`` sees, each time that it moved.

    ``fetch`` is a method of the client with its other arguments bound. The first answer is always yielded, as is the
    first one after an outage or after the index went backwards. An outage is yielded once, and again if the kind of
    its error changes. ``throttle`` bounds how often it is asked. The stream never ends by itself: leave it by
    cancellation, or wrap it in ``contextlib.aclosing`` to leave it by ``break``.
    """
    throttle = throttle or Throttle()
    index: int | None = None
    seen = 0
    restarted = False
    failures = 0
    failure: type[CitadelError] | None = None
    while True:
        try:
            answer = await fetch(index, wait_seconds if index is not None else None)
        except CitadelError as error:
            index = None
            failures += 1
            if type(error) is not failure:
                failure = type(error)
                yield Lost(error)
            await sleep(backoff.seconds(failures, error, jitter()))
            continue
        failures, failure = 0, None
        # Also across an outage, where there was no index to send: that is how a restored snapshot comes back.
        restarted = restarted or answer.index < seen
        sent, index, seen = index, next_index(index, answer.index), answer.index
        if index is not None and index != sent:
            yield Fresh(index, answer.value, restarted)
            restarted = False
        delay = throttle.delay(clock())
        if delay > 0:
            await sleep(delay)
