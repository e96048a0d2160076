"""A report that could not be written is written later, with everything that happened meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from citadel_consul.agent import reporter as reporter_module
from citadel_consul.agent.reporter import Reporter
from citadel_consul.consul.kv import KVEntry
from citadel_consul.consul.transaction import TxnOp
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import Instance
from citadel_consul.errors import ConsulUnavailable
from citadel_consul.store import documents
from citadel_consul.store.documents import Event
from citadel_consul.store.keys import Keys

WEB = Instance("web", "n1")
KEYS = Keys("demo")


@dataclass
class Answer:
    """What Consul says of a transaction, as far as a report asks."""

    index: int

    def entry(self, key: str) -> KVEntry:
        return KVEntry(key, b"", self.index, self.index, 0, 0, None)


@dataclass
class Consul:
    """Takes transactions, but for the first ``absences``; ``values`` is what is in the store then, by key."""

    absences: int
    values: dict[str, bytes] = field(default_factory=dict)
    written: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def transact(self, operations: Sequence[TxnOp]) -> Answer:
        self.asked += 1
        if self.asked <= self.absences:
            raise ConsulUnavailable("no answer")
        self.values |= {operation.key: operation.value or b"" for operation in operations}
        self.written.set()
        return Answer(self.asked)


async def test_what_consul_did_not_take_is_told_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter_module, "RETRY_SECONDS", 0.0)
    consul = Consul(absences=3)
    reporter = Reporter(consul, KEYS, "n1", None)  # type: ignore[arg-type]
    seen = Observed(1, Phase.EXITED, since=1.0)
    reporter.report(WEB, seen)
    reporter.record(Event("1-a", 1.0, "instance-exited", "it exited", "agent n1"))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(reporter.run("session"))
        async with asyncio.timeout(5):
            await consul.written.wait()
        running.cancel()
    assert consul.asked == 1 + consul.absences
    assert documents.OBSERVED.decode(consul.values[KEYS.observed_of("n1")]).instances == {"web": seen}
    assert documents.EVENT.decode(consul.values[KEYS.event("1-a")], id="1-a").kind == "instance-exited"
