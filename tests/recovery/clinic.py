"""The model world with health: what Consul claims, what node agents find, and time that passes by itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from invariants import guard
from world import DEFAULTS, Behaviour, World, spec

from citadel_consul.core.actions import Action, WriteIncident
from citadel_consul.core.incident import Incident, check_incident_transition
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import Check, CheckKind, Edge, Instance, RecoveryPolicy, ServiceSpec
from citadel_consul.core.operation import Kind, Operation
from citadel_consul.core.snapshot import CheckStatus, Hold, Snapshot
from citadel_consul.orchestrator.backoff import Backoffs

LEAST_STEP_SECONDS = 0.001
CONFIRM_SECONDS = 2.0
"""How long what is broken is claimed before its node agent confirms it."""
RECOVERING = replace(DEFAULTS, recovery_enabled=True, recovery_delay_seconds=4.0)


@dataclass
class Clinic(World):
    """A world in which services fall ill.

    ``ill`` are instances that run and do not serve, until they are started anew, or for good if they are in
    ``chronic``. ``claims`` is what Consul wrongly says; ``following`` are services that are ill while something below
    them does not serve. Node agents confirm an illness after a while, and contradict a wrong claim at once.
    """

    ill: dict[Instance, float] = field(default_factory=dict)
    chronic: set[Instance] = field(default_factory=set)
    claims: dict[Instance, CheckStatus] = field(default_factory=dict)
    warnings: set[Instance] = field(default_factory=set)
    following: set[str] = field(default_factory=set)
    agents_answer: bool = True

    # --- what happens -------------------------------------------------------------------------------------------

    def kill_hard(self, *services: str) -> None:
        """SIGKILL every process of ``services``; their agents see it at once."""
        for instance in [i for i in self.processes if i.service in services and not self._is_stopping(i)]:
            self._end(instance, Phase.EXITED, detail="killed by SIGKILL", exit_signal=9)

    def hang(self, *services: str, for_good: bool = False) -> None:
        """Let the processes of ``services`` run on without serving."""
        for instance in [i for i in self.processes if i.service in services]:
            self.ill.setdefault(instance, self.now)
            if for_good:
                self.chronic.add(instance)

    def cure(self, *services: str) -> None:
        """Let ``services`` serve again, by themselves."""
        for instance in [i for i in self.ill if i.service in services]:
            del self.ill[instance]
            self.chronic.discard(instance)

    def hold(self, scope: str, name: str = "", *, until: float | None = None) -> None:
        self.holds.append(Hold(scope, name, by="op", until=until))

    def pass_time(self, seconds: float) -> None:
        """Let leader and agents work while the clock goes on."""
        end = self.now + seconds
        while True:
            self.work()
            if self.now >= end:
                return
            moments = [end, *(since + CONFIRM_SECONDS for since in self.ill.values())]
            moment = self.next_moment()
            if moment is not None:
                moments.append(max(moment, self.now + LEAST_STEP_SECONDS))
            self.tick(min(moment for moment in moments if moment > self.now) - self.now)

    def work(self) -> None:
        """Let leader and agents do all that there is to do at this moment."""
        for _ in range(1_000):
            self._examine()
            self.lead()
            if not self.agents_have_work():
                return
            self.tick()
        raise AssertionError("leader and agents never come to rest")

    # --- what is seen -------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        checks = {i: status for i, status in self.claims.items() if self._is_ready(i)}
        checks.update({i: CheckStatus.WARNING for i in self.warnings if self._is_ready(i)})
        checks.update({i: CheckStatus.CRITICAL for i in self.ill if self._is_ready(i)})
        return replace(super().snapshot(), checks=checks)

    def _is_stopping(self, instance: Instance) -> bool:
        return self.observed[instance].phase is Phase.STOPPING

    def _is_ready(self, instance: Instance) -> bool:
        seen = self.observed.get(instance)
        return seen is not None and seen.phase is Phase.READY

    def _examine(self) -> None:
        """Node agents look at what Consul does not call passing, and followers at what is below them."""
        for service in self.following:
            below = {edge.dependency for edge in self.edges if edge.service == service}
            broken = any(not self._serves(i) for d in below for i in self.specs[d].instances)
            for instance in self.specs[service].instances:
                if broken and instance in self.processes:
                    self.ill.setdefault(instance, self.now)
                elif not broken and instance not in self.chronic:
                    self.ill.pop(instance, None)
        for instance in [i for i in self.observed if self._is_ready(i)]:
            self._diagnose(instance)

    def _diagnose(self, instance: Instance) -> None:
        before = self.observed[instance]
        seen = replace(before, failing_since=None, degraded_since=None, contradicted_since=None, failure="")
        if self.agents_answer and instance in self.ill:
            since = self.ill[instance]
            if before.lapses[-1:] != (since,):
                seen = replace(seen, lapses=(*before.lapses, since)[-20:])
            if self.now - since >= CONFIRM_SECONDS:
                seen = replace(seen, failing_since=since, failure="no answer")
        elif self.agents_answer and instance in self.warnings:
            seen = replace(seen, degraded_since=before.degraded_since or self.now, failure="HTTP 429")
        elif self.agents_answer and instance in self.claims:
            seen = replace(seen, contradicted_since=before.contradicted_since or self.now)
        self.observed[instance] = seen

    def _serves(self, instance: Instance) -> bool:
        return self._is_ready(instance) and instance not in self.ill

    def _become(self, instance: Instance, phase: Phase, **changes: object) -> None:
        super()._become(instance, phase, **changes)
        seen: Observed = self.observed[instance]
        seen = replace(seen, failing_since=None, degraded_since=None, contradicted_since=None, failure="")
        if phase is Phase.STARTING:
            seen = replace(seen, exit_signal=None, unwatched=False)
        if phase is not Phase.READY and instance not in self.chronic:
            self.ill.pop(instance, None)
        if phase is Phase.READY and instance in self.chronic:
            self.ill[instance] = self.now
        self.observed[instance] = seen

    # --- what a test asks ---------------------------------------------------------------------------------------

    def starts(self, service: str) -> int:
        """How often a process of ``service`` was started."""
        return sum(count for (instance, _), count in self.executions.items() if instance.service == service)

    def incident(self, service: str) -> Incident:
        return self.incidents[service]

    def told(self, kind: str) -> list[str]:
        """The messages of the events of one kind."""
        return [event.message for event in self.events if event.kind == kind]

    def automatic(self) -> list[Operation]:
        """The operations that citadel asked for itself, oldest first."""
        return [self.operation(i) for i in sorted(self.heads) if self.heads[i].automatic]

    def healthy(self) -> set[str]:
        """The services that serve."""
        return {s for s, found in self.specs.items() if all(self._serves(i) for i in found.instances)}


def patient(name: str, *nodes: str, interval: float = 1.0, **fields: Any) -> ServiceSpec:
    """A service with a check. Policy fields (``attempts`` …) go into its recovery policy."""
    policy = {key: fields.pop(key) for key in list(fields) if key in RecoveryPolicy.__dataclass_fields__}
    checks = (Check("alive", CheckKind.TCP, "127.0.0.1:1", interval_seconds=interval, timeout_seconds=1.0),)
    return spec(name, *nodes, checks=checks, recovery=RecoveryPolicy(**policy), **fields)


def clinic_of(specs: Iterable[ServiceSpec], *edges: Edge, **fields: object) -> Clinic:
    """A guarded world in which recovery is on and everything runs."""
    clinic = Clinic.of(specs, edges, **{"defaults": RECOVERING, **fields})
    assert isinstance(clinic, Clinic)
    guard(clinic)
    clinic.backoffs = Backoffs().of
    clinic.listeners.append(incidents_change_as_the_table_allows)
    clinic.request(Kind.STARTUP)
    clinic.pass_time(5.0)
    return clinic


def incidents_change_as_the_table_allows(world: World, action: Action) -> None:
    if isinstance(action, WriteIncident):
        before = world.incidents.get(action.incident.service)
        assert action.incident != before, f"written again without news: {before}"
        if before is not None and before.id != action.incident.id:
            assert before.over
            check_incident_transition(before, action.incident)


def crashing(after: float = 0.5) -> Behaviour:
    """A process that ends by itself, before or after it is ready (which takes 1 s)."""
    return Behaviour(exits_after=after)


__all__ = ["Behaviour", "Clinic", "clinic_of", "crashing", "patient"]
