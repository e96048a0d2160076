"""One turn of automatic recovery: look, brake, treat, follow up, begin what is due.

It comes after the operations of the turn, and its own operations begin, and give their first orders, in the same turn:
from the report of an exit to the order to start again there is one write.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from citadel_consul.core.admission import begin
from citadel_consul.core.healing.brake import brakes
from citadel_consul.core.healing.failures import Survey, survey
from citadel_consul.core.healing.quarantine import quarantine
from citadel_consul.core.healing.revival import startable
from citadel_consul.core.healing.treatment import begun, follow_up, pardon, treat
from citadel_consul.core.healing.ward import Remedy, Ward
from citadel_consul.core.incident import identifier
from citadel_consul.core.model import OnFailure
from citadel_consul.core.operation import AUTOMATIC, Kind, Operation, Options
from citadel_consul.core.plan import Plan, plan
from citadel_consul.core.turn import Turn


def heal(turn: Turn, taken: Iterable[tuple[str, frozenset[str]]]) -> None:
    """Recover what fails. ``taken`` are the unfinished operations with the services that they work on."""
    seen = survey(turn.snapshot, turn.now)
    if not _is_needed(turn, seen):
        return
    ward = Ward(turn, seen, {service: operation for operation, scope in taken for service in scope})
    for incident in list(ward.incidents()):
        pardon(ward, incident)
    frozen = brakes(ward)
    if not frozen:
        quarantine(ward)
    for incident in list(ward.incidents()):
        if incident.service not in ward.order:
            follow_up(ward, incident)
    if not frozen:
        for service in ward.order:
            treat(ward, service)
        _begin_due(ward)
        _revive(ward)
    ward.write_changes()


def _is_needed(turn: Turn, seen: Survey) -> bool:
    if seen.look_again_at is not None:
        turn.wake(seen.look_again_at)
    open_incidents = any(not incident.over for incident in turn.snapshot.incidents.values())
    return bool(seen.failures or seen.lapses or seen.idle or open_incidents)


def _begin_due(ward: Ward) -> None:
    """Begin what is due, each by itself; what would work on the same services goes into one operation."""
    ready: list[tuple[list[Remedy], frozenset[str]]] = []
    for remedy in ward.due:
        scope = plan(ward.turn.snapshot, _request(ward, [remedy])).scope
        if scope & ward.busy.keys():
            _wait_for_operation(ward, remedy, scope)
            continue
        together = [group for group in ready if group[1] & scope]
        ready = [group for group in ready if group not in together]
        remedies = [*(r for group, _ in together for r in group), remedy]
        ready.append((remedies, scope.union(*(s for _, s in together))))
    for remedies, _ in ready:
        operation = _request(ward, remedies)
        _begin(ward, operation, plan(ward.turn.snapshot, operation))
        for remedy in remedies:
            begun(ward, remedy, operation.id)


def _wait_for_operation(ward: Ward, remedy: Remedy, scope: frozenset[str]) -> None:
    others = sorted({ward.busy[service] for service in scope & ward.busy.keys()})
    incident = ward.incident(remedy.incident.service) or remedy.incident
    ward.put(replace(incident, waits_for=f"waits for operation {', '.join(others)}"))


def _request(ward: Ward, remedies: list[Remedy]) -> Operation:
    now = ward.turn.now
    failures = [failure for remedy in remedies for failure in remedy.failures]
    return Operation(
        id=identifier(now, failures[0].instance.service),
        kind=Kind.RECOVER,
        targets=tuple(str(failure.instance) for failure in failures),
        options=Options(on_failure=OnFailure.CONTINUE, reason=failures[0].cause),
        requested_by=AUTOMATIC,
        requested_at=now,
    )


def _revive(ward: Ward) -> None:
    instances = startable(ward)
    if not instances:
        return
    now = ward.turn.now
    operation = Operation(
        id=identifier(now, f"{instances[0].service}-and-above"),
        kind=Kind.STARTUP,
        targets=tuple(str(instance) for instance in instances),
        options=Options(on_failure=OnFailure.CONTINUE, reason="what it needs is back"),
        requested_by=AUTOMATIC,
        requested_at=now,
    )
    planned = plan(ward.turn.snapshot, operation)
    if not planned.scope & ward.busy.keys():
        _begin(ward, operation, planned)


def _begin(ward: Ward, operation: Operation, planned: Plan) -> None:
    scope = begin(ward.turn, operation, planned)
    ward.busy.update(dict.fromkeys(scope, operation.id))
