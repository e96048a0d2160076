"""``health``: how each service is, and the diagnosis behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from citadel_consul.core.answers.instants import instant, instant_or_none, seconds_between
from citadel_consul.core.answers.problems import StackProblem, stack_problems
from citadel_consul.core.answers.status import all_healthy
from citadel_consul.core.health import (
    Status,
    hold_on,
    instance_status,
    service_score,
    service_statuses,
    stack_score,
    stack_status,
)
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Instance
from citadel_consul.core.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class HealthSummary:
    """The stack. ``health_score`` is the share of healthy services in per cent, None without services."""

    overall_status: Status
    timestamp: str
    health_score: float | None
    critical_services_healthy: bool


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """One service.

    ``response_time_ms``: None; Consul's checks do not tell how long they took. ``last_check``: when Consul and the
    node agent were last asked; None while nobody can tell how it is. ``uptime_seconds``: since its longest-serving
    instance became ready; None while none is. ``health_score``: the mean over its instances of healthy 100, degraded
    75, anything else that should serve 0; None if it need not serve or nobody can tell.
    """

    status: Status
    response_time_ms: float | None
    last_check: str | None
    uptime_seconds: float | None
    health_score: float | None


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    health_summary: HealthSummary
    service_health: Mapping[str, ServiceHealth]


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """A check that is not passing, as Consul shows it. ``service`` is empty for a check of the node."""

    node: str
    service: str
    check: str
    status: str
    output: str


@dataclass(frozen=True, slots=True)
class InstanceDiagnosis:
    """All witnesses on one instance: what is wanted, what the agent says, what the checks say. Generations that
    differ mean that the agent has not taken up the last order."""

    service: str
    node: str
    status: Status
    agent_alive: bool
    wanted_run: bool | None
    wanted_generation: int | None
    wanted_reason: str | None
    phase: str | None
    observed_generation: int | None
    since: str | None
    started_at: str | None
    ready_at: str | None
    pid: int | None
    unit: str | None
    exit_code: int | None
    exit_signal: int | None
    starts: int | None
    check_status: str
    held_by: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class HealthDebug:
    """``checks_not_passing`` are those of the stack's services and of the nodes that they run on."""

    timestamp: str
    instances: tuple[InstanceDiagnosis, ...]
    checks_not_passing: tuple[CheckFinding, ...]
    agents: tuple[str, ...]
    problems: tuple[StackProblem, ...]


@dataclass(frozen=True, slots=True)
class HealthDebugAnswer:
    health_debug: HealthDebug


def health_answer(snapshot: Snapshot, now: float) -> HealthAnswer:
    """How each service is, in the order of their start."""
    statuses = service_statuses(snapshot, now)
    summary = HealthSummary(
        overall_status=stack_status(snapshot, statuses),
        timestamp=instant(now),
        health_score=stack_score(statuses.values()),
        critical_services_healthy=all_healthy(snapshot, statuses, critical=True),
    )
    return HealthAnswer(summary, {name: _service_health(snapshot, name, word, now) for name, word in statuses.items()})


def health_debug_answer(
    snapshot: Snapshot, now: float, *, checks: Iterable[CheckFinding], led: bool
) -> HealthDebugAnswer:
    """All that the health of each instance is concluded from."""
    order = snapshot.graph.in_start_order(snapshot.graph.services)
    return HealthDebugAnswer(
        HealthDebug(
            timestamp=instant(now),
            instances=tuple(_diagnosis(snapshot, i, now) for name in order for i in snapshot.instances(name)),
            checks_not_passing=tuple(checks),
            agents=tuple(sorted(snapshot.agents)),
            problems=stack_problems(snapshot, led=led),
        )
    )


def uptime_seconds(snapshot: Snapshot, service: str, now: float) -> float | None:
    """For how long the longest-serving instance of a service has been ready; None while none is known to be."""
    ready = [
        observed.ready_at
        for instance in snapshot.instances(service)
        if instance.node in snapshot.agents
        and (observed := snapshot.observed.get(instance)) is not None
        and observed.phase is Phase.READY
        and observed.ready_at is not None
    ]
    return seconds_between(min(ready, default=None), now)


def _service_health(snapshot: Snapshot, name: str, status: Status, now: float) -> ServiceHealth:
    words = [instance_status(snapshot, instance, now) for instance in snapshot.instances(name)]
    return ServiceHealth(
        status=status,
        response_time_ms=None,
        last_check=None if status is Status.UNKNOWN else instant(now),
        uptime_seconds=uptime_seconds(snapshot, name, now),
        health_score=service_score(words),
    )


def _diagnosis(snapshot: Snapshot, instance: Instance, now: float) -> InstanceDiagnosis:
    desired, observed = snapshot.desired.get(instance), snapshot.observed.get(instance)
    hold = hold_on(snapshot, instance, now)
    return InstanceDiagnosis(
        service=instance.service,
        node=instance.node,
        status=instance_status(snapshot, instance, now),
        agent_alive=instance.node in snapshot.agents,
        wanted_run=desired.run if desired is not None else None,
        wanted_generation=desired.generation if desired is not None else None,
        wanted_reason=desired.reason if desired is not None else None,
        phase=str(observed.phase) if observed is not None else None,
        observed_generation=observed.generation if observed is not None else None,
        since=instant_or_none(observed.since if observed is not None else None),
        started_at=instant_or_none(observed.started_at if observed is not None else None),
        ready_at=instant_or_none(observed.ready_at if observed is not None else None),
        pid=observed.pid if observed is not None else None,
        unit=observed.unit if observed is not None else None,
        exit_code=observed.exit_code if observed is not None else None,
        exit_signal=observed.exit_signal if observed is not None else None,
        starts=observed.starts if observed is not None else None,
        check_status=str(snapshot.checks.get(instance, "not_failing")),
        held_by=(hold.by or "somebody") if hold is not None else None,
        detail=observed.detail if observed is not None else "",
    )
