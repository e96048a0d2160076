"""What one turn of recovery works with: what is seen, what is busy, and the incidents as they become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from citadel_consul.core.healing.causes import Causes
from citadel_consul.core.healing.failures import Failure, Survey, wanted_services
from citadel_consul.core.health import hold_on
from citadel_consul.core.incident import LEFT_ALONE, STACK, Incident, check_incident_transition
from citadel_consul.core.model import Instance
from citadel_consul.core.operation import Kind, Operation, OperationState
from citadel_consul.core.turn import Turn

EXIT_SETTLE_SECONDS = 0.2
"""How long a process that ended by itself is given for the end of what it needed to be reported too."""
REPAIRS = frozenset({Kind.STARTUP, Kind.RESTART, Kind.RECOVER})


@dataclass(slots=True)
class Remedy:
    """Instances that are to be recovered now, and the incident in whose name."""

    incident: Incident
    failures: list[Failure]

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f.instance.service for f in self.failures))


@dataclass(slots=True)
class Ward:
    """The state of one turn. ``busy`` are the services that unfinished operations work on, with their operation."""

    turn: Turn
    survey: Survey
    busy: dict[str, str]
    causes: Causes = field(init=False)
    wanted: frozenset[str] = field(init=False)
    order: tuple[str, ...] = field(init=False)
    """The failing services that nothing works on, dependencies first."""
    due: list[Remedy] = field(default_factory=list)
    _changed: dict[str, Incident] = field(default_factory=dict)

    def __post_init__(self) -> None:
        snapshot = self.turn.snapshot
        self.causes = Causes(snapshot)
        self.wanted = frozenset(wanted_services(snapshot))
        failing = [s for s in snapshot.graph.services if s in self.survey.failures and s not in self.busy]
        self.order = tuple(snapshot.graph.in_start_order(failing))

    # --- incidents ----------------------------------------------------------------------------------------------

    def last_incident(self, service: str) -> Incident | None:
        """The incident of ``service`` as this turn has it, closed or not."""
        return self._changed.get(service) or self.turn.snapshot.incidents.get(service)

    def incident(self, service: str) -> Incident | None:
        """The incident of ``service`` that is not over."""
        found = self.last_incident(service)
        return None if found is None or found.over else found

    def incidents(self) -> Iterator[Incident]:
        """The incidents of services that are not over."""
        for service in {**self.turn.snapshot.incidents, **self._changed}:
            found = self.incident(service)
            if found is not None and service != STACK:
                yield found

    def put(self, incident: Incident) -> Incident:
        """Take ``incident`` as it is now; it is written at the end of the turn, once, if it is news."""
        check_incident_transition(self.last_incident(incident.service), incident)
        self._changed[incident.service] = incident
        return incident

    def write_changes(self) -> None:
        """Write what has changed."""
        for service, after in self._changed.items():
            before = self.turn.snapshot.incidents.get(service)
            if after != before:
                self.turn.write_incident(after)

    def owner_of(self, service: str) -> Incident | None:
        """The incident of something below ``service`` that names it as affected, and is not over."""
        below = self.causes.below(service)
        return next((i for i in self.incidents() if i.service in below and service in i.affected), None)

    def settled_at(self, failure: Failure) -> float:
        """When it is certain that nothing below is the cause: until then, its failure may just not be known yet."""
        below = self.causes.below(failure.instance.service) & self.wanted
        if not below:
            return failure.since
        if failure.dead:
            return failure.since + (EXIT_SETTLE_SECONDS if failure.by_itself else 0.0)
        specs = self.turn.snapshot.specs
        return failure.since + max(
            (check.interval_seconds + check.timeout_seconds for service in below for check in specs[service].checks),
            default=0.0,
        )

    def is_consequence(self, service: str) -> bool:
        """Whether a failing service fails because of something that is only just back, whose incident is not over.

        What is alive is given time to notice that things are well. What died is the consequence of another's failure
        once; after it was started again, it fails by itself.
        """
        own, owner = self.incident(service), self.owner_of(service)
        if owner is None or (own is not None and own.state in LEFT_ALONE):
            return False
        alive = not any(failure.dead for failure in self.survey.failures[service])
        return alive or (own is None and service not in owner.followed)

    # --- what a person did --------------------------------------------------------------------------------------

    def repaired_at(self, service: str, after: float) -> float | None:
        """When an operation of a person last brought ``service`` up, if that was later than ``after``."""
        ends = [op.ended_at for op in self._repairs(service) if op.state is OperationState.SUCCEEDED]
        last = max((end for end in ends if end is not None), default=None)
        return last if last is not None and last > after else None

    def _repairs(self, service: str) -> Iterable[Operation]:
        for operation in self.turn.operations:
            if operation.kind in REPAIRS and not operation.automatic and operation.names(service):
                yield operation

    # --- holds --------------------------------------------------------------------------------------------------

    def free(self, failures: Iterable[Failure]) -> list[Failure]:
        """Those of ``failures`` on which no hold stands; for the others, look again when it ends."""
        return [failure for failure in failures if not self.is_held(failure.instance)]

    def is_held(self, instance: Instance) -> bool:
        hold = hold_on(self.turn.snapshot, instance, self.turn.now)
        if hold is not None and hold.until is not None:
            self.turn.wake(hold.until)
        return hold is not None
