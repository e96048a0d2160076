"""``recover``: what a recovery came to, told in the five steps of the site; and what one would do.

The steps follow from those of the operation. They are laid end to end, so that they add up to the whole: where the
instances of a service go through them at different times, each lasts until the last instance is through.

==========================  ==========================================================================================
``stop_service``            from the begin of the operation to the end of the last stop
``check_dependencies``      until every start was allowed to begin
``restart_service``         until every process was started
``verify_health``           until every instance was healthy
``notify_dependents``       until the operation ended: dependents told, or restarted, as their edges say
==========================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from citadel_consul.core.answers.instants import instant, seconds_between
from citadel_consul.core.answers.restart import affected_services, dependents_restarted
from citadel_consul.core.health import Status, instance_status, service_status
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.operation import Kind, Operation, OperationState, Step, StepAction, StepState
from citadel_consul.core.plan import plan
from citadel_consul.core.snapshot import CheckStatus, Snapshot

STEPS = ("stop_service", "check_dependencies", "restart_service", "verify_health", "notify_dependents")


@dataclass(frozen=True, slots=True)
class RecoveryStep:
    """One of the five steps: ``completed``, ``failed``, ``skipped``, or ``planned`` where nothing is executed.
    ``time_seconds`` is None if it was not gone through."""

    step: str
    status: str
    time_seconds: float | None


@dataclass(frozen=True, slots=True)
class RecoveryResult:
    """The result of a recovery.

    ``recovery_successful``: whether every instance that was to be recovered is healthy again; a dependent that failed
    afterwards makes ``state`` ``failed`` and not this. ``post_recovery_health`` is how the service was when the answer
    was made. ``affected_services`` are all that need it in order to run, on however long a way.
    """

    service: str
    recovery_triggered: str
    recovery_reason: str
    recovery_steps: tuple[RecoveryStep, ...]
    total_recovery_time_seconds: float | None
    recovery_successful: bool
    post_recovery_health: Status
    affected_services: tuple[str, ...]
    dependent_services_restarted: int
    operation_id: str
    state: OperationState
    detail: str


@dataclass(frozen=True, slots=True)
class RecoveryAnswer:
    recovery_result: RecoveryResult


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One thing that would be done to one instance."""

    action: StepAction
    service: str
    node: str


@dataclass(frozen=True, slots=True)
class PlannedRecovery:
    """What a recovery of one service would do now. ``refusal`` says why it would do nothing.

    ``needed``: whether anything is wrong with it. ``dependent_services_restarted`` and ``dependents_notified`` count
    the services that it would restart or tell besides."""

    service: str
    needed: bool
    recovery_reason: str
    refusal: str | None
    recovery_steps: tuple[RecoveryStep, ...]
    planned_steps: tuple[PlannedStep, ...]
    affected_services: tuple[str, ...]
    dependent_services_restarted: int
    dependents_notified: int


@dataclass(frozen=True, slots=True)
class RecoveryTest:
    """``executed`` is false: a test says what would be done, and does nothing."""

    executed: bool
    timestamp: str
    recoveries: tuple[PlannedRecovery, ...]


@dataclass(frozen=True, slots=True)
class RecoveryTestAnswer:
    recovery_test: RecoveryTest


def recovery_answer(snapshot: Snapshot, operation: Operation, now: float) -> RecoveryAnswer:
    """What an ``operation`` that has ended (with its steps) came to; ``snapshot`` is taken after its end."""
    service = operation.targets[0].partition("@")[0]
    own = [step for step in operation.steps if step.service == service]
    starts = [step for step in own if step.action is StepAction.START]
    return RecoveryAnswer(
        RecoveryResult(
            service=service,
            recovery_triggered=instant(operation.requested_at),
            recovery_reason=operation.options.reason or "requested",
            recovery_steps=_recovery_steps(operation, service),
            total_recovery_time_seconds=seconds_between(operation.started_at, operation.ended_at),
            recovery_successful=bool(starts) and all(step.state is StepState.SUCCEEDED for step in starts),
            post_recovery_health=service_status(snapshot, service, now),
            affected_services=affected_services(snapshot, (service,)),
            dependent_services_restarted=dependents_restarted(snapshot, operation),
            operation_id=operation.id,
            state=operation.state,
            detail=operation.detail,
        )
    )


def recovery_test_answer(snapshot: Snapshot, now: float, services: Iterable[str]) -> RecoveryTestAnswer:
    """What recoveries of ``services``, each by itself, would do now. Nothing is done."""
    return RecoveryTestAnswer(RecoveryTest(False, instant(now), tuple(_planned(snapshot, s, now) for s in services)))


