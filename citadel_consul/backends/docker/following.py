"""How the end of a container is noticed: by the engine's stream of events, which is trusted for speed only.

A stream can break off without a word (an engine that hangs, a proxy that forgot the connection), and between two
streams events are lost. So everything is looked at whenever a stream begins, and a stream that has been quiet for
``QUIET_SECONDS`` is ended and another one begun: what was missed is known by then. A look costs the engine a
millisecond or two a container.

An engine that is absent is asked for again for ever, and that is said once. Its containers are not taken for dead: an
engine can come back without having stopped them, and what it did is seen then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from citadel_consul.backends.docker.engine import Engine, EngineRefusedError, Event
from citadel_consul.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

QUIET_SECONDS = 10.0
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 2.0


class Following:
    """Follows one engine. ``on_begin`` looks at everything, ``on_event`` is given each event."""

    def __init__(
        self,
        engine: Engine,
        quiet_seconds: float,
        on_begin: Callable[[], Awaitable[None]],
        on_event: Callable[[Event], Awaitable[None]],
    ) -> None:
        self._engine = engine
        self._quiet_seconds = quiet_seconds
        self._on_begin = on_begin
        self._on_event = on_event
        self._absent = False
        self._delay = FIRST_RETRY_SECONDS

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._follow()
            except (BackendError, BackendUnavailable, EngineRefusedError) as error:
                if not self._absent:
                    self._absent = True
                    _log.warning("ends of containers are noticed when the Docker engine is back: %s", error)
                await asyncio.sleep(self._delay)
                self._delay = min(2 * self._delay, LAST_RETRY_SECONDS)

    async def _follow(self) -> None:
        """Follow one stream until it has been quiet for long enough."""
        await self._engine.greet()
        async with self._engine.events(self._quiet_seconds) as events:
            await self._on_begin()
            self._delay = FIRST_RETRY_SECONDS
            if self._absent:
                self._absent = False
                _log.info("the Docker engine is back, and everything was looked at")
            async for event in events:
                await self._on_event(event)
