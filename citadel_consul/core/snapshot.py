"""Everything that a decision may rest on, at one moment, immutable."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from citadel_consul.core.digest import Digest, digest_of
from citadel_consul.core.graph import Graph, GraphFault
from citadel_consul.core.incident import Backoff, Incident
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Condition, Edge, Instance, ServiceSpec
from citadel_consul.core.operation import Operation
from citadel_consul.core.stats import ServiceStats


class CheckStatus(StrEnum):
    """The worst status of an instance's checks, as Consul names it."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"
    MAINTENANCE = "maintenance"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where neither the spec nor the request says otherwise (settings of the orchestrator).

    A service that fails and comes back by itself ``flap_limit`` times in quick succession flaps; a lapse counts half
    after ``flap_half_life_seconds``. If more than ``brake_share`` (0 to 1) of the wanted services, and at least
    ``brake_services``, fail within ``brake_window_seconds``, recovery is frozen. A new incident is told after
    ``notice_delay_seconds``.
    """

    start_timeout_seconds: float = 60.0
    stop_timeout_seconds: float = 30.0
    startup_timeout_seconds: float = 300.0
    shutdown_timeout_seconds: float = 120.0
    drain_timeout_seconds: float = 30.0
    recovery_enabled: bool = True
    recovery_attempts: int = 3
    recovery_delay_seconds: float = 60.0
    flap_limit: int = 5
    flap_half_life_seconds: float = 300.0
    brake_share: float = 0.5
    brake_services: int = 3
    brake_window_seconds: float = 60.0
    notice_delay_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Hold:
    """An operator's 'hands off'. ``until`` is unix seconds, None means until it is taken back.

    With ``maintenance``, what it covers is taken out of DNS as well (Consul's maintenance mode) as long as it stands.
    With ``handback`` the service is to be let go of for good (see ``core.handback``).
    """

    scope: str
    name: str
    by: str = ""
    reason: str = ""
    until: float | None = None
    maintenance: bool = False
    handback: bool = False

    def stands(self, now: float) -> bool:
        """Whether it has not run out at ``now`` (unix seconds)."""
        return self.until is None or now < self.until

    def covers(self, instance: Instance) -> bool:
        """Whether ``instance`` is in its scope."""
        names = {"service": instance.service, "node": instance.node}
        return self.scope == "stack" or names.get(self.scope) == self.name


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in the KV store that could not be used as it stands: where, and what is wrong."""

    key: str
    message: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of one stack. ``checks`` holds only instances that are not passing.

    ``node_faults`` says of nodes what Consul holds against its own agent there. ``backoffs`` holds, for services with
    failed attempts of recovery, what their policies say next. ``stats`` is what has been counted so far; ``moved`` are
    the services of which anything may have changed since that was brought up to date, None for any. ``digest`` is what
    :meth:`digested` comes to, if somebody knows that already.
    """

    stack: str
    specs: Mapping[str, ServiceSpec]
    graph: Graph
    desired: Mapping[Instance, Desired] = field(default_factory=dict)
    observed: Mapping[Instance, Observed] = field(default_factory=dict)
    checks: Mapping[Instance, CheckStatus] = field(default_factory=dict)
    agents: frozenset[str] = frozenset()
    operations: tuple[Operation, ...] = ()
    holds: tuple[Hold, ...] = ()
    faults: tuple[Fault, ...] = ()
    graph_faults: tuple[GraphFault, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)
    incidents: Mapping[str, Incident] = field(default_factory=dict)
    backoffs: Mapping[str, Backoff] = field(default_factory=dict)
    node_faults: Mapping[str, str] = field(default_factory=dict)
    stats: Mapping[str, ServiceStats] = field(default_factory=dict)
    moved: frozenset[str] | None = None
    digest: Digest | None = None

    def digested(self) -> Digest:
        """What is not as it should be, and other things for which all of the stack would have to be looked at."""
        if self.digest is not None:
            return self.digest
        return digest_of(self.specs, self.desired, self.observed, self.checks, self.incidents, self.stats)

    def instances(self, service: str) -> tuple[Instance, ...]:
        spec = self.specs.get(service)
        return spec.instances if spec is not None else ()

    def is_alive(self, instance: Instance) -> bool:
        """Whether it runs, or has been told to and its agent has not yet said what became of that."""
        observed, desired = self.observed.get(instance), self.desired.get(instance)
        if observed is not None and observed.alive:
            return True
        if desired is None or not desired.run:
            return False
        return observed is None or observed.generation < desired.generation

    def may_have_started(self, instance: Instance) -> bool:
        """Whether it was told to stop while its agent owed the answer to the order before, which may have started it.

        Only the last order is known, so the one before is taken for a start: an agent that lives answers either way.
        """
        desired, observed = self.desired.get(instance), self.observed.get(instance)
        if desired is None or desired.run or desired.released:
            return False
        return (0 if observed is None else observed.generation) < desired.generation - 1

    def is_down(self, instance: Instance) -> bool:
        """Whether nothing of it runs and nothing has been ordered to."""
        desired = self.desired.get(instance)
        return not self.is_alive(instance) and (desired is None or not desired.run)

    def meets(self, instance: Instance, condition: Condition) -> bool:
        """Whether an instance is now what an edge with ``condition`` asks of it.

        What was observed of an older generation is no answer: a oneshot that is to run again had completed before.
        """
        observed, desired = self.observed.get(instance), self.desired.get(instance)
        if observed is None or desired is None or not desired.run or observed.generation < desired.generation:
            return False
        if condition is Condition.COMPLETED:
            return observed.phase is Phase.COMPLETED
        if condition is Condition.STARTED:
            return observed.phase in (Phase.STARTING, Phase.READY, Phase.COMPLETED)
        if observed.phase is Phase.COMPLETED:
            spec = self.specs.get(instance.service)  # None: pruned while an operation still works on it
            return spec is not None and spec.oneshot
        return observed.phase is Phase.READY and self.checks.get(instance) not in (
            CheckStatus.CRITICAL,
            CheckStatus.MAINTENANCE,
        )

    def edge_met(self, edge: Edge) -> bool:
        """Whether enough instances of the dependency are what ``edge`` asks for."""
        return self.spare(edge) >= 0

    def survives(self, edge: Edge, gone: Collection[Instance]) -> bool:
        """Whether ``edge`` still holds when all of ``gone`` is down; what has completed need not stay."""
        return edge.condition is Condition.COMPLETED or self._spare(edge, gone) >= 0

    def needed(self, edge: Edge) -> int:
        """How many instances of the dependency have to be what ``edge`` asks for; 0 if there are none at all."""
        spec = self.specs.get(edge.dependency)
        count = len(spec.nodes) if spec is not None else 0
        return count if edge.min_instances is None else min(edge.min_instances, count)

    def spare(self, edge: Edge) -> int:
        """How many more instances than needed are what ``edge`` asks for; below 0 it does not hold."""
        return self._spare(edge, ())

    def _spare(self, edge: Edge, gone: Collection[Instance]) -> int:
        met = sum(self.meets(i, edge.condition) for i in self.instances(edge.dependency) if i not in gone)
        return met - max(1, self.needed(edge))

    def start_timeout(self, service: str) -> float:
        spec = self.specs.get(service)
        own = spec.start_timeout_seconds if spec is not None else None
        return self.defaults.start_timeout_seconds if own is None else own

    def stop_timeout(self, service: str) -> float:
        spec = self.specs.get(service)
        own = spec.stop_timeout_seconds if spec is not None else None
        return self.defaults.stop_timeout_seconds if own is None else own