def recovery_reason(snapshot: Snapshot, service: str, now: float) -> str:
    """Why a service needs a recovery: ``start_failure``, ``process_exit``, ``health_check_failure``,
    ``start_timeout``, or ``requested`` if nothing of it is broken."""
    found = {_instance_reason(snapshot, service, instance.node, now) for instance in snapshot.instances(service)}
    order = ("start_failure", "process_exit", "health_check_failure", "start_timeout")
    return next((reason for reason in order if reason in found), "requested")


def _instance_reason(snapshot: Snapshot, service: str, node: str, now: float) -> str | None:
    instance = next(i for i in snapshot.instances(service) if i.node == node)
    desired, observed = snapshot.desired.get(instance), snapshot.observed.get(instance)
    if desired is None or not desired.run or observed is None:
        return None
    if observed.phase is Phase.FAILED:
        return "start_failure"
    if observed.phase is Phase.EXITED:
        return "process_exit"
    if observed.phase is Phase.READY and snapshot.checks.get(instance) is CheckStatus.CRITICAL:
        return "health_check_failure"
    late = observed.phase is Phase.STARTING and instance_status(snapshot, instance, now) is Status.UNHEALTHY
    return "start_timeout" if late else None


def _planned(snapshot: Snapshot, service: str, now: float) -> PlannedRecovery:
    operation = Operation(id="", kind=Kind.RECOVER, targets=(service,))
    planned = plan(snapshot, operation)
    reason = recovery_reason(snapshot, service, now)
    as_if = replace(operation, steps=tuple(replace(s, state=StepState.SUCCEEDED) for s in planned.steps))
    told = {step.service for step in planned.steps if step.action is StepAction.NOTIFY}
    return PlannedRecovery(
        service=service,
        needed=reason != "requested",
        recovery_reason=reason,
        refusal=planned.refusal,
        recovery_steps=() if planned.refusal else tuple(RecoveryStep(name, "planned", None) for name in STEPS),
        planned_steps=tuple(PlannedStep(s.action, s.service, s.node) for s in planned.steps),
        affected_services=affected_services(snapshot, (service,)),
        dependent_services_restarted=dependents_restarted(snapshot, as_if),
        dependents_notified=len(told),
    )


def _recovery_steps(operation: Operation, service: str) -> tuple[RecoveryStep, ...]:
    own = [step for step in operation.steps if step.service == service]
    stops = [step for step in own if step.action is StepAction.STOP]
    starts = [step for step in own if step.action is StepAction.START]
    others = [step for step in operation.steps if step.service != service]
    words = _words(stops, starts, others)
    ends = (
        _last(step.ended_at for step in stops),
        _last(step.began_at for step in starts),
        _last(step.executed_at for step in starts),
        _last(step.ended_at for step in starts),
        operation.ended_at,
    )
    told: list[RecoveryStep] = []
    reached = operation.started_at
    for name, word, end in zip(STEPS, words, ends, strict=True):
        if word not in ("completed", "failed") or reached is None:
            told.append(RecoveryStep(name, word, None))
            continue
        until = _until(word, reached, end, operation.ended_at)
        told.append(RecoveryStep(name, word, seconds_between(reached, until)))
        reached = until
    return tuple(told)


def _until(word: str, reached: float, end: float | None, last: float | None) -> float:
    """When a step was over: what failed lasted to the end of the operation, since nothing came after it. Moments of a
    node's clock are kept between those of the leader's."""
    latest = reached if last is None else last
    wished = latest if word == "failed" else reached if end is None else end
    return max(reached, min(wished, latest))


def _words(stops: list[Step], starts: list[Step], others: list[Step]) -> tuple[str, ...]:
    """What became of each of the five: the first that did not complete failed, and those after it are skipped."""
    executed = bool(starts) and all(step.executed_at is not None for step in starts)
    healthy = bool(starts) and all(step.state is StepState.SUCCEEDED for step in starts)
    passed = (
        all(step.state is StepState.SUCCEEDED for step in stops),
        bool(starts) and all(step.began_at is not None or step.state is StepState.SUCCEEDED for step in starts),
        executed or healthy,
        healthy,
        all(step.state is StepState.SUCCEEDED for step in others),
    )
    gone = passed.index(False) if False in passed else len(passed)
    return tuple("completed" if n < gone else "failed" if n == gone else "skipped" for n in range(len(passed)))


def _last(moments: Iterable[float | None]) -> float | None:
    return max((moment for moment in moments if moment is not None), default=None)
