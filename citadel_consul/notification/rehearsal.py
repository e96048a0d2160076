"""A notice of nothing: what receivers are tried with, before something happens."""

from __future__ import annotations

from citadel_consul.core.incident import Incident, IncidentState
from citadel_consul.core.notice import Notice, Transition


def rehearsal(transition: Transition, *, stack: str, leader: str, at: float) -> Notice:
    """A notice as if of an incident of a service ``example``, marked as a test. ``at`` is unix seconds."""
    incident = Incident(
        id="rehearsal-example",
        service="example",
        state=IncidentState.CLOSED if transition is Transition.CLOSED else IncidentState.OPEN,
        opened_at=at,
        cause="process_exit",
        detail="nothing happened; somebody tries this receiver",
        affected=("example-dependent",),
        attempts=1,
        closed_at=at if transition is Transition.CLOSED else None,
        outcome="healthy again after 1 attempt" if transition is Transition.CLOSED else "",
    )
    return Notice(transition, incident, at, stack, leader, epoch=0, critical=False, rehearsal=True)
