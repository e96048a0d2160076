"""I6: a hold stops every automatic action in its scope, from when the leader knows of it until it is over.

A leader knows of a hold when Consul has told it: that answer is seen here as well. What it decided before, and what was
on its way already, is not held against it; for that a moment is left, in which it was not paused. A hold that has stood
for long has to be known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from clockwork import Process, SimulatedLoop
from evidence import Document, Evidence, Order, Write

from citadel_consul.core.model import Instance
from citadel_consul.core.operation import ALL
from citadel_consul.core.progress import NOT_TAKEN
from citadel_consul.store.keys import Keys

ON_THE_WAY_SECONDS = 0.3
"""A decision is sent within some steps of its process; this is for one that takes several transactions."""
LONG_SECONDS = 25.0
"""Longer than any outage of a story and the backoff of the watches after it."""


class HoldRules:
    """See the module."""

    def __init__(self, evidence: Evidence, loop: SimulatedLoop, accuse: Callable[[str], None]) -> None:
        self._evidence = evidence
        self._loop = loop
        self._accuse = accuse
        self._keys: Keys = evidence.keys
        self._written: dict[str, tuple[float, Document]] = {}
        self._known: dict[Process, dict[str, tuple[float, Document]]] = {}
        self._paused: dict[Process, float] = {}

    def written(self, key: str, write: Write, now: float) -> None:
        """A hold was set or lifted."""
        self._written.pop(key, None)
        if write.document is not None:
            self._written[key] = now, write.document

    def read_by(self, reader: Process, held: dict[str, Document], now: float) -> None:
        """``reader`` knows these holds now, and no others."""
        before = self._known.get(reader, {})
        self._known[reader] = {
            key: before[key] if key in before and before[key][1] == document else (now, document)
            for key, document in held.items()
        }

    def order(self, order: Order, now: float) -> None:
        """What citadel orders by itself, it orders of nothing that is held."""
        if self._evidence.is_automatic(order.operation) and order.reason != NOT_TAKEN:
            verb = "start" if order.run else "stop"
            self._not_held(order.instance, f"is ordered to {verb}", order.sender, order.sent_at, now)

    def head(self, write: Write, now: float) -> None:
        """It begins nothing for what is held, either."""
        document = write.document
        if document is None or write.before is not None or document.get("requested_by") != "citadel":
            return
        for target in document["targets"]:
            service, _, node = target.partition("@")
            if target != ALL and node:
                self._not_held(Instance(service, node), "is recovered", write.sender, write.sent_at, now)

    def reloads(self, operation: str, write: Write, now: float) -> None:
        """Nor does it have it reload."""
        if not self._evidence.is_automatic(operation):
            return
        before = (write.before or {}).get("steps", [])
        for position, step in enumerate((write.document or {}).get("steps", [])):
            was = before[position].get("reloads") if position < len(before) else None
            if step.get("reloads") is not None and was is None:
                instance = Instance(step["service"], step["node"])
                self._not_held(instance, "is ordered to reload", write.sender, write.sent_at, now)

    def _not_held(self, instance: Instance, done: str, sender: Process | None, sent_at: float, now: float) -> None:
        if sender is None:
            return
        clock = self._loop.wall_of(sender.host) - now + sent_at
        if self._paused.get(sender) != sender.paused_seconds:  # what it has read it may have decided without
            self._paused[sender] = sender.paused_seconds
            self._known[sender] = {key: (now, hold) for key, (_, hold) in self._known.get(sender, {}).items()}
        known = self._standing(self._known.get(sender, {}), sent_at - ON_THE_WAY_SECONDS, clock)
        long_known = self._standing(self._written, sent_at - LONG_SECONDS, clock)
        for key in dict.fromkeys((*known, *long_known)):
            if self._covers(key, instance):
                self._accuse(f"I6: {instance} {done} by citadel itself, and {key} holds it")

    @staticmethod
    def _standing(holds: dict[str, tuple[float, Document]], since: float, clock: float) -> Iterable[str]:
        for key, (at, document) in holds.items():
            until = document.get("until")
            if at <= since and (until is None or until > clock):
                yield key

    def _covers(self, key: str, instance: Instance) -> bool:
        scope, _, name = key.removeprefix(self._keys.holds).partition("/")
        return scope == "stack" or name == {"service": instance.service, "node": instance.node}.get(scope)
