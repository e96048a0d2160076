"""Putting flapping services into quarantine, and letting them out again."""

from __future__ import annotations

from dataclasses import replace

from citadel_consul.core.healing.failures import is_healthy
from citadel_consul.core.healing.flapping import is_flapping, quiet_at
from citadel_consul.core.healing.treatment import KEPT
from citadel_consul.core.healing.ward import Ward
from citadel_consul.core.incident import FLAPPING, Incident, IncidentState, identifier
from citadel_consul.core.snapshot import Snapshot


def quarantine(ward: Ward) -> None:
    """Look at every service that has lapsed lately."""
    lapsed = {**dict.fromkeys(ward.survey.lapses), **_quarantined(ward)}
    for service in lapsed:
        if service not in ward.turn.snapshot.specs or service in ward.busy:
            continue
        incident = ward.incident(service)
        if incident is not None and incident.state is IncidentState.QUARANTINED:
            _release(ward, incident)
        elif _deserves_it(ward, service, incident):
            _confine(ward, service, incident)


def quiet_again_at(snapshot: Snapshot, incident: Incident, now: float) -> float:
    """When a quarantine ends if nothing more happens (unix seconds)."""
    marks = (incident.last_attempt_at, incident.forgiven_at)
    begin = max((mark for mark in marks if mark is not None), default=float("-inf"))
    seen = [snapshot.observed.get(instance) for instance in snapshot.instances(incident.service)]
    lapses = [at for one in seen if one is not None for at in one.lapses if at > begin]
    return quiet_at(lapses, now, snapshot.defaults.flap_limit, snapshot.defaults.flap_half_life_seconds)


def _quarantined(ward: Ward) -> dict[str, None]:
    return {i.service: None for i in ward.incidents() if i.state is IncidentState.QUARANTINED}


def _deserves_it(ward: Ward, service: str, incident: Incident | None) -> bool:
    if incident is not None and incident.state is IncidentState.GAVE_UP:
        return False
    defaults = ward.turn.snapshot.defaults
    lapses = _counted(ward, service)
    if not is_flapping(lapses, ward.turn.now, defaults.flap_limit, defaults.flap_half_life_seconds):
        return False
    if ward.causes.is_explained(service) or any(_counted(ward, other) for other in ward.causes.below(service)):
        return False  # it goes up and down with something below it
    return not all(ward.is_held(instance) for instance in ward.turn.snapshot.instances(service))


def _counted(ward: Ward, service: str) -> list[float]:
    """The lapses since the service was last restarted for its failures, or repaired."""
    incident = ward.last_incident(service)
    marks = () if incident is None else (incident.last_attempt_at, incident.forgiven_at)
    begin = max((mark for mark in marks if mark is not None), default=float("-inf"))
    begin = ward.repaired_at(service, begin) or begin
    return sorted(at for at in ward.survey.lapses.get(service, ()) if at > begin)


def _confine(ward: Ward, service: str, incident: Incident | None) -> None:
    now, lapses = ward.turn.now, _counted(ward, service)
    detail = f"failed and came back {len(lapses)} times in {lapses[-1] - lapses[0]:.0f} s"
    affected = ward.causes.affected_by(service, ward.is_wanted, always=True)
    last = ward.last_incident(service)
    if incident is None:
        incident = Incident(
            id=identifier(now, service),
            service=service,
            state=IncidentState.QUARANTINED,
            opened_at=now,
            cause=FLAPPING,
            detail=detail,
            affected=affected,
            bout_began_at=now,
            last_attempt_at=last.last_attempt_at if last is not None else None,
            forgiven_at=last.forgiven_at if last is not None else None,
        )
    ward.put(
        replace(
            incident,
            state=IncidentState.QUARANTINED,
            failures=tuple(lapses[-KEPT:]),
            next_attempt_at=None,
            waits_for="waits until it has been quiet",
        )
    )
    ward.turn.record("quarantined", f"{service} {detail}: it is left alone until it is quiet", service=service)
    _wake_when_quiet(ward, service)


def _release(ward: Ward, incident: Incident) -> None:
    if _wake_when_quiet(ward, incident.service):
        return
    healthy = is_healthy(ward.turn.snapshot, incident.service)
    since = ward.turn.now if healthy else None
    ward.put(replace(incident, state=IncidentState.OPEN, healthy_since=since, waits_for=""))
    ward.turn.record("released", f"{incident.service} has been quiet: it is recovered again", service=incident.service)


def _wake_when_quiet(ward: Ward, service: str) -> bool:
    """Whether its penalty still stands; if so, look again when it will have decayed."""
    defaults, now = ward.turn.snapshot.defaults, ward.turn.now
    at = quiet_at(_counted(ward, service), now, defaults.flap_limit, defaults.flap_half_life_seconds)
    if at > now:
        ward.turn.wake(at)
    return at > now
