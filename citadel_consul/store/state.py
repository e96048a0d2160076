"""The state of one stack as known here: one cache a prefix, and the snapshot that follows from them.

Watches (or a single reading, for the CLI and the API) feed the caches; :meth:`StackState.snapshot` puts them together.
Building a snapshot costs time only for what changed: the graph is rebuilt when specs or edges did, the instances of
a node when its document did, and the digest is told of each change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from citadel_consul.consul.catalog import CheckState
from citadel_consul.consul.kv import KVEntry
from citadel_consul.core.graph import Graph, GraphFault, build_graph
from citadel_consul.core.incident import Incident
from citadel_consul.core.lifecycle import Desired, Observed
from citadel_consul.core.model import Edge, Instance, ServiceSpec
from citadel_consul.core.operation import Operation, Step
from citadel_consul.core.snapshot import CheckStatus, Defaults, Fault, Hold, Snapshot
from citadel_consul.core.stats import ServiceStats
from citadel_consul.store import documents
from citadel_consul.store.cache import PrefixCache
from citadel_consul.store.decoding import decode_edge, decode_incident, decode_operation, decode_spec, decode_stats
from citadel_consul.store.digest import RunningDigest
from citadel_consul.store.documents import AgentRecord, Cancellation, LeaderRecord, NodeDesired, NodeObserved
from citadel_consul.store.holds import decode_hold
from citadel_consul.store.keys import Keys

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_WORST = (CheckStatus.PASSING, CheckStatus.WARNING, CheckStatus.CRITICAL, CheckStatus.MAINTENANCE)
_RANK = {status: rank for rank, status in enumerate(_WORST)}


def instance_of(stack: str, service_id: str) -> Instance | None:
    """The instance that a Consul service id of this stack names (``<stack>.<service>.<node>``)."""
    parts = service_id.split(".")
    return Instance(parts[1], parts[2]) if len(parts) == 3 and parts[0] == stack else None


class NodeDocument(Protocol[T_co]):
    """What is said of the instances of one node, by service."""

    @property
    def instances(self) -> Mapping[str, T_co]: ...


class ByInstance(Generic[T]):
    """What the documents of all nodes say, by instance."""

    def __init__(self) -> None:
        self.values: dict[Instance, T] = {}
        self._services: dict[str, frozenset[str]] = {}

    def replace(self, node: str, document: NodeDocument[T] | None) -> set[Instance]:
        """Put one node's document in the place of the last; returns the instances that it changes."""
        fresh = {} if document is None else {Instance(s, node): value for s, value in document.instances.items()}
        before = self._services.get(node, frozenset())
        gone = {Instance(s, node) for s in before} - fresh.keys()
        changed = {i for i, value in fresh.items() if self.values.get(i) != value} | gone
        for instance in gone:
            del self.values[instance]
        self.values.update(fresh)
        self._services[node] = frozenset(instance.service for instance in fresh)
        return changed


