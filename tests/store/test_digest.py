"""The digest that is kept up to date with each change comes to the same as one that is worked out from nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from citadel_consul.consul.catalog import CheckState
from citadel_consul.consul.kv import KVEntry
from citadel_consul.core.decide import decide
from citadel_consul.core.digest import Digest, digest_of
from citadel_consul.core.incident import Incident, IncidentState
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Edge, ProcessBackend, ServiceSpec
from citadel_consul.core.snapshot import Defaults, Snapshot
from citadel_consul.core.stats import Account, ServiceStats, Standing
from citadel_consul.store import documents
from citadel_consul.store.documents import AgentRecord, NodeDesired, NodeObserved
from citadel_consul.store.state import StackState

SERVICES = tuple(f"s{n}" for n in range(6))
NODES = ("n1", "n2", "n3")
CHANGES = 120


class Shuffled:
    """A stack in which everything changes at random, as listings of Consul tell it."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.state = StackState("demo", Defaults())
        self._index = 1
        self._entries: dict[str, dict[str, KVEntry]] = {}
        for node in NODES:
            self.put(self.state.keys.agents, node, documents.AGENT.encode(AgentRecord(node, node, node, "", 1.0)))
        for service in SERVICES:
            self.change_spec(service)

    def put(self, prefix: str, name: str, value: bytes | None) -> None:
        """Have a key hold ``value``, or be gone, and let the state see the listing."""
        self._index += 1
        entries, key = self._entries.setdefault(prefix, {}), f"{prefix}{name}"
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = KVEntry(key, value, self._index, self._index, 1, 0, "session")
        self.state.merge(prefix, self._index, entries.values())

    def change_something(self) -> None:
        change: Callable[[str], None] = self.draw.choice(
            [
                self.change_spec,
                self.change_edge,
                *[self.change_desired] * 4,
                *[self.change_observed] * 6,
                self.change_checks,
                self.change_incident,
                self.change_stats,
            ]
        )
        change(self.draw.choice(SERVICES))

    def change_spec(self, service: str) -> None:
        spec = ServiceSpec(
            service, "test", tuple(self.draw.sample(NODES, self.draw.randint(1, 3))), ProcessBackend(("true",)),
            critical=self.draw.random() < 0.7, oneshot=self.draw.random() < 0.2,
        )  # fmt: skip
        self.put(self.state.keys.specs, service, documents.SPEC.encode(spec) if self.draw.random() < 0.9 else None)

    def change_edge(self, service: str) -> None:
        edge = Edge(service, self.draw.choice(SERVICES))
        self.put(self.state.keys.edges, f"{edge.service}/{edge.dependency}", documents.EDGE.encode(edge))

    def change_desired(self, _: str) -> None:
        orders = {
            service: Desired(self.draw.random() < 0.8, self.draw.randint(1, 3), wanted=self.draw.random() < 0.8)
            for service in SERVICES
            if self.draw.random() < 0.8
        }
        self.put(self.state.keys.desired, self.draw.choice(NODES), documents.DESIRED.encode(NodeDesired(1, orders)))

    def change_observed(self, _: str) -> None:
        seen = {service: self._observation() for service in SERVICES if self.draw.random() < 0.8}
        gone = self.draw.random() < 0.1
        document = None if gone else documents.OBSERVED.encode(NodeObserved(1, seen))
        self.put(self.state.keys.observed, self.draw.choice(NODES), document)

    def _observation(self) -> Observed:
        phase = self.draw.choice([*[Phase.READY] * 6, *Phase])
        lapses = (self.draw.uniform(90.0, 99.0),) if self.draw.random() < 0.1 else ()
        return Observed(self.draw.randint(1, 3), phase, 90.0, started_at=80.0, ready_at=90.0, lapses=lapses)

    def change_checks(self, service: str) -> None:
        identity = f"demo.{service}.{self.draw.choice(NODES)}"
        checks = [CheckState("n", "c", "c", "critical", "", identity, service, (), 1)]
        self.state.merge_checks(self.draw.choice(["critical", "warning"]), checks * self.draw.randint(0, 1))

    def change_incident(self, service: str) -> None:
        incident = Incident(f"i-{self._index}", service, self.draw.choice(list(IncidentState)), 90.0, "process_exit")
        value = documents.INCIDENT.encode(incident) if self.draw.random() < 0.8 else None
        self.put(self.state.keys.incidents, service, value)

    def change_stats(self, service: str) -> None:
        account = Account(self.draw.choice(list(Standing)), self.draw.uniform(50.0, 90.0))
        value = documents.STATS.encode(ServiceStats(service, {"n1": account})) if self.draw.random() < 0.8 else None
        self.put(self.state.keys.stats, service, value)


def from_nothing(snapshot: Snapshot) -> Digest:
    found = digest_of(
        snapshot.specs, snapshot.desired, snapshot.observed, snapshot.checks, snapshot.incidents, snapshot.stats
    )
    return replace(found, unsettled=frozenset(found.unsettled))


@pytest.mark.parametrize("seed", range(20))
def test_a_digest_kept_by_changes_is_the_one_worked_out_from_nothing(seed: int) -> None:
    shuffled = Shuffled(seed)
    for _ in range(CHANGES):
        shuffled.change_something()
        snapshot = shuffled.state.snapshot()
        assert snapshot.digest == from_nothing(snapshot)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_decided_with_a_digest_is_what_is_decided_without(seed: int) -> None:
    shuffled = Shuffled(seed)
    for _ in range(CHANGES):
        shuffled.change_something()
        snapshot = shuffled.state.snapshot()
        assert decide(snapshot, 100.0) == decide(replace(snapshot, digest=None), 100.0)


def test_a_stack_where_all_is_well_has_nothing_unsettled() -> None:
    shuffled = Shuffled(1)
    orders = {service: Desired(True, 1, wanted=True) for service in SERVICES}
    seen = {service: Observed(1, Phase.READY, 90.0) for service in SERVICES}
    for node in NODES:
        shuffled.put(shuffled.state.keys.desired, node, documents.DESIRED.encode(NodeDesired(1, orders)))
        shuffled.put(shuffled.state.keys.observed, node, documents.OBSERVED.encode(NodeObserved(1, seen)))
    assert shuffled.state.snapshot().digested().unsettled == frozenset()
