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

MOST_AT_ONCE = 64
"""How many recoveries begin in one turn. The rest follow at once: a turn must not be long, for it is the heartbeat."""


def heal(turn: Turn, taken: Iterable[tuple[str, frozenset[str]]]) -> None:
    """Recover what fails. ``taken`` are the unfinished operations with the services that they work on."""
    seen = survey(turn.snapshot, turn.now, turn.ordered)
    if not _is_needed(turn, seen):
        return
    ward = Ward(turn, seen, {service: operation for operation, scope in taken for service in scope})
    for incident in list(ward.incidents()):
        pardon(ward, incident)
    frozen = brakes(ward)
    if not frozen:
        quarantine(ward)
    _follow_up(ward)
    if not frozen:
        while _treat(ward):  # what an incident held back is looked at again when that closes
            continue
        _revive(ward)
    ward.write_changes()


def _is_needed(turn: Turn, seen: Survey) -> bool:
    if seen.look_again_at is not None:
        turn.wake(seen.look_again_at)
    return bool(seen.failures or seen.lapses or seen.idle or turn.snapshot.digested().incidents)


def _treat(ward: Ward) -> bool:
    """Deal with all that fails and nothing works on; returns whether an incident closed by that."""
    for service in ward.order:
        if service not in ward.busy:
            treat(ward, service)
        if len(ward.due) >= MOST_AT_ONCE:
            ward.turn.wake(ward.turn.now)
            break
    _begin_due(ward)
    ward.due.clear()
    before = {incident.id for incident in ward.incidents()}
    _follow_up(ward)
    return not before <= {incident.id for incident in ward.incidents()}


def _follow_up(ward: Ward) -> None:
    for incident in list(ward.incidents()):
        if incident.service not in ward.order:
            follow_up(ward, incident)


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
    for remedies, operation, planned in [_planned(ward, remedies) for remedies, _ in ready]:
        _begin(ward, operation, planned)
        for remedy in remedies:
            begun(ward, remedy, operation.id)


def _planned(ward: Ward, remedies: list[Remedy]) -> tuple[list[Remedy], Operation, Plan]:
    """All are planned before any begins: what one starts again is no dependent for another to restart."""
    operation = _request(ward, remedies)
    return remedies, operation, plan(ward.turn.snapshot, operation)


def _wait_for_operation(ward: Ward, remedy: Remedy, scope: frozenset[str]) -> None:
    others = sorted({ward.busy[service] for service in scope & ward.busy.keys()})
    incident = ward.incident(remedy.incident.service) or remedy.incident
    ward.put(replace(incident, waits_for=f"waits for operation {', '.join(others)}"))


def _request(ward: Ward, remedies: list[Remedy]) -> Operation:
    now = ward.turn.now
    failures = [failure for remedy in remedies for failure in remedy.failures]
    return Operation(
        id=_unused(ward, failures[0].instance.service),
        kind=Kind.RECOVER,
        targets=tuple(str(failure.instance) for failure in failures),
        options=Options(on_failure=OnFailure.CONTINUE, reason=str(failures[0].cause)),
        requested_by=AUTOMATIC,
        requested_at=now,
    )


def _revive(ward: Ward) -> None:
    instances = startable(ward)
    if not instances:
        return
    now = ward.turn.now
    operation = Operation(
        id=_unused(ward, instances[0].service),
        kind=Kind.STARTUP,
        targets=tuple(str(instance) for instance in instances),
        options=Options(on_failure=OnFailure.CONTINUE, reason="what it needs is back"),
        requested_by=AUTOMATIC,
        requested_at=now,
    )
    planned = plan(ward.turn.snapshot, operation)
    if not planned.scope & ward.busy.keys():
        _begin(ward, operation, planned)


def _unused(ward: Ward, about: str) -> str:
    """An identifier for an operation of this moment that no other has."""
    known, at = {operation.id for operation in ward.turn.operations}, ward.turn.now
    while (found := identifier(at, about)) in known:
        at += 1e-6
    return found


def _begin(ward: Ward, operation: Operation, planned: Plan) -> None:
    scope = begin(ward.turn, operation, planned)
    ward.busy.update(dict.fromkeys(scope, operation.id))
