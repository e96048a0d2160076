"""``status``: the orchestration and the stack at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from citadel_consul.core.answers.instants import instant, instant_or_none, seconds_between
from citadel_consul.core.answers.problems import StackProblem, stack_problems
from citadel_consul.core.health import WRONG, Status, service_statuses, stack_score, stack_status
from citadel_consul.core.operation import ALL, Kind, Operation, OperationState
from citadel_consul.core.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads, and who stands by. ``since`` is unix seconds."""

    id: str
    node: str
    api: str
    since: float
    epoch: int


@dataclass(frozen=True, slots=True)
class OrchestratorStatus:
    """The orchestration.

    ``status``: ``operational``; ``degraded`` if something is wrong besides the health of services (see
    ``problems``); ``leaderless`` if no orchestrator leads. ``uptime_seconds``: for how long the orchestrator that
    answers has run; None if none answers (the command line reads Consul itself). ``unhealthy_services`` counts
    what is degraded, unhealthy, failed, unknown or held; what is stopped or starting is neither healthy nor unhealthy.
    ``startup_time_seconds``: what the last successful startup of the whole stack took, of those still remembered.
    ``last_health_check``: when Consul was asked how the checks stand. ``leader_since`` and ``epoch`` are those of the
    present leadership. ``standbys``: the other orchestrators that Consul shows as alive; None if it was not asked.
    """

    status: str
    uptime_seconds: float | None
    managed_services: int
    healthy_services: int
    unhealthy_services: int
    startup_time_seconds: float | None
    last_health_check: str
    stack: str
    services_by_status: Mapping[str, int]
    leader: str | None
    leader_node: str | None
    leader_api: str | None
    leader_since: str | None
    epoch: int | None
    standbys: tuple[str, ...] | None
    agents: tuple[str, ...]
    running_operations: tuple[str, ...]
    problems: tuple[StackProblem, ...]


@dataclass(frozen=True, slots=True)
class SystemHealth:
    """The stack. ``overall_status`` goes by the critical services; ``health_score`` is the share of healthy services
    in per cent, None for a stack without services. 'Healthy' of no services is true: there is none that is not."""

    overall_status: Status
    critical_services_healthy: bool
    non_critical_services_healthy: bool
    health_score: float | None


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    orchestrator_status: OrchestratorStatus
    system_health: SystemHealth


def status_answer(
    snapshot: Snapshot,
    now: float,
    *,
    leadership: Leadership | None,
    standbys: tuple[str, ...] | None = None,
    started_at: float | None = None,
) -> StatusAnswer:
    """The status at ``now``. ``started_at`` is when the orchestrator that answers was started (unix seconds)."""
    statuses = service_statuses(snapshot, now)
    problems = stack_problems(snapshot, led=leadership is not None)
    words = list(statuses.values())
    orchestrator = OrchestratorStatus(
        status="leaderless" if leadership is None else "degraded" if problems else "operational",
        uptime_seconds=seconds_between(started_at, now),
        managed_services=len(words),
        healthy_services=words.count(Status.HEALTHY),
        unhealthy_services=sum(word in WRONG for word in words),
        startup_time_seconds=_startup_seconds(snapshot.operations),
        last_health_check=instant(now),
        stack=snapshot.stack,
        services_by_status={str(word): words.count(word) for word in Status if word in words},
        leader=leadership.id if leadership is not None else None,
        leader_node=leadership.node if leadership is not None else None,
        leader_api=leadership.api if leadership is not None else None,
        leader_since=instant_or_none(leadership.since if leadership is not None else None),
        epoch=leadership.epoch if leadership is not None else None,
        standbys=standbys,
        agents=tuple(sorted(snapshot.agents)),
        running_operations=tuple(op.id for op in snapshot.operations if not op.ended),
        problems=problems,
    )
    return StatusAnswer(orchestrator, system_health(snapshot, statuses))


def system_health(snapshot: Snapshot, statuses: Mapping[str, Status]) -> SystemHealth:
    """The stack's health, from those of its services."""
    return SystemHealth(
        overall_status=stack_status(snapshot, statuses),
        critical_services_healthy=all_healthy(snapshot, statuses, critical=True),
        non_critical_services_healthy=all_healthy(snapshot, statuses, critical=False),
        health_score=stack_score(statuses.values()),
    )


def all_healthy(snapshot: Snapshot, statuses: Mapping[str, Status], *, critical: bool) -> bool:
    """Whether all services that are critical (or all that are not) are healthy."""
    return all(
        status is Status.HEALTHY for service, status in statuses.items() if snapshot.specs[service].critical is critical
    )


def _startup_seconds(operations: tuple[Operation, ...]) -> float | None:
    done = [
        op
        for op in operations
        if op.kind is Kind.STARTUP and op.state is OperationState.SUCCEEDED and op.targets == (ALL,)
    ]
    return seconds_between(done[-1].started_at, done[-1].ended_at) if done else None
