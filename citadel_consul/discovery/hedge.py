"""Hedged requests: a second way beside the first one, when that takes unusually long. The first answer ends the other.

An instance that was stopped, or whose machine is gone, keeps its connections and says nothing. Only a time-out ends
such a request, and one that spares slow answers is long. A second request elsewhere costs one request, and the caller
hardly notices. It is bounded three times: it begins when an answer is later than nearly all others (see ``pace``), it
needs an instance that was not asked yet, and it is paid for from the same budget as attempts that answer a time-out. So
a service that is slow because it has too much to do does not get twice as much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx

from citadel_consul.discovery.journey import Journey

Way = Callable[[], Coroutine[Any, Any, httpx.Response]]


async def hedged(way: Way, journey: Journey) -> httpx.Response:
    """The answer that ``way()`` finds, or another ``way()`` beside it if that is sooner.

    Raises TimeoutError when the journey's time is over, and httpx's error of the first way if neither finds one.
    """
    second: _Second | None = None
    try:
        async with asyncio.timeout(journey.limit_seconds) as scope:
            patience = journey.patience_seconds
            if patience is None or _is_being_cancelled():
                return await way()
            second = _Second(way, journey, scope, patience)
            try:
                return await way()
            except httpx.TransportError:
                await second.done()
                if second.answered:
                    return second.take()
                raise
    except TimeoutError:
        if second is not None and second.answered:
            return second.take()
        raise
    finally:
        if second is not None:
            await second.end()


def _is_being_cancelled() -> bool:
    """Whether this is the cleaning up of a cancelled task: there asyncio could not tell our interruption from that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Second:
    """The second way: nothing but a timer, until the first one has taken too long. Its answer interrupts ``scope``."""

    def __init__(self, way: Way, journey: Journey, scope: asyncio.Timeout, patience_seconds: float) -> None:
        self._way = way
        self._journey = journey
        self._scope = scope
        self._patience = patience_seconds
        self._task: asyncio.Task[httpx.Response] | None = None
        self._settled = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(patience_seconds, self._begin)

    @property
    def answered(self) -> bool:
        """Whether it has come to something: an answer, or an error that is no matter of the network."""
        task = self._task
        return task is not None and task.done() and not task.cancelled() and not _failed(task)

    def take(self) -> httpx.Response:
        """Its answer, which is the caller's from now on."""
        if self._task is None:
            raise RuntimeError("the second way has not begun")
        self._settled = True
        return self._task.result()

    async def done(self) -> None:
        """Wait for its end, if it has begun."""
        self._timer.cancel()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def end(self) -> None:
        """Give it up. An answer that nobody has taken is dropped."""
        self._timer.cancel()
        task = self._task
        if task is None or self._settled:
            return
        self._settled = True
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and not _failed(task):
            await task.result().aclose()

    def _begin(self) -> None:
        late = self._loop.time() - self._timer.when()
        if late > self._patience / 2:
            # Our own event loop is what is slow, and the answer may lie there unread.
            self._timer = self._loop.call_later(self._patience, self._begin)
        elif self._journey.may_part():
            self._task = self._loop.create_task(self._way(), name="a request's second way")
            self._task.add_done_callback(self._ended)

    def _ended(self, _: asyncio.Task[httpx.Response]) -> None:
        if self.answered and not self._settled and not self._scope.expired():
            self._scope.reschedule(self._loop.time())


def _failed(task: asyncio.Task[httpx.Response]) -> bool:
    return isinstance(task.exception(), httpx.TransportError)
