"""The life of one instance: what the leader wants of it, and what its node agent last saw.

Two documents never share a field. The leader's ``Desired`` says what should be; the agent's ``Observed`` says what
is. They are joined by the **generation**, which the leader raises with every change of ``Desired``: as long as
``observed.generation < desired.generation``, the agent has not spoken of the order yet.

The agent starts an instance **at most once for a generation**. If it dies unasked, the agent reports ``exited`` and
does nothing more: only the leader decides whether, and when, it is started again, by a new generation. That is what
makes 'nothing is started twice' hold over crashes of either side, and keeps the budget of recoveries in one place.

``run`` is the order to the agent. ``wanted`` is the operator's intent, which outlives a failed operation: a service
whose start was skipped because its dependency failed stays wanted, so that it is started when the dependency is
back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """Where an instance is in its life, as its node agent sees it."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    EXITED = "exited"
    COMPLETED = "completed"
    FAILED = "failed"


TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    Phase.STOPPED: frozenset({Phase.STARTING, Phase.FAILED}),
    Phase.STARTING: frozenset({Phase.READY, Phase.EXITED, Phase.COMPLETED, Phase.FAILED, Phase.STOPPING}),
    Phase.READY: frozenset({Phase.EXITED, Phase.COMPLETED, Phase.STOPPING, Phase.DRAINING}),
    Phase.DRAINING: frozenset({Phase.READY, Phase.EXITED, Phase.COMPLETED, Phase.STOPPING}),
    Phase.STOPPING: frozenset({Phase.STOPPED}),
    Phase.EXITED: frozenset({Phase.STARTING, Phase.STOPPED, Phase.FAILED}),
    Phase.COMPLETED: frozenset({Phase.STARTING, Phase.STOPPED, Phase.FAILED}),
    Phase.FAILED: frozenset({Phase.STARTING, Phase.STOPPED}),
}
"""Which phase may follow which. ``failed`` means that the backend could not start it; nothing runs then. What drains
is ready again if that is taken back."""

ALIVE = frozenset({Phase.STARTING, Phase.READY, Phase.DRAINING, Phase.STOPPING})
"""The phases in which something of the instance runs."""


class IllegalTransitionError(RuntimeError):
    """A bug: the code asked for a transition that the table does not hold."""


def check_transition(before: Phase, after: Phase) -> None:
    """Raise :class:`IllegalTransitionError` unless the table allows ``before`` → ``after`` (staying is allowed)."""
    if before is not after and after not in TRANSITIONS[before]:
        raise IllegalTransitionError(f"{before} → {after}")


@dataclass(frozen=True, slots=True)
class Desired:
    """What the leader wants of an instance. ``grace_seconds`` overrides the spec's stop time-out.

    ``drain_seconds`` is how long an instance that is to stop may drain first (see ``core.draining``); None: not at all.

    ``reloads`` counts the reloads ordered so far. A reload is no change of what should be, so the generation stays.
    ``released``: it is to be let go of as it is, and neither started nor stopped (see ``core.handback``).
    """

    run: bool
    generation: int
    operation: str | None = None
    reason: str = ""
    wanted: bool = False
    grace_seconds: float | None = None
    reloads: int = 0
    drain_seconds: float | None = None
    released: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What the node agent last saw of an instance. Times are unix seconds.

    ``since`` is when the phase began, ``started_at`` when the present (or last) process was started, ``ready_at``
    when it first passed after that start. ``starts`` counts the starts since the agent first knew the instance.

    While Consul does not show a ready instance as passing, its agent runs the same checks itself. ``failing_since`` (or
    ``degraded_since``) is since when they fail (or warn), set once that has lasted for more than one interval;
    ``contradicted_since`` is since when they pass whatever Consul says; ``failure`` is what the last one found. A start
    that takes long has ``failing_since`` too. ``lapses`` are the latest moments at which they found it failing anew.
    ``unwatched``: it ended while no agent was looking. ``reloads`` is the last order to reload that was carried out,
    ``reload_error`` why that failed. While it drains, ``drain_until`` is when it is stopped at the latest, and
    ``in_flight`` how many requests (or connections) it still had when it was last asked, None if nobody can tell.
    """

    generation: int
    phase: Phase
    since: float
    started_at: float | None = None
    ready_at: float | None = None
    pid: int | None = None
    unit: str | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    starts: int = 0
    detail: str = ""
    failing_since: float | None = None
    degraded_since: float | None = None
    contradicted_since: float | None = None
    failure: str = ""
    lapses: tuple[float, ...] = ()
    unwatched: bool = False
    reloads: int = 0
    reload_error: str = ""
    drain_until: float | None = None
    in_flight: int | None = None

    @property
    def alive(self) -> bool:
        """Whether something of the instance runs."""
        return self.phase in ALIVE
