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
from typing import NamedTuple

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


class Told(NamedTuple):
    """One dependent that was told, of what, and by which operation."""

    operation: str
    recovered: tuple[str, ...]
    dependent: str


class Gossip:
    """Sends the user events of one leadership. Run :meth:`run` in a task."""

    def __init__(self, client: ConsulClient, state: StackState) -> None:
        self._client = client
        self._state = state
        self._waiting: deque[Told] = deque(maxlen=WAITING)
        self._news = asyncio.Event()

    def take(self, actions: Sequence[Action]) -> None:
        """Take note of what was decided and written; costs the control loop nothing."""
        told = [action for action in actions if isinstance(action, RecordEvent) and action.kind == TOLD]
        if told:
            # Now, and not when they are sent: the steps of an operation are forgotten when it has ended.
            self._waiting.extend(self._told(event) for event in told)
            self._news.set()

    async def run(self) -> None:
        """Send, until cancelled."""
        name = event_name(self._state.keys.stack)
        while True:
            await self._news.wait()
            self._news.clear()
            told = [self._waiting.popleft() for _ in range(len(self._waiting))]
            for payload in _all_payloads(told):
                try:
                    await self._client.event_fire(name, payload)
                except CitadelError as error:
                    log.warning("no user event for %s: %s", payload.decode(), error)

    def _told(self, event: RecordEvent) -> Told:
        operation = event.operation or ""
        steps = self._state.steps.get(operation, ())
        return Told(operation, _sources(steps, event), f"{event.service}@{event.node}")


def _all_payloads(told: Sequence[Told]) -> Iterator[bytes]:
    dependents: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for each in told:
        dependents.setdefault((each.operation, each.recovered), []).append(each.dependent)
    for (operation, recovered), names in dependents.items():
        yield from payloads(operation, recovered, names)


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
