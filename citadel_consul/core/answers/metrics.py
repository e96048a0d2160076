"""``metrics``: figures over time, as far as they can be known.

They come from what is in the KV store: the operations that are still remembered (the last hundred that ended) and what
the node agents last saw. What would take a record over days is None rather than guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from citadel_consul.core.answers.health import uptime_seconds
from citadel_consul.core.answers.instants import seconds_between
from citadel_consul.core.health import Status, service_statuses
from citadel_consul.core.operation import ALL, Kind, Operation, OperationState, StepAction
from citadel_consul.core.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class SystemUptime:
    """``total_uptime_seconds``: for how long all critical services have been serving without a break (all services, if
    none is critical); 0 while one of them is not, None for a stack without services. The rest is None: it would take
    a record of past outages."""

    total_uptime_seconds: float | None
    availability_percentage: float | None
    planned_downtime_seconds: float | None
    unplanned_downtime_seconds: float | None


@dataclass(frozen=True, slots=True)
class ServiceReliability:
    """``total_service_restarts``: starts of instances beyond their first, ordered ones included, since their node
    agents first knew them. ``successful_recoveries`` and ``failed_recoveries``: recoveries that ended, of those still
    remembered. The rest is None: it would take a record of past outages."""

    average_uptime_percentage: float | None
    most_reliable_service: str | None
    least_reliable_service: str | None
    total_service_restarts: int
    successful_recoveries: int
    failed_recoveries: int


@dataclass(frozen=True, slots=True)
class StartupPerformance:
    """Startups of the whole stack that are still remembered. Times are of those that succeeded and had something to
    start; the rate is the share of those that succeeded among all that ended, cancelled ones left out, in per cent.
    None if there was none."""

    average_startup_time_seconds: float | None
    fastest_startup_seconds: float | None
    slowest_startup_seconds: float | None
    startup_success_rate: float | None


@dataclass(frozen=True, slots=True)
class HealthMonitoring:
    """None throughout: Consul runs the checks and does not count them."""

    total_health_checks: int | None
    failed_health_checks: int | None
    health_check_success_rate: float | None
    average_health_check_time_ms: float | None


@dataclass(frozen=True, slots=True)
class OrchestrationMetrics:
    system_uptime: SystemUptime
    service_reliability: ServiceReliability
    startup_performance: StartupPerformance
    health_monitoring: HealthMonitoring


@dataclass(frozen=True, slots=True)
class MetricsAnswer:
    orchestration_metrics: OrchestrationMetrics


def metrics_answer(snapshot: Snapshot, now: float, operations: Iterable[Operation]) -> MetricsAnswer:
    """The figures at ``now``. ``operations`` are those of the snapshot; startups of the whole stack need their steps
    (see :func:`is_whole_startup`)."""
    found = tuple(operations)
    return MetricsAnswer(
        OrchestrationMetrics(
            system_uptime=SystemUptime(_total_uptime(snapshot, now), None, None, None),
            service_reliability=_reliability(snapshot, found),
            startup_performance=_startup_performance(found),
            health_monitoring=HealthMonitoring(None, None, None, None),
        )
    )


def is_whole_startup(operation: Operation) -> bool:
    """Whether an operation is a startup of the whole stack that has ended, and not by being cancelled."""
    ended = operation.state in (OperationState.SUCCEEDED, OperationState.FAILED)
    return operation.kind is Kind.STARTUP and operation.targets == (ALL,) and ended


def total_restarts(snapshot: Snapshot) -> int:
    """Starts of instances beyond their first."""
    return sum(max(0, observed.starts - 1) for observed in snapshot.observed.values())


def _total_uptime(snapshot: Snapshot, now: float) -> float | None:
    statuses = service_statuses(snapshot, now)
    counted = [s for s in statuses if snapshot.specs[s].critical] or list(statuses)
    if not counted:
        return None
    if any(statuses[service] not in (Status.HEALTHY, Status.DEGRADED) for service in counted):
        return 0.0
    uptimes = [uptime_seconds(snapshot, service, now) for service in counted if not snapshot.specs[service].oneshot]
    known = [seconds for seconds in uptimes if seconds is not None]
    return min(known) if known and len(known) == len(uptimes) else None


def _reliability(snapshot: Snapshot, operations: tuple[Operation, ...]) -> ServiceReliability:
    recoveries = [op.state for op in operations if op.kind is Kind.RECOVER]
    return ServiceReliability(
        average_uptime_percentage=None,
        most_reliable_service=None,
        least_reliable_service=None,
        total_service_restarts=total_restarts(snapshot),
        successful_recoveries=recoveries.count(OperationState.SUCCEEDED),
        failed_recoveries=recoveries.count(OperationState.FAILED),
    )


def _startup_performance(operations: tuple[Operation, ...]) -> StartupPerformance:
    ended = [op for op in operations if is_whole_startup(op)]
    succeeded = [op for op in ended if op.state is OperationState.SUCCEEDED]
    times = [seconds_between(op.started_at, op.ended_at) for op in succeeded if _started_something(op)]
    known = [seconds for seconds in times if seconds is not None]
    return StartupPerformance(
        average_startup_time_seconds=round(sum(known) / len(known), 3) if known else None,
        fastest_startup_seconds=min(known, default=None),
        slowest_startup_seconds=max(known, default=None),
        startup_success_rate=round(100.0 * len(succeeded) / len(ended), 1) if ended else None,
    )


def _started_something(operation: Operation) -> bool:
    return any(step.action is StepAction.START and step.generation is not None for step in operation.steps)
