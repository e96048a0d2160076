"""Keeping the history short: events and ended operations are trimmed to a bounded count.

It is done by the leader, now and then, and under the fence like every write. What is trimmed is the oldest: ids sort
by time.
"""

from __future__ import annotations

import asyncio
import logging

from citadel_consul.consul.client import ConsulClient
from citadel_consul.errors import Conflict, ConsulUnavailable
from citadel_consul.orchestrator.writer import FencedWriter
from citadel_consul.store.state import StackState

log = logging.getLogger(__name__)

EVENTS_KEPT = 1000
OPERATIONS_KEPT = 100
EVERY_SECONDS = 30.0


class History:
    """Trims what a stack remembers."""

    def __init__(self, client: ConsulClient, state: StackState, writer: FencedWriter) -> None:
        self._client = client
        self._state = state
        self._writer = writer

    async def keep_short(self) -> None:
        """Trim every now and then, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.trim()
            except (ConsulUnavailable, Conflict) as error:
                log.info("the history was not trimmed: %s", error)

    async def trim(self) -> None:
        """Delete the oldest events and ended operations beyond what is kept."""
        keys = self._state.keys
        events = sorted(await self._client.kv_keys(keys.events))
        doomed = events[: max(0, len(events) - EVENTS_KEPT)]
        ended = [op.id for op in self._state.all_operations() if op.ended]
        for operation_id in ended[: max(0, len(ended) - OPERATIONS_KEPT)]:
            doomed += sorted(await self._client.kv_keys(keys.step_chunks(operation_id)))
            doomed += [keys.cancel(operation_id), keys.operation(operation_id)]
        if doomed:
            await self._writer.delete_keys(doomed)
