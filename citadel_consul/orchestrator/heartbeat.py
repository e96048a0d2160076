"""A leader's signs of life: what the check is fed with on which its lock hangs.

They are given beside the control loop, since a turn of it takes as long as its calls to Consul do: where each is
answered 300 ms late, reading the stack and writing one decision take longer than the check allows, and every new leader
would lose its lock in its first turn. And they are given only while the loop comes round, in the thread that it runs
in: a loop that blocks gives none at once, one that waits for something for ever none after :data:`HUNG_SECONDS`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from citadel_consul.errors import ConsulUnavailable

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.2
HUNG_SECONDS = 15.0
"""How long the loop may take to come round: longer than any one call to Consul, which ends after twelve seconds."""


class Heartbeat:
    """Calls ``beat`` every ``every_seconds`` while :meth:`run` runs and the loop says :meth:`come_round` in time."""

    def __init__(
        self,
        beat: Callable[[], Awaitable[None]],
        every_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._beat = beat
        self._every = every_seconds
        self._clock = clock
        self._sleep = sleep
        self._came_round_at = clock()
        self._hung = False

    def come_round(self) -> None:
        """Say that the loop came round."""
        self._came_round_at = self._clock()

    async def run(self) -> None:
        """Give signs of life until cancelled. Raises what ``beat`` raises, but for the absence of Consul."""
        while True:
            began = self._clock()
            pause = await self._give() if self._comes_round(began) else RETRY_SECONDS
            await self._sleep(max(0.0, began + pause - self._clock()))

    def _comes_round(self, now: float) -> bool:
        hung = now - self._came_round_at > HUNG_SECONDS
        if hung and not self._hung:
            log.critical("the control loop has not come round for %g s: no sign of life is given", HUNG_SECONDS)
        self._hung = hung
        return not hung

    async def _give(self) -> float:
        """Give one sign; returns how long after its beginning the next is due."""
        try:
            await self._beat()
        except ConsulUnavailable as error:
            log.warning("no sign of life could be given: %s", error)
            return RETRY_SECONDS
        return self._every
