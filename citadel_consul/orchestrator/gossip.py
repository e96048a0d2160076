"""Telling dependents: a Consul user event for every dependency that came back.

The history holds the same, and is what can be relied on; gossip is for handlers that are to run on a node at once
(``consul watch -type=event -name=citadel-<stack>-recovered``). It is best effort in Consul itself, so here, too: nobody
waits for it, and what cannot be sent is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Sequence

import orjson

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.actions import Action, RecordEvent
from citadel_consul.core.operation import Step
from citadel_consul.errors import CitadelError
from citadel_consul.store.state import StackState

log = logging.getLogger(__name__)

TOLD = "dependency-recovered"
"""The kind of the event in the history."""
WAITING = 1000
MOST_BYTES = 256
"""Of a payload. Serf takes 512 bytes for all of an event, and Consul wraps id, name and filters around it."""


def event_name(stack: str) -> str:
    """The name of the user event."""
    return f"citadel-{stack}-recovered"


class Gossip:
    """Sends the user events of one leadership. Run :meth:`run` in a task."""

    def __init__(self, client: ConsulClient, state: StackState) -> None:
        self._client = client
        self._state = state
        self._waiting: deque[RecordEvent] = deque(maxlen=WAITING)
        self._news = asyncio.Event()

    def take(self, actions: Sequence[Action]) -> None:
        """Take note of what was decided and written; costs the control loop nothing."""
        told = [action for action in actions if isinstance(action, RecordEvent) and action.kind == TOLD]
        if told:
            self._waiting.extend(told)
            self._news.set()

    async def run(self) -> None:
        """Send, until cancelled."""
        name = event_name(self._state.keys.stack)
        while True:
            await self._news.wait()
            self._news.clear()
            told = [self._waiting.popleft() for _ in range(len(self._waiting))]
            for payload in self._payloads(told):
                try:
                    await self._client.event_fire(name, payload)
                except CitadelError as error:
                    log.warning("no user event for %s: %s", payload.decode(), error)

    def _payloads(self, told: Sequence[RecordEvent]) -> Iterator[bytes]:
        by_operation: dict[str, list[RecordEvent]] = {}
        for event in told:
            by_operation.setdefault(event.operation or "", []).append(event)
        for operation, events in by_operation.items():
            steps = self._state.steps.get(operation, ())
            by_source: dict[tuple[str, ...], list[str]] = {}
            for event in events:
                by_source.setdefault(_sources(steps, event), []).append(f"{event.service}@{event.node}")
            for recovered, dependents in by_source.items():
                yield from payloads(operation, recovered, dependents)


def payloads(operation: str, recovered: Sequence[str], dependents: Sequence[str]) -> Iterator[bytes]:
    """The payloads of as few events as it takes to name every dependent, each short enough for gossip."""
    rest = list(dependents)
    while rest:
        count = len(rest)
        while count > 1 and len(_payload(operation, recovered, rest[:count])) > MOST_BYTES:
            count -= 1
        yield _payload(operation, recovered, rest[:count])
        del rest[:count]


def _payload(operation: str, recovered: Sequence[str], dependents: Sequence[str]) -> bytes:
    whole = {"v": 1, "operation": operation, "recovered": list(recovered), "dependents": list(dependents)}
    encoded = orjson.dumps(whole)
    # Names are DNS labels of 63 characters at most; many causes of one notice are more than there is room for.
    return encoded if len(encoded) <= MOST_BYTES else orjson.dumps({**whole, "recovered": []})


def _sources(steps: Sequence[Step], event: RecordEvent) -> tuple[str, ...]:
    """What came back, by the steps that the notice came after."""
    for step in steps:
        if step.service == event.service and step.node == event.node and step.action == "notify":
            return tuple(sorted({steps[position].service for position in step.after}))
    return ()
