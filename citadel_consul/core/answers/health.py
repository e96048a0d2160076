"""``health``: how each service is, and the diagnosis behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from citadel_consul.core.answers.instants import instant, instant_or_none, seconds_between
from citadel_consul.core.answers.problems import StackProblem, stack_problems
from citadel_consul.core.answers.status import all_healthy
from citadel_consul.core.figures import Figures, combined
from citadel_consul.core.health import (
    Status,
    hold_on,
    instance_score,
    instance_status,
    service_score,
    service_statuses,
    slowness,
    stack_score,
    stack_status,
)
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.measurement import Measured, Measurement
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

    ``response_time_ms``: what the slowest check of its slowest instance took when its node agent asked; None if it was
    not answered, or the agent was not. ``last_check``: when the service was last asked, or if it was not, Consul; None
    while nobody can tell how it is. ``uptime_seconds``: since its longest-serving instance became ready; None while
    none is. ``health_score``: see ``core.health``. ``detail`` says what is missing, and why. ``figures`` are what it
    reports of itself (``core.figures``); in the answer they stand beside the other fields.
    """

    status: Status
    response_time_ms: float | None
    last_check: str | None
    uptime_seconds: float | None
    health_score: float | None
    detail: str = ""
    figures: Figures = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    health_summary: HealthSummary
    service_health: Mapping[str, ServiceHealth]

    def document(self) -> Mapping[str, object]:
        """The answer as it is given: the figures of a service beside its other fields."""
        return {
            "health_summary": self.health_summary,
            "service_health": {name: _flat(service) for name, service in self.service_health.items()},
        }


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


def health_answer(snapshot: Snapshot, now: float, measured: Measured | None = None) -> HealthAnswer:
    """How each service is, in the order of their start. ``measured`` is what the node agents answered, if they were
    asked."""
    statuses = service_statuses(snapshot, now)
    summary = HealthSummary(
        overall_status=stack_status(snapshot, statuses),
        timestamp=instant(now),
        health_score=stack_score(statuses.values()),
        critical_services_healthy=all_healthy(snapshot, statuses, critical=True),
    )
    services = {name: _service_health(snapshot, name, word, now, measured) for name, word in statuses.items()}
    return HealthAnswer(summary, services)


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


def _service_health(
    snapshot: Snapshot, name: str, status: Status, now: float, measured: Measured | None
) -> ServiceHealth:
    spec, found = snapshot.specs[name], _measurements(snapshot, name, measured)
    asked_at = max((one.at for one in found.values() if one.at is not None), default=None)
    scores = (
        instance_score(
            instance_status(snapshot, i, now), slowness(spec, found[i].response_time_ms if i in found else None)
        )
        for i in spec.instances
    )
    return ServiceHealth(
        status=status,
        response_time_ms=max(
            (o.response_time_ms for o in found.values() if o.response_time_ms is not None), default=None
        ),
        last_check=instant_or_none(asked_at) if asked_at is not None or status is Status.UNKNOWN else instant(now),
        uptime_seconds=uptime_seconds(snapshot, name, now),
        health_score=service_score(scores),
        detail=_missing(found),
        figures=combined(one.figures for one in found.values()),
    )


def _measurements(snapshot: Snapshot, name: str, measured: Measured | None) -> dict[Instance, Measurement]:
    """What is known of the instances of a service that can be asked: those that are up, and last a while."""
    if measured is None or snapshot.specs[name].oneshot:
        return {}
    up = (i for i in snapshot.instances(name) if (o := snapshot.observed.get(i)) is not None and o.phase is Phase.READY)
    return {instance: measured.of(instance) for instance in up}


def _missing(found: Mapping[Instance, Measurement]) -> str:
    """What could not be measured, and why; of several instances, of which."""
    details = [(instance, one.detail) for instance, one in found.items() if one.detail]
    return "; ".join(detail if len(found) == 1 else f"{instance.node}: {detail}" for instance, detail in details)


def _flat(service: ServiceHealth) -> Mapping[str, object]:
    own = {f.name: getattr(service, f.name) for f in fields(service) if f.name != "figures"}
    return {**own, **service.figures}


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
