"""A notice as data: what commands read, and what the templates of webhooks are made from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from citadel_consul.core.notice import Notice, Transition

_SHARED = ("id", "state", "cause", "detail", "affected", "attempts", "operations", "followed", "waits_for", "outcome")


def document_of(notice: Notice) -> dict[str, Any]:
    """``notice`` as dicts, lists and scalars; times are ISO 8601 in UTC. ``docs/notifications.md`` lists the fields."""
    incident = notice.incident
    shared = {name: getattr(incident, name) for name in _SHARED}
    return {
        "id": notice.id,
        "transition": str(notice.transition),
        "firing": notice.transition is not Transition.CLOSED,
        "at": iso(notice.at),
        "stack": notice.stack,
        "service": notice.subject,
        "critical": notice.critical,
        "automatic": notice.automatic,
        "calls_for_action": notice.calls_for_action,
        "rehearsal": notice.rehearsal,
        "title": notice.title,
        "blast_radius": notice.blast_radius,
        "done": notice.done,
        "advice": notice.advice,
        "leader": notice.leader,
        "epoch": notice.epoch,
        "incident": {
            **{name: list(value) if isinstance(value, tuple) else value for name, value in shared.items()},
            "state": str(incident.state),
            "opened_at": iso(incident.opened_at),
            "closed_at": None if incident.closed_at is None else iso(incident.closed_at),
        },
    }


def iso(at: float) -> str:
    """A moment (unix seconds) as ``2025-07-15T14:30:00.123Z``."""
    return datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
