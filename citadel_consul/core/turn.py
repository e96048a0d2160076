"""One turn of deciding: a snapshot, the moment, and the actions collected so far.

What a turn has decided is visible to the rest of the same turn: two instances of a service, either of which may go
but not both, would otherwise both be told to stop.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from citadel_consul.core.actions import (
    Action,
    RecordEvent,
    SetDesired,
    WakeAt,
    WriteIncident,
    WriteOperation,
    WriteStep,
)
from citadel_consul.core.incident import Incident
from citadel_consul.core.lifecycle import Desired
from citadel_consul.core.model import Instance
from citadel_consul.core.operation import (
    Operation,
    OperationState,
    Step,
    StepState,
    check_operation_transition,
    check_step_transition,
)
from citadel_consul.core.snapshot import Snapshot


@dataclass(slots=True)
class Turn:
    """Collects actions; ``snapshot.desired`` already shows those that change it."""

    snapshot: Snapshot
    now: float
    actions: list[Action] = field(default_factory=list)
    wake_at: float | None = None
    ordered: dict[Instance, Desired | None] = field(default_factory=dict)
    """What this turn has given an order to, with what was wanted of it before."""
    _operations: dict[str, Operation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        digest = self.snapshot.digested()
        self.snapshot = replace(self.snapshot, desired=_Overlay(self.snapshot.desired), digest=digest)

    def order(
        self,
        instance: Instance,
        operation: Operation,
        *,
        run: bool,
        reason: str,
        grace_seconds: float | None = None,
        drain_seconds: float | None = None,
        wanted: bool | None = None,
    ) -> int:
        """Give ``instance`` a new desired state; returns its generation. ``wanted`` is like ``run`` if not given."""
        generation = self.next_generation(instance)
        before = self.snapshot.desired.get(instance)
        self.set_desired(
            instance,
            Desired(
                run,
                generation,
                operation.id,
                reason,
                wanted=run if wanted is None else wanted,
                grace_seconds=grace_seconds,
                reloads=before.reloads if before is not None else 0,
                drain_seconds=drain_seconds,
            ),
        )
        return generation

    def want(self, instance: Instance, *, wanted: bool, reason: str) -> None:
        """Note that something that is not to run now is wanted, or is not any more. This is no order to its agent."""
        before, observed = self.snapshot.desired.get(instance), self.snapshot.observed.get(instance)
        if before is None:
            before = Desired(run=False, generation=observed.generation if observed is not None else 0)
        if not before.run and before.wanted is not wanted:
            self.set_desired(instance, replace(before, wanted=wanted, reason=reason))

    def next_generation(self, instance: Instance) -> int:
        """The number for a new order; what the agent remembers counts too, since ``Desired`` can be deleted."""
        desired, observed = self.snapshot.desired.get(instance), self.snapshot.observed.get(instance)
        return 1 + max(
            desired.generation if desired is not None else 0, observed.generation if observed is not None else 0
        )

    def set_desired(self, instance: Instance, desired: Desired) -> None:
        """Write ``desired`` and let the rest of the turn see it."""
        overlay = self.snapshot.desired
        self.ordered.setdefault(instance, overlay.get(instance))
        if isinstance(overlay, _Overlay):
            overlay[instance] = desired
        self.actions.append(SetDesired(instance, desired))

    def write_operation(self, before: Operation, after: Operation) -> Operation:
        """Write the head of an operation; the table decides whether its state may change so."""
        check_operation_transition(before.state, after.state)
        self._operations[after.id] = after
        self.actions.append(WriteOperation(after))
        return after

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations as this turn leaves them, oldest first."""
        known = {operation.id: operation for operation in self.snapshot.operations}
        return tuple(sorted({**known, **self._operations}.values(), key=lambda op: op.id))

    def write_incident(self, incident: Incident) -> None:
        """Write how an incident stands."""
        self.actions.append(WriteIncident(incident))

    def write_step(self, operation: Operation, position: int, step: Step, before: StepState | None = None) -> None:
        """Write one step; the table decides whether its state may change from ``before`` so (None: it is new)."""
        if before is not None:
            check_step_transition(before, step.state)
        self.actions.append(WriteStep(operation.id, position, step))

    def record(
        self,
        kind: str,
        message: str,
        *,
        instance: Instance | None = None,
        service: str | None = None,
        operation: str | None = None,
    ) -> None:
        """Put one thing into the history."""
        node = None
        if instance is not None:
            service, node = instance.service, instance.node
        self.actions.append(RecordEvent(kind, message, service, node, operation))

    def wake(self, at: float) -> None:
        """Look again no later than ``at``."""
        self.wake_at = at if self.wake_at is None else min(at, self.wake_at)

    def end(self, operation: Operation, state: OperationState, detail: str) -> Operation:
        """End an operation, said once in its document and once in the history."""
        ended = self.write_operation(
            operation, replace(operation, state=state, ended_at=self.now, detail=detail, waits_for=None)
        )
        words = {"succeeded": "succeeded", "failed": "failed", "cancelled": "was cancelled"}
        message = f"{operation.kind} {words[state]}" + (f": {detail}" if detail else "")
        self.record(f"operation-{state}", message, operation=operation.id)
        return ended

    def finish(self) -> list[Action]:
        """The actions of this turn: incidents first, since no attempt may go uncounted; the wish to be woken last."""
        self.actions.sort(key=lambda action: not isinstance(action, WriteIncident))
        if self.wake_at is not None:
            self.actions.append(WakeAt(self.wake_at))
        return self.actions


class _Overlay(dict[Instance, Desired]):
    """A copy of the desired states that belongs to one turn."""
