"""How a service is, in one word and in one number.

The word is put together from three witnesses: what the leader wants (``Desired``), what the node agent last saw
(``Observed``), and what Consul's checks say of it. None of them is right alone: an agent that is gone leaves a fine
last report behind, and a check says nothing of a service that was never registered.

====================  ================================================================================================
``healthy``           it serves: ready, and no check says otherwise; or it was to run once and has completed
``degraded``          it serves, but a check warns, or some of its instances do not serve
``unhealthy``         it should serve and does not: its checks are critical, or it ended unasked
``starting``          its start was ordered and it is not ready yet
``stopped``           it is not wanted to run, and does not serve (it may still be on its way down)
``failed``            it could not be started, or citadel has given up on it
``unknown``           nobody can tell: no node agent answers for it
``held``              it does not serve, and citadel keeps its hands off: a hold, or Consul's maintenance mode
====================  ================================================================================================

A hold on a service that serves does not show in the word, since nothing is wrong; it would hide what matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from citadel_consul.core.incident import IncidentState
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import CheckKind, Instance, ServiceSpec
from citadel_consul.core.snapshot import CheckStatus, Hold, Snapshot


class Status(StrEnum):
    """The word for how a service, or one of its instances, is."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    STARTING = "starting"
    STOPPED = "stopped"
    FAILED = "failed"
    UNKNOWN = "unknown"
    HELD = "held"


SERVING = frozenset({Status.HEALTHY, Status.DEGRADED})
"""The words of what answers its clients."""

WRONG = frozenset({Status.DEGRADED, Status.UNHEALTHY, Status.FAILED, Status.UNKNOWN, Status.HELD})
"""The words that call for somebody's attention; what is stopped or starting is where it was told to be."""

_WORST_FIRST = (
    Status.FAILED,
    Status.UNHEALTHY,
    Status.HELD,
    Status.UNKNOWN,
    Status.STARTING,
    Status.STOPPED,
)
_SCORES: Mapping[Status, float | None] = {
    Status.HEALTHY: 100.0,
    Status.DEGRADED: 75.0,
    Status.STARTING: 0.0,
    Status.UNHEALTHY: 0.0,
    Status.FAILED: 0.0,
    Status.HELD: 0.0,
    Status.STOPPED: None,
    Status.UNKNOWN: None,
}
SLOWNESS_WEIGHT = 0.25
_BY_CHECK: Mapping[CheckStatus, Status] = {
    CheckStatus.PASSING: Status.HEALTHY,
    CheckStatus.WARNING: Status.DEGRADED,
    CheckStatus.CRITICAL: Status.UNHEALTHY,
    CheckStatus.MAINTENANCE: Status.HELD,
}


def instance_status(snapshot: Snapshot, instance: Instance, now: float) -> Status:
    """How one instance is at ``now`` (unix seconds, which decides whether a hold still stands)."""
    status = _unheld_status(snapshot, instance, now)
    if status in (Status.UNHEALTHY, Status.FAILED, Status.UNKNOWN) and hold_on(snapshot, instance, now) is not None:
        return Status.HELD
    incident = snapshot.incidents.get(instance.service)
    if status is Status.UNHEALTHY and incident is not None and incident.state is IncidentState.GAVE_UP:
        return Status.FAILED
    return status


def service_status(snapshot: Snapshot, service: str, now: float) -> Status:
    """How a service is: like all of its instances; ``degraded`` if only some serve; else like the worst of them."""
    return overall(instance_status(snapshot, instance, now) for instance in snapshot.instances(service))


def service_statuses(snapshot: Snapshot, now: float) -> dict[str, Status]:
    """How each service of the stack is, in the order of its start."""
    services = snapshot.graph.in_start_order(snapshot.graph.services)
    return {service: service_status(snapshot, service, now) for service in services}


def overall(statuses: Iterable[Status]) -> Status:
    """The word for several that make up one; ``unknown`` for none."""
    found = set(statuses)
    if len(found) == 1:
        return found.pop()
    if found & SERVING:
        return Status.DEGRADED
    return next((status for status in _WORST_FIRST if status in found), Status.UNKNOWN)


