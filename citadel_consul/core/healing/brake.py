"""The mass-failure brake: when most of a stack fails at once, the cause is elsewhere, and restarting harms.

It counts services that fail without an explanation below them: a database that takes its twelve dependents along is one
failure. What ended while no node agent looked is not counted either: that is a machine which went down, and starting
what was wanted is what it needs.

While the brake is on, nothing is recovered automatically; it is said once, in an incident of the stack. It comes off
when few enough services fail, or when a person goes on (``citadel recover all``): then only new failures count. How
much is too much, and within what time, are settings (``recovery.brake_*``).

Before that, while it is not known yet whether it is too much (three failed at once and more may follow; Consul says so
and node agents have not spoken), recovery holds back without a word. One or two that fail never wait.
"""

from __future__ import annotations

from dataclasses import replace

from citadel_consul.core.digest import is_wanted
from citadel_consul.core.healing.ward import Ward
from citadel_consul.core.incident import FLAPPING, LEFT_ALONE, STACK, UNWATCHED, Incident, IncidentState, identifier
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.operation import ALL, Kind
from citadel_consul.core.snapshot import Defaults

RELEASE = 0.5
"""The brake comes off at this part of the share that put it on, not before its window is over: it must not chatter."""
SETTLE_SECONDS = 0.5
"""How long as many as could be a mass wait for the reports on others that fail with them."""


def brakes(ward: Ward) -> bool:
    """Put the brake on or take it off; returns whether recovery has to stand still now."""
    incident = ward.incident(STACK)
    if incident is not None:
        return not _comes_off(ward, incident)
    failing = [service for service in _unexplained(ward) if _is_recent(ward, service)]
    certain = [service for service in failing if _is_settled(ward, service)]
    counted = tuple(dict.fromkeys([*_failed_lately(ward), *certain]))
    if certain and _is_too_much(ward, len(counted)):
        _put_on(ward, counted)
        return True
    return _is_unclear(ward, failing, certain, counted)


def _failed_lately(ward: Ward) -> list[str]:
    """The services whose incidents opened within the window, whether they are up again or not."""
    own = (i for i in ward.incidents() if i.cause not in (FLAPPING, UNWATCHED) and i.part_of is None)
    return [incident.service for incident in own if _is_recent(ward, incident.service)]


def _is_unclear(ward: Ward, failing: list[str], certain: list[str], counted: tuple[str, ...]) -> bool:
    """Whether it will turn out in a moment if it is too much, so that recovery has to wait for that."""
    fresh = [f.since for s in certain if ward.incident(s) is None for f in ward.survey.failures[s]]
    if len({s for s in certain if ward.incident(s) is None}) >= ward.turn.snapshot.defaults.brake_services:
        settled_at = min(fresh) + SETTLE_SECONDS
        if ward.turn.now < settled_at:
            ward.turn.wake(settled_at)
            return True
    suspects = {s for s in ward.survey.suspects if not ward.causes.is_explained(s) and s not in ward.busy}
    return bool(certain) and _is_too_much(ward, len({*suspects, *failing, *counted}))


def _unexplained(ward: Ward) -> list[str]:
    return [service for service in ward.order if _counts(ward, service)]


def _counts(ward: Ward, service: str) -> bool:
    incident = ward.incident(service)
    if ward.causes.is_explained(service) or ward.is_consequence(service):
        return False
    if incident is not None and incident.state in LEFT_ALONE:
        return False
    failures = ward.free(ward.survey.failures[service])
    return any(not failure.unwatched for failure in failures)


def _is_recent(ward: Ward, service: str) -> bool:
    """Whether its failure is news, or was within the window; what failed when the brake last came off is neither."""
    incident, last = ward.incident(service), ward.last_incident(STACK)
    released = last.closed_at if last is not None and last.closed_at is not None else float("-inf")
    if incident is None:
        return min(failure.since for failure in ward.survey.failures[service]) > released
    began = min(incident.failures, default=incident.opened_at)
    return began > released and incident.opened_at > ward.turn.now - ward.turn.snapshot.defaults.brake_window_seconds


def _is_settled(ward: Ward, service: str) -> bool:
    """Whether it is certain that nothing below it is the cause; if not, look again when it is."""
    settled_at = max(ward.settled_at(failure) for failure in ward.survey.failures[service])
    if ward.turn.now < settled_at:
        ward.turn.wake(settled_at)
    return ward.turn.now >= settled_at


def _is_too_much(ward: Ward, count: int) -> bool:
    limits = ward.turn.snapshot.defaults
    return count >= limits.brake_services and count > limits.brake_share * ward.wanted


def _put_on(ward: Ward, services: tuple[str, ...]) -> None:
    now, total = ward.turn.now, ward.wanted
    detail = f"{len(services)} of {total} services failed within {ward.turn.snapshot.defaults.brake_window_seconds:g} s"
    incident = Incident(
        id=identifier(now, STACK),
        service=STACK,
        state=IncidentState.OPEN,
        opened_at=now,
        cause="mass_failure",
        detail=detail,
        affected=services,
    )
    ward.put(incident)
    for service in services:
        own = ward.incident(service)
        if own is not None:
            ward.put(replace(own, part_of=incident.id))
    ward.turn.record("recovery-frozen", f"{detail} ({', '.join(services)}): nothing is recovered automatically")


def _comes_off(ward: Ward, incident: Incident) -> bool:
    held_back = (service for service in incident.affected if service in ward.busy or _still_fails(ward, service))
    failing = len({*_unexplained(ward), *held_back})
    limits, by = ward.turn.snapshot.defaults, _released_by(ward, incident)
    earliest = incident.opened_at + limits.brake_window_seconds
    if by is not None:
        outcome = f"{by} recovered everything"
    elif ward.turn.now < earliest:
        ward.turn.wake(earliest)
        return False
    elif failing <= most_at_release(limits, ward.wanted):
        outcome = f"{failing} of {ward.wanted} services fail now"
    else:
        return False
    ward.put(replace(incident, state=IncidentState.CLOSED, closed_at=ward.turn.now, outcome=outcome))
    ward.turn.record("recovery-resumed", f"automatic recovery goes on: {outcome}")
    return True


def _still_fails(ward: Ward, service: str) -> bool:
    """Whether it failed when it was last seen, and is wanted and not left alone.

    Also if a hold stands on it, or its node agent is not there to say otherwise: neither makes it well, and when the
    hold is lifted and the agents are back from an outage of Consul, all would be restarted at once.
    """
    snapshot, incident = ward.turn.snapshot, ward.incident(service)
    if incident is not None and incident.state in LEFT_ALONE:
        return False
    for instance in snapshot.instances(service):
        observed = snapshot.observed.get(instance)
        up = observed is not None and observed.phase in (Phase.READY, Phase.COMPLETED)
        well = observed is not None and up and observed.failing_since is None
        if is_wanted(snapshot.desired.get(instance)) and not well:
            return True
    return False


def most_at_release(limits: Defaults, wanted: int) -> int:
    """How many of ``wanted`` services may fail when the brake comes off."""
    return int(RELEASE * limits.brake_share * wanted)


def _released_by(ward: Ward, incident: Incident) -> str | None:
    """Who asked for a recovery of everything since, if that has run its course."""
    for operation in ward.turn.operations:
        asked = operation.kind is Kind.RECOVER and ALL in operation.targets and not operation.automatic
        if asked and operation.requested_at > incident.opened_at and operation.ended and operation.started_at:
            return operation.requested_by or "somebody"
    return None
