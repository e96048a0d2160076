"""``metrics``: figures over time.

They come from the accounts that the leader keeps (``core.stats``: sums, and the interval that is open now), from the
operations that are still remembered (the last hundred that ended), and from what the node agents have counted. What
nobody has counted is None.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from citadel_consul.core.answers.instants import seconds_between
from citadel_consul.core.measurement import CheckCounts, Measured
from citadel_consul.core.operation import ALL, Kind, Operation, OperationState, StepAction
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.core.stats import ServiceStats, Standing, availability, stack_account


@dataclass(frozen=True, slots=True)
class SystemUptime:
    """The account of the stack, since it was first wanted; None before that.

    It is up while all critical services serve (all services, if none is critical). ``planned_downtime_seconds``:
    somebody had stopped one of them, or was starting it. ``unplanned_downtime_seconds``: one was wanted and did not
    serve. ``availability_percentage`` is the share of ``total_uptime_seconds`` in all three.
    """

    total_uptime_seconds: float | None
    availability_percentage: float | None
    planned_downtime_seconds: float | None
    unplanned_downtime_seconds: float | None


@dataclass(frozen=True, slots=True)
class ServiceReliability:
    """The accounts of the services that are to stay up. Their time counts while they are wanted and are not being
    started or stopped by order; of that, the share in which they served is their uptime percentage.

    ``most_reliable_service`` has the highest, ``least_reliable_service`` the lowest; of equals, the one that served
    longest and the one with most failures. None while no service has been wanted. ``total_service_restarts``: starts of
    instances beyond their first, ordered ones included. ``successful_recoveries``, ``failed_recoveries``: of each
    service, automatic or requested.
    """

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
    """The http and tcp checks that node agents have run of services that are up, since each agent was started. They run
    them when somebody asks how services are; Consul's own runs are not counted by anybody. A check has failed if it
    found the service critical. None while no agent answers; ``average_health_check_time_ms`` is of those answered.
    """

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


def metrics_answer(
    snapshot: Snapshot, now: float, operations: Iterable[Operation], measured: Measured | None = None
) -> MetricsAnswer:
    """The figures at ``now``. ``operations`` are those of the snapshot; startups of the whole stack need their steps
    (see :func:`is_whole_startup`). ``measured`` is what the node agents answered, if they were asked."""
    return MetricsAnswer(
        OrchestrationMetrics(
            system_uptime=_system_uptime(snapshot, now),
            service_reliability=_reliability(snapshot, now),
            startup_performance=_startup_performance(tuple(operations)),
            health_monitoring=_health_monitoring(measured.checks if measured is not None else None),
        )
    )


def is_whole_startup(operation: Operation) -> bool:
    """Whether an operation is a startup of the whole stack that has ended, and not by being cancelled."""
    ended = operation.state in (OperationState.SUCCEEDED, OperationState.FAILED)
    return operation.kind is Kind.STARTUP and operation.targets == (ALL,) and ended


def _system_uptime(snapshot: Snapshot, now: float) -> SystemUptime:
    account = stack_account(snapshot.stats)
    if account is None:
        return SystemUptime(None, None, None, None)
    sums = account.sums_at(now)
    total = sum(sums.values())
    return SystemUptime(
        total_uptime_seconds=round(sums[Standing.UP], 3),
        availability_percentage=round(100.0 * sums[Standing.UP] / total, 3) if total else None,
        planned_downtime_seconds=round(sums[Standing.PLANNED], 3),
        unplanned_downtime_seconds=round(sums[Standing.UNPLANNED], 3),
    )


def _reliability(snapshot: Snapshot, now: float) -> ServiceReliability:
    counted = [stats for name, stats in snapshot.stats.items() if name in snapshot.specs]
    lasting = [stats for stats in counted if not snapshot.specs[stats.service].oneshot]
    shares = {stats.service: (stats, share) for stats in lasting if (share := availability(stats, now)) is not None}
    best = sorted(shares, key=lambda name: _worth(*shares[name], now))
    return ServiceReliability(
        average_uptime_percentage=round(sum(s for _, s in shares.values()) / len(shares), 3) if shares else None,
        most_reliable_service=best[0] if best else None,
        least_reliable_service=best[-1] if best else None,
        total_service_restarts=sum(stats.restarts for stats in counted),
        successful_recoveries=sum(stats.recoveries_succeeded for stats in counted),
        failed_recoveries=sum(stats.recoveries_failed for stats in counted),
    )


def _worth(stats: ServiceStats, share: float, now: float) -> tuple[float, int, float, str]:
    """Sorts the most reliable service first."""
    return -share, stats.failures, -stats.sums_at(now)[Standing.UP], stats.service


def _health_monitoring(checks: CheckCounts | None) -> HealthMonitoring:
    if checks is None:
        return HealthMonitoring(None, None, None, None)
    return HealthMonitoring(checks.total, checks.failed, checks.success_rate, checks.mean_ms)


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
