"""What is wrong with the services of a stack, and why: causes first, then what merely suffers from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from citadel_consul.cli.spans import clock, span
from citadel_consul.core.draining import how_far, is_draining
from citadel_consul.core.healing.observers import doubts
from citadel_consul.core.healing.quarantine import quiet_again_at
from citadel_consul.core.health import WRONG, Status, hold_on, instance_status, service_statuses
from citadel_consul.core.incident import STACK, Incident, IncidentState
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import Instance
from citadel_consul.core.snapshot import CheckStatus, Snapshot

Outputs = Mapping[Instance, tuple[str, ...]]
"""What the checks that are not passing say, by instance."""


@dataclass(frozen=True, slots=True)
class Ailment:
    """A service that somebody should look at. ``reasons`` has one text for each instance that is not well.

    ``suffers_from`` names what it hard-depends on that does not hold either: to be mended first. ``endangers`` names
    the services, over any distance, that need this one to run. ``treatment`` says what citadel does about it.
    """

    service: str
    status: Status
    critical: bool
    reasons: tuple[str, ...]
    suffers_from: tuple[str, ...]
    endangers: tuple[str, ...]
    treatment: str


def ailments(snapshot: Snapshot, outputs: Outputs, now: float) -> tuple[Ailment, ...]:
    """The services that are not well. Those whose own dependencies are well come first: they are where to begin."""
    statuses = service_statuses(snapshot, now)
    ill = {service: status for service, status in statuses.items() if status in WRONG}
    found = [_ailment(snapshot, service, ill, outputs, now) for service in ill]
    return tuple(sorted(found, key=lambda a: (bool(a.suffers_from), not a.critical, a.status is Status.DEGRADED)))


def treatment_of(snapshot: Snapshot, service: str, now: float) -> str:
    """What citadel does, or has stopped doing, about a service that fails; empty if it does not see a failure."""
    incident = snapshot.incidents.get(service)
    if incident is None or incident.over:
        return _doubt(snapshot, service)
    if incident.state is IncidentState.GAVE_UP:
        return f"given up after {_attempts(incident)}: mend it, then citadel recover {service}"
    if incident.state is IncidentState.QUARANTINED:
        at = quiet_again_at(snapshot, incident, now)
        until = "until it has been quiet" + (f", {clock(at)} at the earliest" if at > now else "")
        return f"in quarantine {until}: mend it, then citadel recover {service}"
    if incident.healthy_since is not None:
        how = f"after {_attempts(incident)}" if incident.attempts else "by itself"
        return f"it serves again, {how}, and is watched for a moment"
    if incident.next_attempt_at is not None and incident.next_attempt_at > now:
        return f"{_attempts(incident)} so far, the next in {span(incident.next_attempt_at - now)}"
    if incident.state is IncidentState.RECOVERING:
        return f"being recovered: {_attempts(incident)}"
    if is_frozen(snapshot):
        return "nothing is done about it now: recovery is frozen"
    return f"nothing is done about it now: {incident.waits_for}" if incident.waits_for else "a recovery is due"


def is_frozen(snapshot: Snapshot) -> bool:
    """Whether too much failed at once, so that nothing is recovered automatically."""
    incident = snapshot.incidents.get(STACK)
    return incident is not None and not incident.over


def _doubt(snapshot: Snapshot, service: str) -> str:
    """Why nothing is done about what Consul says of a service."""
    found = {refuted for instance, _, refuted in doubts(snapshot) if instance.service == service}
    if True in found:
        return "its node agent finds it well: nothing is restarted for it"
    return "its node agent has not confirmed that: nothing is restarted until it does" if found else ""


def _attempts(incident: Incident) -> str:
    return "1 attempt" if incident.attempts == 1 else f"{incident.attempts} attempts"


def reason_of(snapshot: Snapshot, instance: Instance, now: float, outputs: Outputs) -> str:
    """Why one instance is as it is; empty if there is nothing to say."""
    observed = snapshot.observed.get(instance)
    hold = hold_on(snapshot, instance, now)
    if instance_status(snapshot, instance, now) is Status.HELD and hold is not None:
        return f"{_trouble(snapshot, instance, observed, outputs)}; held by {hold.by or 'somebody'}".lstrip("; ")
    return _trouble(snapshot, instance, observed, outputs)


def _ailment(
    snapshot: Snapshot,
    service: str,
    ill: Mapping[str, Status],
    outputs: Outputs,
    now: float,
) -> Ailment:
    graph, several = snapshot.graph, len(snapshot.instances(service)) > 1
    reasons = []
    for instance in snapshot.instances(service):
        word = instance_status(snapshot, instance, now)
        if word is Status.HEALTHY:
            continue
        why = reason_of(snapshot, instance, now, outputs) or str(word)
        reasons.append(f"on {instance.node}: {why}" if several else why)
    above = graph.with_dependents([service], lambda edge: edge.needed_to_run) - {service}
    return Ailment(
        service=service,
        status=ill[service],
        critical=snapshot.specs[service].critical,
        reasons=tuple(reasons),
        suffers_from=tuple(
            edge.dependency
            for edge in graph.dependencies(service)
            if edge.needed_to_run and edge.dependency in ill and not snapshot.edge_met(edge)
        ),
        endangers=tuple(reversed(graph.in_start_order(s for s in graph.services if s in above))),
        treatment=treatment_of(snapshot, service, now),
    )


def _trouble(snapshot: Snapshot, instance: Instance, observed: Observed | None, outputs: Outputs) -> str:
    if instance.node not in snapshot.agents:
        return f"no node agent runs on {instance.node}"
    if observed is None:
        return ""
    if observed.phase in (Phase.FAILED, Phase.EXITED):
        return _end_of(observed)
    if is_draining(observed):
        return how_far(observed)
    desired = snapshot.desired.get(instance)
    if observed.phase is Phase.STOPPED and desired is not None and not desired.run and desired.operation is not None:
        return f"stopped by a {desired.reason}"
    check = snapshot.checks.get(instance)
    if check is CheckStatus.MAINTENANCE:
        return "in Consul's maintenance mode"
    if check is not None:
        return "; ".join(outputs.get(instance, ())) or f"a check is {check}"
    return observed.detail


def _end_of(observed: Observed) -> str:
    if observed.detail:
        return observed.detail
    if observed.exit_signal is not None:
        return f"ended by signal {observed.exit_signal}"
    return f"exited with status {observed.exit_code}" if observed.exit_code is not None else str(observed.phase)
