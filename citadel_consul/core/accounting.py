"""Accounts of each service: how long it was up, how long it was down, and whose wish that was.

An account has one open interval for each instance: in which state it is, and since when. When the state changes, the
interval is closed and its length is added to the sum of that state; so a document is written at transitions and never
by a timer, and what has happened up to any moment is the sums plus the open interval. A new leader finds the open
interval in the KV store and goes on with it: nothing is lost or counted twice by a failover.

An interval begins when the node agent says that the phase began which explains it, and not when a leader looked: what
happens while nobody leads is entered at its time when somebody does. What an agent cannot date (a check that turned, an
order) begins at the look.

The stack has an account too. It is up while every service that counts serves: the critical ones, or all if none is;
services that run once and end do not count. It begins when the stack is first wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from citadel_consul.core.actions import SetDesired, WriteOperation, WriteStats
from citadel_consul.core.digest import Since, since_of
from citadel_consul.core.incident import STACK
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Condition, Instance
from citadel_consul.core.operation import ALL, Kind, Operation, OperationState
from citadel_consul.core.snapshot import CheckStatus, Snapshot
from citadel_consul.core.stats import STARTS_KEPT, Account, ServiceStats, Standing
from citadel_consul.core.turn import Turn

RECOVERIES_REMEMBERED = 100
"""How many recoveries stats name as counted: as many as ended operations are kept."""
BY_ORDER = frozenset({Kind.STARTUP, Kind.RESTART})
"""The operations whose downtime is planned; that of a recovery is not, since something failed."""


_DATED_BY: Mapping[Standing, frozenset[Phase]] = {
    Standing.UP: frozenset({Phase.READY, Phase.COMPLETED}),
    Standing.PLANNED: frozenset({Phase.DRAINING, Phase.STOPPING}),
    Standing.UNPLANNED: frozenset({Phase.EXITED, Phase.FAILED}),
}
"""The phases that begin a standing. One that ``stopped`` may long have been down for another reason."""


def keep_accounts(turn: Turn) -> None:
    """Bring the accounts up to what the turn leaves behind; what has not moved costs nothing."""
    snapshot = replace(turn.snapshot, operations=turn.operations)
    stats: dict[str, ServiceStats] = {}
    for service in _in_question(turn, snapshot):
        before = snapshot.stats.get(service) or ServiceStats(service)
        after = with_recoveries(account(before, snapshot, turn.now), snapshot.operations)
        if after is not before:
            stats[service] = after
    if stats or turn.snapshot.moved is None:
        digest = snapshot.digested()
        fresh = {name: since_of(each) for name, each in stats.items() if name in digest.counted}
        stack = account_stack(snapshot.stats.get(STACK), {**digest.standings, **fresh}, turn.now)
        if stack is not None:
            stats[STACK] = stack
    turn.actions.extend(WriteStats(each) for each in stats.values())


def _in_question(turn: Turn, snapshot: Snapshot) -> Iterable[str]:
    """The services whose accounts may have to change: what moved, was given an order, or is named by an operation."""
    if snapshot.moved is None:
        return snapshot.specs
    moved = set(snapshot.moved)
    for action in turn.actions:
        if isinstance(action, SetDesired):
            moved.add(action.instance.service)
        elif isinstance(action, WriteOperation):
            moved |= action.operation.scope
            moved.update(target.partition("@")[0] for target in action.operation.targets)
    return sorted(moved & snapshot.specs.keys()) if ALL not in moved else snapshot.specs


def standing_of(snapshot: Snapshot, instance: Instance) -> Standing:
    """What the time of ``instance`` counts as now."""
    if snapshot.meets(instance, Condition.HEALTHY):
        return Standing.UP
    if snapshot.checks.get(instance) is CheckStatus.MAINTENANCE:
        return Standing.PLANNED
    desired, observed = snapshot.desired.get(instance), snapshot.observed.get(instance)
    if desired is None or not (desired.run or desired.wanted):
        return Standing.PLANNED
    under_way = (
        not desired.run  # taken down, to be started again
        or observed is None
        or observed.generation < desired.generation
        or observed.phase is Phase.STARTING
    )
    return Standing.PLANNED if under_way and _is_by_order(snapshot, desired) else Standing.UNPLANNED


def _is_by_order(snapshot: Snapshot, desired: Desired) -> bool:
    """Whether somebody is starting or stopping it on purpose: an operation is, that has not ended."""
    operation = next((op for op in snapshot.operations if op.id == desired.operation), None)
    if operation is None:
        return desired.run and desired.reason != Kind.RECOVER
    return not operation.ended and not operation.automatic and operation.kind in BY_ORDER


def account(before: ServiceStats, snapshot: Snapshot, now: float) -> ServiceStats:
    """The stats of a service brought up to ``snapshot``; the very same object if nothing changed its standing."""
    accounts = {}
    for instance in snapshot.instances(before.service):
        known = before.instances.get(instance.node)
        standing = standing_of(snapshot, instance)
        observed = snapshot.observed.get(instance)
        fresh = Account(standing, now) if known is None else _carried_on(known, standing, observed, now)
        accounts[instance.node] = _with_start(fresh, observed)
    unchanged = accounts.keys() == before.instances.keys() and all(
        accounts[node] == before.instances[node] for node in accounts
    )
    return before if unchanged else replace(before, instances=accounts)


def with_recoveries(stats: ServiceStats, operations: Iterable[Operation]) -> ServiceStats:
    """``stats`` with the recoveries of its service that have ended and were not counted; the same object if none."""
    succeeded, failed, counted = stats.recoveries_succeeded, stats.recoveries_failed, list(stats.counted)
    for operation in operations:
        if not _is_recovery(operation, stats.service) or operation.id in counted:
            continue
        counted.append(operation.id)
        succeeded += operation.state is OperationState.SUCCEEDED
        failed += operation.state is OperationState.FAILED
    if len(counted) == len(stats.counted):
        return stats
    latest = tuple(counted[-RECOVERIES_REMEMBERED:])
    return replace(stats, recoveries_succeeded=succeeded, recoveries_failed=failed, counted=latest)


def _is_recovery(operation: Operation, service: str) -> bool:
    """Whether it has recovered ``service``, or tried to; what was refused or taken back has not."""
    tried = operation.state in (OperationState.SUCCEEDED, OperationState.FAILED) and operation.step_count > 0
    return tried and operation.kind is Kind.RECOVER and operation.names(service)


def account_stack(before: ServiceStats | None, standings: Mapping[str, Since], now: float) -> ServiceStats | None:
    """The account of the stack, given where the services stand that count for it; None if it does not change."""
    standing = _standing_of_stack({each.standing for each in standings.values()})
    before = before or ServiceStats(STACK)
    known = before.instances.get(STACK)
    if (known is None and standing is Standing.PLANNED) or (known is not None and known.standing is standing):
        return None
    began = _stack_began(standings.values(), standing, known, now)
    fresh = Account(standing, began) if known is None else _closed(known, standing, max(began, known.since))
    return replace(before, instances={STACK: fresh})


def _standing_of_stack(found: set[Standing]) -> Standing:
    """One that is down unasked decides, then one that is down by order."""
    if not found:
        return Standing.PLANNED
    return next((word for word in (Standing.UNPLANNED, Standing.PLANNED) if word in found), Standing.UP)


def _stack_began(found: Collection[Since], standing: Standing, known: Account | None, now: float) -> float:
    """When the stack came to stand so: with the first service that went down, or with the last that came back."""
    went_down = standing is Standing.UNPLANNED or (known is not None and known.standing is Standing.UP)
    if went_down:
        return min(now, min((each.at for each in found if each.standing is standing), default=now))
    return min(now, max((each.at for each in found), default=now))


def _carried_on(known: Account, standing: Standing, observed: Observed | None, now: float) -> Account:
    if standing is known.standing:
        return known
    return _closed(known, standing, _began(known, standing, observed, now))


def _closed(known: Account, standing: Standing, at: float) -> Account:
    """``known`` with its open interval ended, and one of ``standing`` begun, ``at`` a moment."""
    sums = known.sums_at(at)
    return replace(
        known,
        standing=standing,
        since=at,
        up_seconds=sums[Standing.UP],
        planned_seconds=sums[Standing.PLANNED],
        unplanned_seconds=sums[Standing.UNPLANNED],
        failures=known.failures + (standing is Standing.UNPLANNED),
    )


def _began(known: Account, standing: Standing, observed: Observed | None, now: float) -> float:
    """When ``standing`` began: with the phase, if that is news; clocks of other nodes are taken with care."""
    if observed is None or observed.phase not in _DATED_BY[standing]:
        return now
    return observed.since if known.since < observed.since < now else now


def _with_start(known: Account, observed: Observed | None) -> Account:
    """Take in a process that was not counted yet, and how long it took until it was ready."""
    if observed is None or observed.started_at is None:
        return known
    if observed.started_at != known.started_at:
        again = known.started_at is not None
        known = replace(known, started_at=observed.started_at, restarts=known.restarts + again)
    if observed.ready_at is not None and observed.ready_at != known.ready_at:
        took = round(max(0.0, observed.ready_at - observed.started_at), 3)
        latest = (*known.start_seconds, took)[-STARTS_KEPT:]
        known = replace(known, ready_at=observed.ready_at, start_seconds=latest)
    return known
