"""What is done about one service that fails, and when it is over (invariant I5).

An incident opens with the first failure that is the service's own. The first attempt of a bout is immediate; each later
one waits as its policy says, and past the budget citadel gives up: said once, and left alone until a person repairs it
or it comes back by itself. An incident closes when its service has been healthy for a moment, so that a service which
dies again right after its start does not make an incident, and a notification, of each of its deaths.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from citadel_consul.core.healing.failures import Cause, Failure, is_healthy
from citadel_consul.core.healing.policy import policy_of
from citadel_consul.core.healing.ward import Remedy, Ward
from citadel_consul.core.incident import LEFT_ALONE, UNWATCHED, Incident, IncidentState, identifier

CALM_SECONDS = 10.0
"""How long a service has to be healthy until its incident is over."""
KEPT = 20
"""How many failures and operations an incident remembers."""


def treat(ward: Ward, service: str) -> None:
    """Decide about a failing service that nothing works on."""
    failures = ward.survey.failures[service]
    if ward.causes.is_explained(service):
        _wait(ward, ward.incident(service), "what it needs does not serve")
        return
    if ward.is_consequence(service):
        _start_again(ward, service, failures)
        return
    free = _worst(ward.free(failures))
    if not free:
        _wait(ward, ward.incident(service), "a hold stands on it")
        return
    incident = ward.incident(service)
    settled_at = max(ward.settled_at(failure) for failure in free)
    if incident is None and ward.turn.now < settled_at:
        ward.turn.wake(settled_at)
        return
    incident = incident or _open(ward, service, free)
    if incident.state in LEFT_ALONE:
        return
    if not policy_of(ward.turn.snapshot, service).enabled:
        _wait(ward, incident, "automatic recovery is switched off for it")
        return
    unmet = ward.causes.unmet(service)
    if unmet:
        _wait(ward, incident, f"waits for {', '.join(f'{e.dependency} to be {e.condition}' for e in unmet)}")
        return
    _try(ward, incident, free)


def follow_up(ward: Ward, incident: Incident) -> None:
    """See how an incident stands whose service does not fail now."""
    if incident.service in ward.busy:
        return
    if not ward.is_wanted(incident.service):
        close(ward, incident, "it is not wanted any more")
    elif incident.state is IncidentState.QUARANTINED:
        return
    elif not is_healthy(ward.turn.snapshot, incident.service):
        ward.put(replace(incident, healthy_since=None))
    elif incident.healthy_since is None:
        ward.put(replace(incident, healthy_since=ward.turn.now, next_attempt_at=None, waits_for=""))
        ward.turn.wake(ward.turn.now + CALM_SECONDS)
    elif ward.turn.now < incident.healthy_since + CALM_SECONDS:
        ward.turn.wake(incident.healthy_since + CALM_SECONDS)
    elif not _is_followed(ward, incident):
        close(ward, incident, _good_end(incident))


def close(ward: Ward, incident: Incident, outcome: str) -> None:
    """End an incident, said once."""
    ward.put(
        replace(
            incident,
            state=IncidentState.CLOSED,
            closed_at=ward.turn.now,
            outcome=outcome,
            next_attempt_at=None,
            waits_for="",
        )
    )
    ward.turn.record("incident-closed", f"{incident.service}: {outcome}", service=incident.service)


def begun(ward: Ward, remedy: Remedy, operation_id: str) -> None:
    """Enter into its incident that ``operation_id`` carries out ``remedy``."""
    incident = ward.incident(remedy.incident.service) or remedy.incident
    operations = (*incident.operations, operation_id)[-KEPT:]
    if remedy.services != (incident.service,):  # dependents that died with it: no attempt on the service itself
        ward.put(replace(incident, operations=operations, followed=(*incident.followed, *remedy.services)))
        return
    ward.put(
        replace(
            incident,
            state=IncidentState.RECOVERING,
            attempts=incident.attempts + 1,
            last_attempt_at=ward.turn.now,
            next_attempt_at=None,
            operations=operations,
            waits_for="",
        )
    )


# --- consequences -----------------------------------------------------------------------------------------------


def _start_again(ward: Ward, service: str, failures: list[Failure]) -> None:
    """Have what died with something below it started again, under the incident of that."""
    owner = ward.owner_of(service)
    free = ward.free(failure for failure in failures if failure.dead)
    if owner is None or not free or not policy_of(ward.turn.snapshot, service).enabled or ward.causes.unmet(service):
        return
    remedy = next((r for r in ward.due if r.incident.id == owner.id and r.services != (owner.service,)), None)
    if remedy is None:
        ward.due.append(Remedy(owner, free))
    else:
        remedy.failures.extend(free)


def _is_followed(ward: Ward, incident: Incident) -> bool:
    """Whether something that it took along is still being seen to."""
    if any(operation in incident.operations for operation in ward.busy.values()):
        return True
    return any(_is_to_follow(ward, service) for service in incident.affected if service not in incident.followed)


def _is_to_follow(ward: Ward, service: str) -> bool:
    """Whether a dependent died with its dependency and is still to be started again."""
    if service in ward.busy or ward.incident(service) is not None or service not in ward.survey.failures:
        return False
    if ward.causes.is_explained(service) or ward.causes.unmet(service):
        return False  # it waits for something else, too
    dead = [failure for failure in ward.survey.failures[service] if failure.dead]
    return bool(ward.free(dead)) and policy_of(ward.turn.snapshot, service).enabled


# --- the budget -------------------------------------------------------------------------------------------------


def _open(ward: Ward, service: str, failures: list[Failure]) -> Incident:
    """A new incident, in the bout of the last one if there was too little health between them."""
    now, last = ward.turn.now, ward.last_incident(service)
    policy = policy_of(ward.turn.snapshot, service)
    incident = Incident(
        id=identifier(now, service),
        service=service,
        state=IncidentState.OPEN,
        opened_at=now,
        cause=UNWATCHED if all(failure.unwatched for failure in failures) else str(failures[0].cause),
        detail=_told(failures),
        affected=ward.causes.affected_by(service, ward.is_wanted),
        bout_began_at=now,
        failures=(min(failure.since for failure in failures),),
    )
    if last is not None:
        incident = replace(incident, forgiven_at=last.forgiven_at, last_attempt_at=last.last_attempt_at)
        if last.attempts and last.healthy_since is not None and now < last.healthy_since + policy.reset_after_seconds:
            incident = replace(incident, attempts=last.attempts, bout_began_at=last.bout_began_at)
    reach = f"; affects {', '.join(incident.affected)}" if incident.affected else ""
    ward.turn.record("incident-opened", f"{service} fails: {incident.detail}{reach}", service=service)
    ward.put(incident)
    _claim(ward, incident)
    incident = pardon(ward, incident)
    ahead = ward.repaired_at(service, now)
    if ahead is not None:  # by the clock of an earlier leader, which is ahead of ours: it was before this incident
        incident = ward.put(replace(incident, forgiven_at=ahead))
    return incident


def _claim(ward: Ward, incident: Incident) -> None:
    """Make incidents a part of ``incident`` that opened for what it took along, before its own failure was known."""
    begin = ward.turn.now - ward.turn.snapshot.defaults.notice_delay_seconds
    for other in list(ward.incidents()):
        fresh = other.opened_at >= begin and other.part_of is None and other.state not in LEFT_ALONE
        if fresh and other.service in incident.affected:
            ward.put(replace(other, part_of=incident.id))


def _try(ward: Ward, incident: Incident, failures: list[Failure]) -> None:
    """Begin an attempt if one is due, or say when the next one is, or give up."""
    now = ward.turn.now
    incident = _failed_again(ward, incident, failures)
    if incident.attempts > 0 and incident.next_attempt_at is None:
        backoff = ward.turn.snapshot.backoffs.get(incident.service)
        if backoff is None or backoff.attempts != incident.attempts:
            return  # the shell draws the delay with the next snapshot
        if backoff.exhausted:
            _give_up(ward, incident, failures)
            return
        due_at = now + backoff.delay_seconds
        incident = ward.put(replace(incident, last_failed_at=now, next_attempt_at=due_at, waits_for=""))
    if incident.next_attempt_at is not None and now < incident.next_attempt_at:
        ward.turn.wake(incident.next_attempt_at)
        return
    ward.due.append(Remedy(incident, failures))


def _failed_again(ward: Ward, incident: Incident, failures: list[Failure]) -> Incident:
    """Take note of the end of a healthy period; one that was long enough makes the budget whole again."""
    if incident.healthy_since is None:
        return incident
    since = min(failure.since for failure in failures)
    policy = policy_of(ward.turn.snapshot, incident.service)
    if ward.turn.now >= incident.healthy_since + policy.reset_after_seconds:
        incident = replace(incident, attempts=0, bout_began_at=ward.turn.now, next_attempt_at=None)
    return ward.put(replace(incident, healthy_since=None, failures=(*incident.failures, since)[-KEPT:]))


def _give_up(ward: Ward, incident: Incident, failures: list[Failure]) -> None:
    attempts = f"{incident.attempts} attempt{'s' if incident.attempts != 1 else ''}"
    ward.put(
        replace(
            incident,
            state=IncidentState.GAVE_UP,
            last_failed_at=ward.turn.now,
            next_attempt_at=None,
            waits_for=f"citadel recover {incident.service}",
        )
    )
    message = f"{incident.service} has failed for good after {attempts}: {_told(failures)}"
    ward.turn.record("gave-up", message, service=incident.service)


def pardon(ward: Ward, incident: Incident) -> Incident:
    """Make the budget whole again if a person has repaired the service."""
    if not incident.attempts and incident.state not in LEFT_ALONE:
        return incident
    repaired_at = ward.repaired_at(incident.service, incident.forgiven_at or incident.bout_began_at)
    if repaired_at is None:
        return incident
    return ward.put(
        replace(
            incident,
            state=IncidentState.OPEN,
            attempts=0,
            bout_began_at=repaired_at,
            forgiven_at=repaired_at,
            next_attempt_at=None,
            waits_for="",
        )
    )


# --- small questions --------------------------------------------------------------------------------------------


def _wait(ward: Ward, incident: Incident | None, reason: str) -> None:
    """Do nothing, and say why in the incident, if there is one."""
    if incident is not None and incident.state not in LEFT_ALONE:
        ward.put(replace(incident, waits_for=reason, healthy_since=None))


def _worst(failures: list[Failure]) -> list[Failure]:
    """What is merely degraded is left for later while anything is worse."""
    worse = [failure for failure in failures if failure.cause is not Cause.DEGRADED]
    return worse or failures


def _told(failures: Iterable[Failure]) -> str:
    return "; ".join(str(failure) for failure in failures)


def _good_end(incident: Incident) -> str:
    if not incident.attempts:
        return "healthy again"
    return f"healthy again after {incident.attempts} attempt{'s' if incident.attempts != 1 else ''}"
