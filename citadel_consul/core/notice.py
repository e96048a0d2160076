"""Notices: what people are told of an incident, and when.

A notice is due at a **transition** of an incident, not at each change of its document: once when it opens, once when it
is over, and in between only when it becomes somebody's job, because citadel gave up or put the service into quarantine.
The beginning of what is part of another incident is not told by itself, and an end is told only to those who were told
of the beginning. Of two services that die at nearly the same moment, the one that took the other along can be reported
last; so a beginning is told a moment late, when it is known what it belongs to.

:func:`due` is level triggered, like every decision here: from the incident as it stands, and from what was said of it
already, follows what is to be said now. Whoever leads next comes to the same answer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from citadel_consul.core.incident import STACK, Incident, IncidentState, stamp

MOST_NAMES = 20
"""How many services the blast radius names; the incident has them all."""


class Transition(StrEnum):
    """What happened to an incident that people are told of."""

    OPENED = "opened"
    GAVE_UP = "gave_up"
    QUARANTINED = "quarantined"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to be told: ``incident`` as it was at ``at`` (unix seconds), and who led then.

    ``critical``: the service is, or it is the whole stack. ``automatic``: citadel recovers it by itself. ``rehearsal``:
    nothing has happened; somebody tries the receiver.
    """

    transition: Transition
    incident: Incident
    at: float
    stack: str
    leader: str
    epoch: int
    critical: bool = True
    automatic: bool = True
    rehearsal: bool = False

    @property
    def id(self) -> str:
        """The same for every delivery of this notice, so that whoever gets it twice can tell."""
        return f"{self.incident.id}/{word_of(self.incident, self.transition)}"

    @property
    def subject(self) -> str | None:
        """The service; None if it is about the whole stack."""
        return None if self.incident.service == STACK else self.incident.service

    @property
    def calls_for_action(self) -> bool:
        """Whether somebody has to do something: citadel does not, or does not any more."""
        if self.transition in (Transition.GAVE_UP, Transition.QUARANTINED):
            return True
        return self.transition is Transition.OPENED and (self.subject is None or not self.automatic)

    @property
    def title(self) -> str:
        """The whole of it in one line."""
        failure = self.incident.failure
        text = _TITLES[self.transition, self.subject is None].format(
            service=self.subject, cause=f" {failure}" if failure.startswith("on ") else f": {failure}",
            **_ending(self.incident),
        )  # fmt: skip
        return f"[{self.stack}] {'TEST: ' if self.rehearsal else ''}{text}"

    @property
    def blast_radius(self) -> str:
        """Whom it affects, as a sentence."""
        affected, over = self.incident.affected, self.transition is Transition.CLOSED
        if not affected:
            return "Nothing else depends on it."
        names = ", ".join(affected[:MOST_NAMES])
        if len(affected) > MOST_NAMES:
            names += f" and {len(affected) - MOST_NAMES} more"
        if self.subject is None:
            return f"{'Had failed' if over else 'Failing'}: {names}."
        return f"{'Could not' if over else 'Cannot'} run without it: {names} ({len(affected)})."

    @property
    def done(self) -> str:
        """What was done about it so far, as a sentence or two."""
        incident = self.incident
        if self.subject is None:
            over = self.transition is Transition.CLOSED
            return "Nothing was recovered automatically meanwhile." if over else "Nothing is recovered automatically."
        if incident.waits_for and not incident.attempts:
            return f"Nothing yet: {incident.waits_for}."
        tried = f"{incident.attempts} attempt{'' if incident.attempts == 1 else 's'} to recover it"
        if incident.operations:
            tried += f" ({', '.join(incident.operations)})"
        if incident.followed:
            tried += f"; started again after it: {', '.join(incident.followed)}"
        serves = self.transition is Transition.OPENED and incident.healthy_since is not None
        return f"{tried}.{' It serves again, and is being watched.' if serves else ''}"

    @property
    def advice(self) -> str:
        """What somebody can do about it, as commands."""
        service = self.subject
        if self.transition is Transition.CLOSED:
            return f"citadel events {service}" if service else "citadel status"
        if service is None:
            return "citadel status shows what fails: look for what it has in common; citadel recover all goes on"
        if self.transition is Transition.GAVE_UP:
            return f"citadel explain {service}; citadel logs {service}; citadel recover {service} tries again"
        if self.transition is Transition.QUARANTINED:
            return f"citadel explain {service}; citadel logs {service}; citadel recover {service} ends the quarantine"
        return f"citadel explain {service}; citadel events {service}"


_TITLES = {
    (Transition.OPENED, False): "{service} fails{cause}",
    (Transition.GAVE_UP, False): "{service} has failed for good{cause}",
    (Transition.QUARANTINED, False): "{service} comes and goes, and is left alone until it is quiet{cause}",
    (Transition.CLOSED, False): "{service}: {outcome}, after {seconds:.0f} s",
    (Transition.OPENED, True): "automatic recovery is frozen{cause}",
    (Transition.GAVE_UP, True): "the stack has failed for good{cause}",
    (Transition.QUARANTINED, True): "the stack comes and goes{cause}",
    (Transition.CLOSED, True): "automatic recovery goes on: {outcome}, after {seconds:.0f} s",
}


def _ending(incident: Incident) -> dict[str, str | float]:
    closed_at = incident.opened_at if incident.closed_at is None else incident.closed_at
    return {"outcome": incident.outcome or "over", "seconds": max(0.0, closed_at - incident.opened_at)}


def word_of(incident: Incident, transition: Transition) -> str:
    """What a transition is called in keys. Giving up again, after a person repaired the service, is news again."""
    if transition is Transition.GAVE_UP and incident.forgiven_at is not None:
        return f"{transition}-{stamp(incident.forgiven_at)}"
    return str(transition)


def due(incident: Incident, said: Collection[str]) -> Transition | None:
    """What is to be told of ``incident``. ``said`` are the words (see :func:`word_of`) of what was told before.

    The beginning has to wait until :func:`due_at`; nothing else does.
    """
    if incident.over:
        return Transition.CLOSED if said and Transition.CLOSED not in said else None
    transition = {
        IncidentState.GAVE_UP: Transition.GAVE_UP,
        IncidentState.QUARANTINED: Transition.QUARANTINED,
    }.get(incident.state)
    if transition is None:
        return None if said or incident.part_of is not None else Transition.OPENED
    return None if word_of(incident, transition) in said else transition


def due_at(incident: Incident, transition: Transition, now: float, delay_seconds: float) -> float:
    """From when on ``transition`` may be told: ``now``, or later if it is a beginning that could be part of another.

    A beginning that lies ahead is one by a clock that was wrong, and not waited for.
    """
    if transition is not Transition.OPENED or incident.service == STACK or incident.opened_at > now:
        return now
    return max(now, incident.opened_at + delay_seconds)