def stack_status(snapshot: Snapshot, statuses: Mapping[str, Status]) -> Status:
    """How the stack is, which goes by its critical services; by all of them if none is critical.

    ``stopped`` if nothing is wanted, ``unhealthy`` if a critical service does not serve and should, then ``unknown``,
    ``starting``, and ``degraded`` if one is degraded or was left out.
    """
    if set(statuses.values()) == {Status.STOPPED}:
        return Status.STOPPED
    critical = {status for service, status in statuses.items() if snapshot.specs[service].critical}
    found = critical or set(statuses.values())
    if not found:
        return Status.UNKNOWN
    if found & {Status.UNHEALTHY, Status.FAILED, Status.HELD}:
        return Status.UNHEALTHY
    for status in (Status.UNKNOWN, Status.STARTING):
        if status in found:
            return status
    return Status.HEALTHY if found == {Status.HEALTHY} else Status.DEGRADED


def instance_score(status: Status, slowness: float = 0.0) -> float | None:
    """What an instance is worth, 0 to 100; None if it need not serve, or nobody can tell.

    Its word gives the base: healthy 100, degraded 75, anything else that should serve 0. Of that, up to a quarter is
    taken off in proportion to ``slowness``, the share of its time-out that it took to answer: who answers at the last
    moment is worth as much less as who has a check that warns.
    """
    base = _SCORES[status]
    return None if base is None else base * (1.0 - SLOWNESS_WEIGHT * min(1.0, max(0.0, slowness)))


def service_score(scores: Iterable[float | None]) -> float | None:
    """The mean of the scores of a service's instances, 0 to 100; None if none of them has one."""
    known = [score for score in scores if score is not None]
    return round(sum(known) / len(known), 1) if known else None


def slowness(spec: ServiceSpec, response_time_ms: float | None) -> float:
    """The share of the time that its slowest http or tcp check may take, which an instance took to answer; 0 if it is
    not known."""
    limits = [check.timeout_seconds for check in spec.checks if check.kind in (CheckKind.HTTP, CheckKind.TCP)]
    return 0.0 if response_time_ms is None or not limits else response_time_ms / 1000.0 / max(limits)


def stack_score(statuses: Iterable[Status]) -> float | None:
    """The share of services that are healthy, in per cent (11 of 12: 91.7); None for a stack without services."""
    found = list(statuses)
    return round(100.0 * found.count(Status.HEALTHY) / len(found), 1) if found else None


def hold_on(snapshot: Snapshot, instance: Instance, now: float) -> Hold | None:
    """The hold that keeps citadel's hands off an instance at ``now``, if one does."""
    return next((hold for hold in snapshot.holds if hold.stands(now) and hold.covers(instance)), None)


def _unheld_status(snapshot: Snapshot, instance: Instance, now: float) -> Status:
    desired, observed = snapshot.desired.get(instance), snapshot.observed.get(instance)
    wanted = desired is not None and desired.run
    if instance.node not in snapshot.agents:
        return _unwatched_status(snapshot, instance)
    if observed is None:
        return Status.STARTING if wanted else Status.STOPPED
    if observed.phase is Phase.READY:
        return _BY_CHECK[snapshot.checks.get(instance, CheckStatus.PASSING)]
    if observed.phase is Phase.STARTING:
        return _starting_status(snapshot, instance, observed, now)
    if desired is None or not desired.run:
        return Status.HEALTHY if observed.phase is Phase.COMPLETED else Status.STOPPED
    if observed.generation < desired.generation:
        return Status.STARTING
    return _fallen(observed.phase)


def _starting_status(snapshot: Snapshot, instance: Instance, observed: Observed, now: float) -> Status:
    """A start that has used up its time is none any more: what was left running has to prove itself."""
    began = observed.since if observed.started_at is None else observed.started_at
    late = now >= began + snapshot.start_timeout(instance.service)
    return Status.UNHEALTHY if late else Status.STARTING


def _fallen(phase: Phase) -> Status:
    """How an instance is that should run and has got nowhere, or ended."""
    if phase is Phase.COMPLETED:
        return Status.HEALTHY
    return Status.FAILED if phase is Phase.FAILED else Status.UNHEALTHY


def _unwatched_status(snapshot: Snapshot, instance: Instance) -> Status:
    """How an instance is whose node agent is gone: services outlive their agent, so only Consul's checks tell."""
    desired, observed = snapshot.desired.get(instance), snapshot.observed.get(instance)
    if observed is not None and observed.alive:
        critical = snapshot.checks.get(instance) is CheckStatus.CRITICAL
        return Status.UNHEALTHY if critical else Status.UNKNOWN
    if desired is None or not desired.run:
        return Status.STOPPED
    if observed is None or observed.generation < desired.generation:
        return Status.UNKNOWN
    return _fallen(observed.phase)
