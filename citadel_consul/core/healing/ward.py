"""What one turn of recovery works with: what is seen, what is busy, and the incidents as they become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from citadel_consul.core.digest import is_wanted
from citadel_consul.core.healing.causes import Causes
from citadel_consul.core.healing.failures import Failure, Survey
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
    order: tuple[str, ...] = field(init=False)
    """The failing services that nothing works on, dependencies first."""
    due: list[Remedy] = field(default_factory=list)
    _changed: dict[str, Incident] = field(default_factory=dict)
    _open: dict[str, Incident] = field(default_factory=dict)
    _repairs: list[Operation] | None = None
    _claims: dict[str, dict[str, None]] = field(default_factory=dict)
    """By service: the services whose incidents name it as affected."""

    def __post_init__(self) -> None:
        snapshot = self.turn.snapshot
        self._open = dict(snapshot.digested().incidents)
        self.causes = Causes(snapshot)
        self.order = self.causes.in_order(s for s in self.survey.failures if s not in self.busy)
        for incident in self.incidents():
            self._note_claims(incident)

    def is_wanted(self, service: str) -> bool:
        """Whether anything of ``service`` is wanted."""
        return any(is_wanted(self.turn.snapshot.desired.get(i)) for i in self.turn.snapshot.instances(service))

    @property
    def wanted(self) -> int:
        """How many services are wanted, as this turn leaves it."""
        ordered, snapshot = self.turn.ordered, self.turn.snapshot
        count = snapshot.digested().wanted
        for service in {instance.service for instance in ordered}:
            own = snapshot.instances(service)
            before = any(is_wanted(ordered[i] if i in ordered else snapshot.desired.get(i)) for i in own)
            count += self.is_wanted(service) - before
        return count

    # --- incidents ----------------------------------------------------------------------------------------------

    def last_incident(self, service: str) -> Incident | None:
        """The incident of ``service`` as this turn has it, closed or not."""
        return self._changed.get(service) or self.turn.snapshot.incidents.get(service)

    def incident(self, service: str) -> Incident | None:
        """The incident of ``service`` that is not over."""
        return self._open.get(service)

    def incidents(self) -> Iterator[Incident]:
        """The incidents of services that are not over."""
        return (incident for service, incident in self._open.items() if service != STACK)

    def put(self, incident: Incident) -> Incident:
        """Take ``incident`` as it is now; it is written at the end of the turn, once, if it is news."""
        check_incident_transition(self.last_incident(incident.service), incident)
        self._changed[incident.service] = incident
        if incident.over:
            self._open.pop(incident.service, None)
        else:
            self._open[incident.service] = incident
            self._note_claims(incident)
        return incident

    def _note_claims(self, incident: Incident) -> None:
        for service in incident.affected:
            self._claims.setdefault(service, {})[incident.service] = None

    def write_changes(self) -> None:
        """Write what has changed."""
        for service, after in self._changed.items():
            before = self.turn.snapshot.incidents.get(service)
            if after != before:
                self.turn.write_incident(after)

    def owner_of(self, service: str) -> Incident | None:
        """The incident of something below ``service`` that names it as affected, and is not over."""
        claiming = [found for name in self._claims.get(service, ()) if (found := self.incident(name)) is not None]
        return next((i for i in claiming if service in i.affected and i.service in self.causes.below(service)), None)

    def settled_at(self, failure: Failure) -> float:
        """When it is certain that nothing below is the cause: until then, its failure may just not be known yet."""
        below = [service for service in self.causes.below(failure.instance.service) if self.is_wanted(service)]
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
        once; after it was started again, it fails by itself. So did what died with it and was reported first.
        """
        own, owner = self.incident(service), self.owner_of(service)
        if owner is None or (own is not None and own.state in LEFT_ALONE):
            return False
        alive = not any(failure.dead for failure in self.survey.failures[service])
        return alive or ((own is None or own.part_of == owner.id) and service not in owner.followed)

    # --- what a person did --------------------------------------------------------------------------------------

    def repaired_at(self, service: str, after: float) -> float | None:
        """When an operation of a person last brought ``service`` up, if that was later than ``after``."""
        ends = [op.ended_at for op in self._repairs_of(service) if op.state is OperationState.SUCCEEDED]
        last = max((end for end in ends if end is not None), default=None)
        return last if last is not None and last > after else None

    def _repairs_of(self, service: str) -> Iterable[Operation]:
        """What people had done to ``service``. No turn adds to that: its own operations are automatic."""
        if self._repairs is None:
            self._repairs = [op for op in self.turn.operations if op.kind in REPAIRS and not op.automatic]
        return (operation for operation in self._repairs if operation.names(service))

    # --- holds --------------------------------------------------------------------------------------------------

    def free(self, failures: Iterable[Failure]) -> list[Failure]:
        """Those of ``failures`` on which no hold stands; for the others, look again when it ends."""
        return [failure for failure in failures if not self.is_held(failure.instance)]

    def is_held(self, instance: Instance) -> bool:
        hold = hold_on(self.turn.snapshot, instance, self.turn.now)
        if hold is not None and hold.until is not None:
            self.turn.wake(hold.until)
        return hold is not None
