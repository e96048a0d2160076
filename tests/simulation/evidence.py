"""What is true in a simulated site, and what of it stands in Consul: kept up to date with each thing that happens.

Two witnesses are heard. Node agents write down what they do and see, in the moment in which they do (the *truth*). And
every write is seen as Consul takes it. Nothing of this is asked of the code under test, which only writes documents.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
from clockwork import Process
from simulated_store import decoded

from citadel_consul.agent.chronicle import Entry
from citadel_consul.core.model import Condition, Edge, Instance
from citadel_consul.core.operation import AUTOMATIC
from citadel_consul.store import documents
from citadel_consul.store.keys import Keys

LAG_SECONDS = 5.0
"""How long a leader may not know yet what stands in Consul: its watch was interrupted, or its Consul is slow."""
DOWN = frozenset({"exited", "stopped", "completed", "failed"})
NEVER = float("-inf")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Order:
    """A new generation of what is wanted of an instance, by which operation, and who wrote it when."""

    instance: Instance
    run: bool
    generation: int
    operation: str
    reason: str
    released: bool
    sender: Process | None
    sent_at: float


@dataclass(slots=True)
class Write:
    """One key as it is written: its document, what was there before (None: nothing), by whom, sent when."""

    key: str
    document: Document | None
    before: Document | None
    sender: Process | None
    sent_at: float


@dataclass(slots=True)
class Evidence:
    """See the module. Times are those of the loop, unless they stand in documents."""

    keys: Keys
    documents: dict[str, Document] = field(default_factory=dict)
    edges: dict[tuple[str, str], tuple[Edge, float]] = field(default_factory=dict)
    """With the moment since when they stand as they are."""
    up: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    ready: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    told: dict[tuple[Instance, Condition], float] = field(default_factory=dict)
    """When Consul last had it that an instance is what a condition asks for; infinite as long as it has."""
    orders: dict[Instance, dict[int, Order]] = field(default_factory=lambda: defaultdict(dict))
    chunks: dict[str, dict[str, list[Document]]] = field(default_factory=lambda: defaultdict(dict))
    lapses: dict[str, dict[tuple[str, float], float]] = field(default_factory=lambda: defaultdict(dict))
    """By service: when Consul was first told of a lapse, which the node and the moment tell."""
    now: float = 0.0
    """When the last write was."""

    # --- what happens ----------------------------------------------------------------------------------------------

    def hear(self, entry: Entry) -> None:
        """Take what a node agent wrote down."""
        up, ready = self.up[entry.service], self.ready[entry.service]
        if entry.what in ("started", "adopted"):
            up.add(entry.node)
        elif entry.what == "ready":
            ready.add(entry.node)
        elif entry.what in ("stopping", "draining"):
            ready.discard(entry.node)
        elif entry.what in DOWN:
            up.discard(entry.node)
            ready.discard(entry.node)

    def take(self, operations: Iterable[Document], sender: Process | None, sent_at: float, now: float) -> list[Write]:
        """Take a transaction that Consul has carried out; returns its writes, heads and incidents first."""
        self.now = now
        writes = [w for op in operations for w in self._writes_of(op, sender, sent_at)]
        writes.sort(key=lambda write: write.key.startswith((self.keys.desired, self.keys.events)))
        for write in writes:
            if write.document is None:
                self.documents.pop(write.key, None)
            else:
                self.documents[write.key] = write.document
            self._note(write, now)
        return writes

    def _writes_of(self, operation: Document, sender: Process | None, sent_at: float) -> Iterator[Write]:
        verb, key = operation["Verb"], operation["Key"]
        if not key.startswith(self.keys.root):
            return
        if verb in ("set", "cas"):
            document = orjson.loads(decoded(operation.get("Value") or "") or b"{}")
            yield Write(key, document, self.documents.get(key), sender, sent_at)
        elif verb in ("delete", "delete-cas", "delete-tree"):
            gone = [k for k in self.documents if k.startswith(key)] if verb == "delete-tree" else [key]
            yield from (Write(k, None, self.documents[k], sender, sent_at) for k in gone if k in self.documents)

    def _note(self, write: Write, now: float) -> None:
        key, keys = write.key, self.keys
        if key.startswith(keys.observed):
            self._note_observed(key.removeprefix(keys.observed), write, now)
        elif key.startswith(keys.steps):
            operation, _, number = key.removeprefix(keys.steps).partition("/")
            self.chunks[operation][number] = (write.document or {}).get("steps", [])
        elif key.startswith(keys.edges):
            service, _, dependency = key.removeprefix(keys.edges).partition("/")
            self.edges.pop((service, dependency), None)
            if write.document is not None:
                raw = orjson.dumps(write.document)
                edge = documents.EDGE.decode(raw, service=service, dependency=dependency)
                self.edges[service, dependency] = edge, now

    def _note_observed(self, node: str, write: Write, now: float) -> None:
        for service, seen in (write.document or {}).get("instances", {}).items():
            instance = Instance(service, node)
            for at in seen.get("lapses", ()):
                self.lapses[service].setdefault((node, at), now)
            healthy = seen["phase"] == "ready"
            started = seen["phase"] in ("starting", "ready")
            for condition, met in ((Condition.HEALTHY, healthy), (Condition.STARTED, started)):
                if met:
                    self.told[instance, condition] = float("inf")
                elif self.told.get((instance, condition)) == float("inf"):
                    self.told[instance, condition] = now

    # --- what is asked ---------------------------------------------------------------------------------------------

    def known_lapses(self, service: str, settle_seconds: float) -> list[float]:
        """The lapses that stand in the reports of its nodes, and that every leader has had the time to read of."""
        told, prefix = self.lapses[service], self.keys.observed
        reports = {key.removeprefix(prefix): d for key, d in self.documents.items() if key.startswith(prefix)}
        return [
            at
            for node, document in reports.items()
            for at in document.get("instances", {}).get(service, {}).get("lapses", ())
            if self.now >= told[node, at] + settle_seconds
        ]

    def settled_edges(self, now: float) -> list[Edge]:
        """The edges that every leader knows by now."""
        return [edge for edge, since in self.edges.values() if now >= since + LAG_SECONDS]

    def meeting(self, edge: Edge, now: float) -> set[str]:
        """The nodes whose instance of the dependency is what ``edge`` asks for, as far as a leader can know."""
        service, condition = edge.dependency, edge.condition
        truly = self.up[service] if condition is Condition.STARTED else self.ready[service]
        late = {
            i.node
            for (i, c), until in self.told.items()
            if i.service == service and c is condition and until >= now - LAG_SECONDS
        }
        return truly | late

    def needed(self, edge: Edge) -> int:
        """How many instances of the dependency ``edge`` asks for."""
        count = len(self.documents[self.keys.spec(edge.dependency)]["nodes"])
        return min(edge.min_instances or count, count)

    def head(self, operation: str) -> Document | None:
        return self.documents.get(self.keys.operation(operation))

    def is_automatic(self, operation: str) -> bool:
        head = self.head(operation)
        return head is not None and head.get("requested_by") == AUTOMATIC

    def incident(self, service: str) -> Document | None:
        """The incident of a service, if it is not over."""
        found = self.documents.get(self.keys.incident(service))
        return found if found is not None and found["state"] != "closed" else None

    def step_of(self, order: Order) -> Document | None:
        """The step that gave ``order``, as far as it is written."""
        for step in self.steps(order.operation):
            if (step["service"], step["node"]) == order.instance and step.get("generation") == order.generation:
                return step
        return None

    def steps(self, operation: str) -> Iterator[Document]:
        """The steps of an operation, as far as they are written."""
        for chunk in self.chunks.get(operation, {}).values():
            yield from chunk
