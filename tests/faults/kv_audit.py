"""Invariant I3 in the KV store: nothing that a leader wrote was written after a later leadership had begun.

What a leader writes bears its epoch, and an epoch is the index of Consul's log at which the lock was taken. So the
store itself tells: an entry with epoch e and ModifyIndex m is a violation if another leadership began between e and m.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass, field

from real_world import World

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.store.keys import Keys

ELECTED = "leader-elected"


@dataclass(frozen=True, slots=True)
class Stamp:
    """That ``key`` was written at ``index`` of the log, by the leader of ``epoch``."""

    key: str
    epoch: int
    index: int


@dataclass
class Audit:
    """Gathers stamps over the time of a test: events are trimmed and documents overwritten, so look often."""

    epochs: set[int] = field(default_factory=set)
    stamps: set[Stamp] = field(default_factory=set)

    def look(self, world: World) -> None:
        """Take in what lies in the store now."""
        keys = Keys(world.stack)

        async def read(client: ConsulClient) -> tuple[KVEntry, ...]:
            return (await client.kv_list(keys.root, consistent=True)).value

        for entry in world.ask(read):
            if entry.key == keys.leader and entry.session is not None:
                self.epochs.add(entry.modify_index)
            elif entry.key.startswith((keys.events, keys.desired, keys.operations)):
                self._take(entry)

    def _take(self, entry: KVEntry) -> None:
        document = json.loads(entry.value)
        epoch = document.get("epoch")
        if epoch is None or str(document.get("by", "")).startswith("agent "):
            return
        self.stamps.add(Stamp(entry.key, epoch, entry.modify_index))
        self.epochs.add(epoch)

    def violations(self) -> list[str]:
        """Every write that a deposed leader got through."""
        epochs = sorted(self.epochs)
        found = []
        for stamp in sorted(self.stamps, key=lambda stamp: stamp.index):
            later = bisect_right(epochs, stamp.epoch)
            if later < len(epochs) and epochs[later] < stamp.index:
                found.append(
                    f"I3: {stamp.key} was written at {stamp.index} by the leader of epoch {stamp.epoch}, "
                    f"which had been deposed at {epochs[later]}"
                )
        return found
