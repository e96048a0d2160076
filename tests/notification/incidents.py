"""Incidents as tests need them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from citadel_consul.core.incident import STACK, Incident, IncidentState
from citadel_consul.core.notice import Notice, Transition

OPENED_AT = 1_752_589_800.0


def incident(service: str = "qdrant", state: IncidentState = IncidentState.RECOVERING, **fields: Any) -> Incident:
    """The incident of a service that was killed, with two services above it."""
    made = Incident(
        id=f"20250715T143000000000-{service.strip('_')}",
        service=service,
        state=state,
        opened_at=OPENED_AT,
        cause="process_exit",
        detail=f"{service}@n1: ended by signal 9",
        affected=("embedding-service", "api-gateway"),
        attempts=1,
        bout_began_at=OPENED_AT,
        operations=("20250715T143000000001-qdrant",),
    )
    return replace(made, **fields)


def closed(**fields: Any) -> Incident:
    """One that is over, after 12 s."""
    ending = {"closed_at": OPENED_AT + 12.0, "outcome": "healthy again after 1 attempt"}
    return incident(state=IncidentState.CLOSED, **{**ending, **fields})


def frozen() -> Incident:
    """That of a stack of which too much failed at once."""
    detail = "8 of 12 services failed within 60 s"
    return incident(STACK, IncidentState.OPEN, cause="mass_failure", detail=detail, attempts=0, operations=())


def notice(transition: Transition = Transition.OPENED, about: Incident | None = None, **fields: Any) -> Notice:
    """A notice of ``about``."""
    found = about or (closed() if transition is Transition.CLOSED else incident())
    return replace(Notice(transition, found, OPENED_AT + 0.1, "shop", "n1:8000", 42), **fields)