class StackState:
    """Caches of everything that a snapshot is made of."""

    def __init__(self, stack: str, defaults: Defaults) -> None:
        keys = self.keys = Keys(stack)
        self.defaults = defaults
        # None of them knows this state: a reading that is over goes at once, without the collector of cycles.
        self.specs: PrefixCache[ServiceSpec] = PrefixCache(partial(decode_spec, keys))
        self.edges: PrefixCache[Edge] = PrefixCache(partial(decode_edge, keys))
        self.holds: PrefixCache[Hold] = PrefixCache(partial(decode_hold, keys))
        self.agents: PrefixCache[AgentRecord] = PrefixCache(lambda e: documents.AGENT.decode(e.value))
        self.desired: PrefixCache[NodeDesired] = PrefixCache(lambda e: documents.DESIRED.decode(e.value))
        self.observed: PrefixCache[NodeObserved] = PrefixCache(lambda e: documents.OBSERVED.decode(e.value))
        self.operations: PrefixCache[Operation | Cancellation] = PrefixCache(partial(decode_operation, keys))
        self.incidents: PrefixCache[Incident] = PrefixCache(partial(decode_incident, keys))
        self.stats: PrefixCache[ServiceStats] = PrefixCache(partial(decode_stats, keys))
        self.leader: PrefixCache[LeaderRecord] = PrefixCache(lambda e: documents.LEADER.decode(e.value))
        self.steps: dict[str, tuple[Step, ...]] = {}
        self._not_passing: dict[str, Mapping[Instance, CheckStatus]] = {}
        self._node_checks: dict[str, tuple[CheckState, ...]] = {}
        self._graph: tuple[Graph, tuple[GraphFault, ...]] = build_graph((), ())
        self._desired: ByInstance[Desired] = ByInstance()
        self._observed: ByInstance[Observed] = ByInstance()
        self._specs: Mapping[str, ServiceSpec] = {}
        self._incidents: dict[str, Incident] = {}
        self._stats: dict[str, ServiceStats] = {}
        self._digest = RunningDigest()
        self._moved: set[str] | None = None

    # --- feeding ------------------------------------------------------------------------------------------------

    def merge(self, prefix: str, index: int, entries: Iterable[KVEntry], *, restarted: bool = False) -> frozenset[str]:
        """Take in a listing of one of the prefixes; returns the keys that changed.

        ``restarted`` says that it holds whatever is known (see :meth:`PrefixCache.merge`).
        """
        cache = self.cache_of(prefix)
        changed = cache.merge(index, entries, restarted=restarted)
        if restarted and prefix == self.keys.operations:
            self.steps.clear()
        if changed:
            self._follow(prefix, changed)
        return changed

    def merge_checks(self, status: str, checks: Iterable[CheckState]) -> bool:
        """Take in the checks of the catalog that are in ``status`` (``critical`` or ``warning``)."""
        found: dict[Instance, CheckStatus] = {}
        of_nodes: list[CheckState] = []
        for check in checks:
            if not check.service_id:
                of_nodes.append(check)
                continue
            instance = instance_of(self.keys.stack, check.service_id)
            if instance is None:
                continue
            own = CheckStatus.MAINTENANCE if check.is_maintenance else CheckStatus(status)
            if _RANK[own] > _RANK[found.get(instance, CheckStatus.PASSING)]:
                found[instance] = own
        moved = {instance for instance, _ in found.items() ^ self._not_passing.get(status, {}).items()}
        changed = found != self._not_passing.get(status, {}) or tuple(of_nodes) != self._node_checks.get(status, ())
        self._not_passing[status] = found
        self._node_checks[status] = tuple(of_nodes)
        self._move_instances(moved)
        return changed

    def refresh(self, prefix: str, entry: KVEntry) -> bool:
        """Take in one entry of ``prefix`` that was read by itself; returns whether it is news."""
        cache = self.cache_of(prefix)
        if entry.modify_index == cache.index_of(entry.key):
            return False
        cache.refresh(entry)
        self._follow(prefix, {entry.key})
        return True

    def cache_of(self, prefix: str) -> PrefixCache[Any]:
        """The cache that holds ``prefix``."""
        keys = self.keys
        table: dict[str, PrefixCache[Any]] = {
            keys.specs: self.specs,
            keys.edges: self.edges,
            keys.holds: self.holds,
            keys.agents: self.agents,
            keys.desired: self.desired,
            keys.observed: self.observed,
            keys.operations: self.operations,
            keys.incidents: self.incidents,
            keys.stats: self.stats,
            keys.leader: self.leader,
        }
        return table[prefix]

    def wrote(self, prefix: str, entry: KVEntry, value: object) -> None:
        """Take in a value that we wrote ourselves, as of the index that the transaction returned."""
        self.cache_of(prefix).written(entry, value)
        self._follow(prefix, {entry.key})

    def removed(self, prefix: str, key: str) -> None:
        """Take in that we removed a key ourselves, as it was known here."""
        cache = self.cache_of(prefix)
        cache.deleted(key, cache.index_of(key))
        self._follow(prefix, {key})

    def _follow(self, prefix: str, changed: Iterable[str]) -> None:
        if prefix in (self.keys.specs, self.keys.edges):
            self._rebuild_graph()
            self._move(key.removeprefix(prefix).partition("/")[0] for key in changed)
        elif prefix == self.keys.desired:
            for key in changed:
                self._move_instances(self._desired.replace(self._node_of(key), self.desired.values.get(key)))
        elif prefix == self.keys.observed:
            for key in changed:
                self._move_instances(self._observed.replace(self._node_of(key), self.observed.values.get(key)))
        elif prefix == self.keys.incidents:
            for service, incident in _follow_keys(self._incidents, prefix, changed, self.incidents.values):
                self._digest.take_incident(service, incident)
        elif prefix == self.keys.stats:
            for service, stats in _follow_keys(self._stats, prefix, changed, self.stats.values):
                self._digest.take_stats(service, stats)

    def _move(self, services: Iterable[str]) -> None:
        if self._moved is not None:
            self._moved.update(services)

    def _move_instances(self, instances: Iterable[Instance]) -> None:
        desired, observed = self._desired.values, self._observed.values
        for instance in instances:
            checked = self._is_checked(instance)
            self._digest.take_instance(instance, desired.get(instance), observed.get(instance), checked=checked)
            self._move((instance.service,))

    def _is_checked(self, instance: Instance) -> bool:
        """Whether one of its checks is not passing."""
        return any(instance in found for found in self._not_passing.values())

    def _rebuild_graph(self) -> None:
        self._specs = {spec.name: spec for spec in self.specs.values.values()}
        self._digest.take_specs(self._specs, self._desired.values, self._stats.values())
        names = [spec.name for spec in self.specs.values.values()]
        oldest_first = sorted(self.edges.values, key=self.edges.created)
        self._graph = build_graph(sorted(names), (self.edges.values[key] for key in oldest_first))

    # --- reading ------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Everything known, at this moment, immutable."""
        graph, graph_faults = self._graph
        return Snapshot(
            stack=self.keys.stack,
            specs=self._specs,
            graph=graph,
            desired=dict(self._desired.values),
            observed=dict(self._observed.values),
            checks={**self._not_passing.get("warning", {}), **self._not_passing.get("critical", {})},
            agents=self.live_agents(),
            operations=self.all_operations(),
            holds=tuple(self.holds.values.values()),
            faults=self.faults(),
            graph_faults=graph_faults,
            defaults=self.defaults,
            incidents=dict(self._incidents),
            node_faults=self.node_faults(),
            stats=dict(self._stats),
            digest=self._digest.current(),
        )

    def take_moved(self) -> frozenset[str] | None:
        """The services of which anything has changed since this was last asked; None for any."""
        moved, self._moved = self._moved, set()
        return None if moved is None else frozenset(moved)

    def forget_moved(self) -> None:
        """Take anything as changed, because what became of the last look is not known."""
        self._moved = None

    def node_faults(self) -> Mapping[str, str]:
        """What Consul holds against its own agents on the nodes of this stack: their critical checks, by node."""
        critical: dict[str, list[str]] = {}
        for check in self._node_checks.get("critical", ()):
            critical.setdefault(check.node, []).append(check.name or check.check_id)
        records = self.agents.values.values()
        return {r.node: f"{', '.join(critical[r.consul_node])} critical" for r in records if r.consul_node in critical}

    def agent_records(self) -> tuple[AgentRecord, ...]:
        """The node agents that hold their lock."""
        return tuple(record for key, record in self.agents.values.items() if self.agents.session_of(key))

    def live_agents(self) -> frozenset[str]:
        """The nodes whose agent holds its lock."""
        return frozenset(record.node for record in self.agent_records())

    def reports_are_signalled(self) -> bool:
        """Whether every live node agent signals its reports, and has done so with its last one."""
        reports, keys = self.observed.values, self.keys
        known = ((record, reports.get(keys.observed_of(record.node))) for record in self.agent_records())
        return all(record.signals and report is not None and report.signals for record, report in known)

    def current_leader(self) -> LeaderRecord | None:
        """Who holds the leader lock, if anybody does."""
        key = self.keys.leader
        return self.leader.values.get(key) if self.leader.session_of(key) else None

    def epoch(self) -> int | None:
        """The epoch of the present leadership: the index at which the lock was taken."""
        return self.leader.index_of(self.keys.leader) if self.current_leader() else None

    def faults(self) -> tuple[Fault, ...]:
        """What lies in the KV store and cannot be used as it stands."""
        caches: tuple[PrefixCache[Any], ...] = tuple(
            self.cache_of(p)
            for p in (
                self.keys.specs,
                self.keys.edges,
                self.keys.holds,
                self.keys.desired,
                self.keys.observed,
                self.keys.operations,
                self.keys.incidents,
                self.keys.stats,
            )
        )
        return tuple(fault for cache in caches for fault in cache.faults)

    def all_operations(self) -> tuple[Operation, ...]:
        """The operations, oldest first, with such steps as are loaded and requests to cancel taken in."""
        found = []
        for value in self.operations.values.values():
            if not isinstance(value, Operation):
                continue
            cancellation = self.operations.values.get(self.keys.cancel(value.id))
            by = cancellation.by if isinstance(cancellation, Cancellation) else value.cancelled_by
            steps = self.steps.get(value.id, ())[: value.step_count]
            is_whole = steps == value.steps and by == value.cancelled_by
            found.append(value if is_whole else replace(value, steps=steps, cancelled_by=by))
        return tuple(sorted(found, key=lambda op: op.id))

    def _node_of(self, key: str) -> str:
        return key.rsplit("/", 1)[1]


def _follow_keys(
    table: dict[str, T], prefix: str, changed: Iterable[str], values: Mapping[str, T]
) -> Iterator[tuple[str, T | None]]:
    """Bring ``table``, by service, up to the ``changed`` keys of a prefix; yields each with its value."""
    for key in changed:
        service, value = key.removeprefix(prefix), values.get(key)
        if value is None:
            table.pop(service, None)
        else:
            table[service] = value
        yield service, value
