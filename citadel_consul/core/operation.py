"""Operations: requested changes of a stack, which outlive every leader.

An operation is a document. Whoever requests it writes it as ``pending`` and has no further part in it; the leader
plans it (``running``, with its steps), works the steps off, and ends it. A new leader finds the document and its
steps and goes on; since each step names the generation that it gave out, nothing has to be guessed.

A **step** is one thing done to one instance. It may only begin when the steps in ``after`` have succeeded and the
graph allows it. How a step ends decides, with the failure policy, what becomes of the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from citadel_consul.core.lifecycle import IllegalTransitionError
from citadel_consul.core.model import Instance, OnFailure


class Kind(StrEnum):
    STARTUP = "startup"
    SHUTDOWN = "shutdown"
    RESTART = "restart"
    RECOVER = "recover"
    DRAIN = "drain"


class OperationState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    ROLLING_BACK = "rolling_back"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED})

OPERATION_TRANSITIONS: Mapping[OperationState, frozenset[OperationState]] = {
    OperationState.PENDING: frozenset({OperationState.RUNNING, *ENDED}),
    OperationState.RUNNING: frozenset({OperationState.ROLLING_BACK, *ENDED}),
    OperationState.ROLLING_BACK: frozenset({OperationState.FAILED, OperationState.CANCELLED}),
    OperationState.SUCCEEDED: frozenset(),
    OperationState.FAILED: frozenset(),
    OperationState.CANCELLED: frozenset(),
}


class StepAction(StrEnum):
    START = "start"
    STOP = "stop"
    RELOAD = "reload"
    NOTIFY = "notify"


class StepState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


STEP_ENDED = frozenset({StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED})

STEP_TRANSITIONS: Mapping[StepState, frozenset[StepState]] = {
    StepState.WAITING: frozenset({StepState.RUNNING, *STEP_ENDED}),
    StepState.RUNNING: STEP_ENDED,
    StepState.SUCCEEDED: frozenset(),
    StepState.FAILED: frozenset(),
    StepState.SKIPPED: frozenset(),
}


def check_operation_transition(before: OperationState, after: OperationState) -> None:
    """Raise :class:`IllegalTransitionError` unless the table allows it."""
    if before is not after and after not in OPERATION_TRANSITIONS[before]:
        raise IllegalTransitionError(f"operation {before} → {after}")


def check_step_transition(before: StepState, after: StepState) -> None:
    """Raise :class:`IllegalTransitionError` unless the table allows it."""
    if before is not after and after not in STEP_TRANSITIONS[before]:
        raise IllegalTransitionError(f"step {before} → {after}")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing done to one instance. Times are unix seconds.

    ``after`` holds the positions of the steps that must have succeeded before this one may begin. ``generation``
    is the generation given out when it began; None means that there was nothing to do. ``executed_at`` is when the
    agent started the process. ``undo`` marks a step that a rollback added. ``reloads`` is the number of the reload that
    it ordered.
    """

    service: str
    node: str
    action: StepAction
    state: StepState = StepState.WAITING
    after: tuple[int, ...] = ()
    generation: int | None = None
    began_at: float | None = None
    executed_at: float | None = None
    ended_at: float | None = None
    detail: str = ""
    undo: bool = False
    reloads: int | None = None

    @property
    def instance(self) -> Instance:
        return Instance(self.service, self.node)

    @property
    def ended(self) -> bool:
        return self.state in STEP_ENDED


@dataclass(frozen=True, slots=True)
class Options:
    """How an operation is to be done. ``None`` takes the setting or what each spec says.

    ``cascade``: a stop may take dependents down with it. ``graceful``: stop by signal and wait; otherwise kill at
    once. ``on_failure`` overrides the policies of the services. ``rolling``: restart one instance after the other;
    ``subtree``: with the dependents. ``force``: drain or roll although running dependents need what stops.
    ``drain_seconds`` overrides how long an instance may drain before it is stopped; 0 is not at all.
    """

    cascade: bool = False
    graceful: bool = True
    on_failure: OnFailure | None = None
    timeout_seconds: float | None = None
    reason: str = ""
    rolling: bool = False
    subtree: bool = False
    force: bool = False
    drain_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """A requested change of the stack, with its steps. Times are unix seconds.

    ``targets`` are services, instances (``service@node``) or :data:`ALL`.
    """

    id: str
    kind: Kind
    targets: tuple[str, ...]
    options: Options = field(default_factory=Options)
    requested_by: str = ""
    requested_at: float = 0.0
    state: OperationState = OperationState.PENDING
    step_count: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    waits_for: str | None = None
    cancelled_by: str | None = None
    epoch: int | None = None
    detail: str = ""
    warnings: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def scope(self) -> frozenset[str]:
        """The services that it touches, known once it is planned."""
        return touched(self.steps)

    @property
    def automatic(self) -> bool:
        """Whether citadel itself asked for it: then a hold stops what it has not begun."""
        return self.requested_by == AUTOMATIC

    def names(self, service: str) -> bool:
        """Whether ``service``, or an instance of it, is among the targets."""
        return any(target == ALL or target.partition("@")[0] == service for target in self.targets)


ALL = "all"
"""The target that stands for every service of the stack (``{"services": ["all"]}`` in the API)."""
AUTOMATIC = "citadel"
"""Who requests what nobody asked for. A person's name has a host in it, so nobody else is called so."""


def touched(steps: Iterable[Step]) -> frozenset[str]:
    """The services that ``steps`` do something to; telling one something is nothing that is done to it."""
    return frozenset(step.service for step in steps if step.action is not StepAction.NOTIFY)
