"""Incidents: what goes wrong with a service, from its failure to its good end or the point where citadel gives up.

An incident is a document, so that the budget of recoveries outlives every leader: how often was tried in this bout,
when the next attempt is due, and which operations tried. There is one document a service; the next incident of a
service takes the place of the last. A stack has one of its own, :data:`STACK`, for failures of too much at once.

A **bout** is a row of failures without a healthy period between them that is long enough (``reset_after_seconds``). It
can span several incidents: an incident ends soon after its service is healthy, the bout does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from citadel_consul.core.lifecycle import IllegalTransitionError

STACK = "_stack"
"""The name of the incident of the whole stack; no service can have it, since names are DNS labels."""


FLAPPING = "flapping"
"""The cause of an incident that is a quarantine."""
UNWATCHED = "unwatched_exit"
"""The cause of an incident of what ended while no node agent looked, as everything does when a machine goes down."""


class IncidentState(StrEnum):
    """Where an incident is.

    ``open``: nothing is done at the moment, ``waits_for`` says why. ``recovering``: an attempt runs, has just come out
    well, or is due. ``gave_up``: the budget is used up. ``quarantined``: it comes and goes too often. ``closed``: over.
    """

    OPEN = "open"
    RECOVERING = "recovering"
    GAVE_UP = "gave_up"
    QUARANTINED = "quarantined"
    CLOSED = "closed"


LEFT_ALONE = frozenset({IncidentState.GAVE_UP, IncidentState.QUARANTINED})
"""The states in which nothing is done about a service, however it fails."""

INCIDENT_TRANSITIONS: Mapping[IncidentState, frozenset[IncidentState]] = {
    IncidentState.OPEN: frozenset(
        {IncidentState.RECOVERING, IncidentState.GAVE_UP, IncidentState.QUARANTINED, IncidentState.CLOSED}
    ),
    IncidentState.RECOVERING: frozenset(
        {IncidentState.OPEN, IncidentState.GAVE_UP, IncidentState.QUARANTINED, IncidentState.CLOSED}
    ),
    IncidentState.GAVE_UP: frozenset({IncidentState.OPEN, IncidentState.CLOSED}),
    IncidentState.QUARANTINED: frozenset({IncidentState.OPEN, IncidentState.CLOSED}),
    IncidentState.CLOSED: frozenset(),
}
"""What may follow what in the life of one incident."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident of one service. Times are unix seconds.

    ``cause`` and ``detail`` tell the first failure, ``affected`` the services that cannot run without this one.
    ``attempts`` counts those of the present bout, which began at ``bout_began_at``. ``next_attempt_at`` is None while
    none is due. ``healthy_since`` is set while the service is healthy again. ``forgiven_at`` is when a person repaired
    it: what was before does not count any more. ``followed`` are the dependents whose processes died with it and that
    were started again under this incident. ``part_of`` is the incident that it belongs to: of the stack, or of the
    service below it that took it along and was reported later.
    """

    id: str
    service: str
    state: IncidentState
    opened_at: float
    cause: str
    detail: str = ""
    affected: tuple[str, ...] = ()
    attempts: int = 0
    bout_began_at: float = 0.0
    last_attempt_at: float | None = None
    last_failed_at: float | None = None
    next_attempt_at: float | None = None
    healthy_since: float | None = None
    forgiven_at: float | None = None
    failures: tuple[float, ...] = ()
    operations: tuple[str, ...] = ()
    followed: tuple[str, ...] = ()
    waits_for: str = ""
    part_of: str | None = None
    closed_at: float | None = None
    outcome: str = ""

    @property
    def over(self) -> bool:
        return self.state is IncidentState.CLOSED

    @property
    def failure(self) -> str:
        """What failed, to be read after the service's name: ``on n1: killed by SIGKILL``."""
        return re.sub(rf"(^|; ){re.escape(self.service)}@", r"\1on ", self.detail or self.cause)


@dataclass(frozen=True, slots=True)
class Backoff:
    """What the policy of a service says after ``attempts`` failed attempts: how long to wait, or that it is enough.

    The delay is drawn at random, which is why it comes from outside: decisions are pure.
    """

    attempts: int
    delay_seconds: float
    exhausted: bool


def check_incident_transition(before: Incident | None, after: Incident) -> None:
    """Raise :class:`IllegalTransitionError` unless the table allows it; a new incident comes after a closed one."""
    if before is None or before.id != after.id:
        if before is not None and not before.over:
            raise IllegalTransitionError(f"incident {before.id} is {before.state} and not closed")
    elif before.state is not after.state and after.state not in INCIDENT_TRANSITIONS[before.state]:
        raise IllegalTransitionError(f"incident {before.state} → {after.state}")


def identifier(at: float, about: str) -> str:
    """An identifier that sorts by ``at`` (unix seconds) like those of requests, and is the same for the same facts."""
    return f"{stamp(at)}-{about.strip('_')}"


def stamp(at: float) -> str:
    """A moment (unix seconds) in UTC to the microsecond, as identifiers begin: ``20250715T143000123456``."""
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y%m%dT%H%M%S%f")
