"""The invariants of the design, each as a function that is asked before every action of every decision.

They look at the model's own truth (which processes run) and at the store, and say again, in other words, what the
rules in ``core`` say: a test that asks ``core`` whether ``core`` is right cannot fail.
"""

from __future__ import annotations

from dataclasses import replace

from world import Listener, World, is_wake, order_of

from citadel_consul.core.actions import Action, SetDesired, WriteIncident, WriteOperation, WriteStep
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Condition, Edge, Instance, OnFailure, Strength
from citadel_consul.core.operation import (
    Kind,
    Operation,
    OperationState,
    StepAction,
    StepState,
    check_operation_transition,
    check_step_transition,
    touched,
)
from citadel_consul.core.plan import plan
from citadel_consul.core.progress import NOT_TAKEN

RUNNING = (OperationState.RUNNING, OperationState.ROLLING_BACK)


def meets(world: World, instance: Instance, condition: Condition) -> bool:
    """Whether ``instance`` is, in truth, what an edge with ``condition`` asks for."""
    seen, wanted = world.observed.get(instance), world.desired.get(instance)
    if seen is None or wanted is None or not wanted.run or seen.generation < wanted.generation:
        return False
    done, ready = seen.phase is Phase.COMPLETED, seen.phase is Phase.READY
    oneshot = instance.service in world.specs and world.specs[instance.service].oneshot
    return {
        Condition.STARTED: done or ready or seen.phase is Phase.STARTING,
        Condition.HEALTHY: (ready and not world.behaviour(instance).critical) or (done and oneshot),
        Condition.COMPLETED: done,
    }[condition]


def is_met(world: World, edge: Edge, without: Instance | None = None) -> bool:
    """Whether enough instances meet ``edge``, also if ``without`` were gone."""
    instances = world.specs[edge.dependency].instances
    needed = len(instances) if edge.min_instances is None else min(edge.min_instances, len(instances))
    return sum(meets(world, i, edge.condition) for i in instances if i != without) >= needed > 0


def edges_from(world: World, service: str) -> list[Edge]:
    return [edge for edge in world.edges if edge.service == service]


def i1_nothing_starts_before_its_dependencies_meet_their_condition(world: World, action: Action) -> None:
    if isinstance(action, SetDesired) and action.desired.run:
        for edge in edges_from(world, action.instance.service):
            if edge.strength is not Strength.SOFT:
                assert is_met(world, edge), f"I1: {action.instance} starts, and {edge} is not met"


def a_soft_edge_gives_the_order_while_its_dependency_is_being_started(world: World, action: Action) -> None:
    if not isinstance(action, SetDesired) or not action.desired.run or action.desired.operation is None:
        return
    steps = world.operation(action.desired.operation).steps
    starting = {step.service for step in steps if step.action is StepAction.START and not step.ended}
    for edge in edges_from(world, action.instance.service):
        if edge.strength is Strength.SOFT and edge.dependency in starting:
            assert is_met(world, edge), f"{action.instance} overtakes {edge.dependency}, which is being started"


def i2_an_ordered_stop_leaves_no_dependent_without_it(world: World, action: Action) -> None:
    """A restart in place is the exception: dependents stay up on purpose."""
    if not isinstance(action, SetDesired) or action.desired.run or action.desired.operation is None:
        return
    operation = world.operation(action.desired.operation)
    if is_roll(operation) or operation.options.force:  # a roll has a stricter rule of its own, see below
        return
    if operation.kind in (Kind.RESTART, Kind.RECOVER) and not operation.options.cascade:
        return
    if action.desired.reason == NOT_TAKEN or is_follower(world, action):
        return
    for edge in world.edges:
        if edge.dependency != action.instance.service or edge.strength is not Strength.HARD:
            continue
        if edge.condition is Condition.COMPLETED or is_met(world, edge, without=action.instance):
            continue
        above = [i for i in world.specs[edge.service].instances if world.runs(i)]
        assert not above, f"I2: {action.instance} is stopped under {above}"


def is_roll(operation: Operation) -> bool:
    return operation.kind is Kind.RESTART and operation.options.rolling


def a_roll_never_takes_what_running_dependents_need(world: World, action: Action) -> None:
    """Not below min_instances, whatever else goes wrong: only what does not serve anyway is taken down then."""
    operation = _roll_that_stops(world, action)
    if operation is None or operation.options.force or not isinstance(action, SetDesired):
        return
    for edge in world.edges:
        if edge.dependency != action.instance.service or edge.strength is not Strength.HARD:
            continue
        if edge.condition is Condition.COMPLETED or not meets(world, action.instance, edge.condition):
            continue
        if any(world.runs(i) for i in world.specs[edge.service].instances):
            assert is_met(world, edge, without=action.instance), f"{action.instance} is rolled, which {edge} needs"


def a_roll_has_one_instance_in_hand(world: World, action: Action) -> None:
    """When an instance is taken down, every other that the roll has touched serves again."""
    operation = _roll_that_stops(world, action)
    if operation is None or not isinstance(action, SetDesired):
        return
    for other, _ in {(i, o) for op, i, o in world.orders if op == operation.id and world.orders[op, i, o]}:
        if other != action.instance and other.service in world.specs:
            serves = meets(world, other, Condition.HEALTHY)
            lost = world.behaviour(other).critical or not world.runs(other)  # since: its own service waits for it
            assert serves or (lost and other.service != action.instance.service) or operation.options.force


def _roll_that_stops(world: World, action: Action) -> Operation | None:
    """The rolling restart that stops something by ``action``, if one does."""
    if not isinstance(action, SetDesired) or action.desired.run or action.desired.operation is None:
        return None
    operation = world.operation(action.desired.operation)
    return operation if is_roll(operation) and action.desired.reason != NOT_TAKEN else None


def is_follower(world: World, action: SetDesired) -> bool:
    """Whether a stop is the first half of what an edge's ``on_recovery: restart`` asks for: that is in place too."""
    steps = world.operation(action.desired.operation or "").steps
    return any(s.instance == action.instance and s.action is StepAction.STOP and s.after for s in steps)


def nothing_is_started_or_stopped_twice_for_one_operation(world: World, action: Action) -> None:
    if isinstance(action, SetDesired):
        order = order_of(action.desired)
        given = world.orders[action.desired.operation, action.instance, order]
        assert given == 0, f"{action.instance} is given the order to {order} twice"


def a_generation_is_given_out_once_and_grows(world: World, action: Action) -> None:
    if isinstance(action, SetDesired):
        before = world.desired.get(action.instance)
        assert before is None or action.desired.generation > before.generation


def overlapping_operations_never_run_at_once_nor_overtake(world: World, action: Action) -> None:
    if not isinstance(action, WriteOperation) or action.operation.state not in RUNNING:
        return
    if action.operation.id not in world.heads and action.operation.automatic:
        before = replace(action.operation, state=OperationState.PENDING)
    else:
        before = world.operation(action.operation.id)
    if before.state is not OperationState.PENDING:
        return
    scope = touched(world.steps[before.id, n] for n in range(action.operation.step_count))
    snapshot = world.snapshot()
    for other in snapshot.operations:
        if other.id == before.id or other.ended:
            continue
        if other.state in RUNNING:
            assert not scope & other.scope, f"{before.id} begins while {other.id} runs"
        elif other.id < before.id and other.cancelled_by is None:
            assert not scope & plan(snapshot, other).scope, f"{before.id} overtakes {other.id}"


def documents_change_as_the_tables_allow(world: World, action: Action) -> None:
    if isinstance(action, WriteOperation):
        before = world.heads.get(action.operation.id)
        if before is None:  # citadel's own operations begin in the turn that makes them
            assert action.operation.automatic
            return
        assert not before.ended, f"{before.id} had ended"
        check_operation_transition(before.state, action.operation.state)
    elif isinstance(action, WriteStep):
        head = world.heads.get(action.operation)
        assert head is None or not head.ended
        if head is not None and action.position < head.step_count:
            check_step_transition(world.steps[action.operation, action.position].state, action.step.state)


def an_operation_ends_with_all_its_steps_ended(world: World, action: Action) -> None:
    if isinstance(action, WriteOperation) and action.operation.ended:
        operation = world.operation(action.operation.id)
        assert all(step.ended for step in operation.steps), f"{operation.id} ended with open steps"
        if action.operation.state is OperationState.SUCCEEDED:
            assert all(step.state is StepState.SUCCEEDED for step in operation.steps)


def a_succeeded_operation_did_what_was_asked(world: World, action: Action) -> None:
    if not isinstance(action, WriteOperation) or action.operation.state is not OperationState.SUCCEEDED:
        return
    operation = world.operation(action.operation.id)
    for step in operation.steps:
        if operation.kind in (Kind.SHUTDOWN, Kind.DRAIN):
            assert not world.runs(step.instance) or not world.reachable(step.instance)
        elif step.action is StepAction.START:
            assert world.desired[step.instance].run


def what_was_cancelled_starts_nothing_more(world: World, action: Action) -> None:
    """But a roll starts again what it has stopped."""
    if isinstance(action, SetDesired) and action.desired.run:
        if world.orders[action.desired.operation, action.instance, "stop"] and is_roll(
            world.operation(action.desired.operation or "")
        ):
            return
        assert action.desired.operation not in world.cancels, f"{action.instance} is started by a cancelled operation"


def keep_starts_nothing_after_a_failure(world: World, action: Action) -> None:
    if not isinstance(action, SetDesired) or not action.desired.run or action.desired.operation is None:
        return
    operation = world.operation(action.desired.operation)
    failed = [s for s in operation.steps if s.action is StepAction.START and s.state is StepState.FAILED]
    known = [world.specs[step.service] for step in failed if step.service in world.specs]
    policies = {operation.options.on_failure or found.on_failure for found in known}
    assert not policies - {OnFailure.CONTINUE}, f"{action.instance} is started although {failed[0].instance} failed"


def a_rollback_stops_only_what_its_operation_started(world: World, action: Action) -> None:
    if not isinstance(action, SetDesired) or action.desired.run or action.desired.operation is None:
        return
    operation = world.operation(action.desired.operation)
    if operation.kind is Kind.STARTUP:
        assert world.orders[operation.id, action.instance, "start"] == 1, f"{action.instance} was not started by it"


def a_skipped_start_has_a_reason(world: World, action: Action) -> None:
    """``continue`` skips what depends on what failed, and nothing else."""
    if not isinstance(action, WriteStep) or action.step.action is not StepAction.START:
        return
    operation = world.heads.get(action.operation)
    if operation is None or action.step.state is not StepState.SKIPPED or operation.kind is not Kind.STARTUP:
        return
    if action.step.detail.startswith("needs "):
        unmet = [e for e in edges_from(world, action.step.service) if e.strength is not Strength.SOFT]
        assert any(not is_met(world, edge) for edge in unmet), f"{action.step.instance} could have been started"


def a_note_is_no_order(world: World, action: Action) -> None:
    """What is only noted changes neither whether it is to run nor the generation that an agent acts on."""
    if isinstance(action, SetDesired) and world.is_note(action):
        before = world.desired.get(action.instance)
        assert action.desired.run is (before is not None and before.run)
        assert action.desired != before


INVARIANTS: tuple[Listener, ...] = (
    i1_nothing_starts_before_its_dependencies_meet_their_condition,
    a_soft_edge_gives_the_order_while_its_dependency_is_being_started,
    i2_an_ordered_stop_leaves_no_dependent_without_it,
    a_roll_never_takes_what_running_dependents_need,
    a_roll_has_one_instance_in_hand,
    nothing_is_started_or_stopped_twice_for_one_operation,
    a_generation_is_given_out_once_and_grows,
    overlapping_operations_never_run_at_once_nor_overtake,
    documents_change_as_the_tables_allow,
    an_operation_ends_with_all_its_steps_ended,
    a_succeeded_operation_did_what_was_asked,
    what_was_cancelled_starts_nothing_more,
    keep_starts_nothing_after_a_failure,
    a_rollback_stops_only_what_its_operation_started,
    a_skipped_start_has_a_reason,
)


def decisions_are_level_triggered(world: World, actions: list[Action], done: bool) -> None:
    """From the same facts the same actions; once they are carried out, nothing but the wish to be woken.

    What an older operation says it waits for may change by what a younger one did in the same turn: then it is said
    in the next look, and that is the end of it.
    """
    if not done:
        assert world.decide() == actions
        return
    after = world.fork()
    after.listeners, after.judges = [], []
    for action in after.lead():
        assert _is_explanation(world, action) or is_wake(action), f"still to be done: {action}"
    assert all(is_wake(action) for action in after.decide())


def _is_explanation(world: World, action: Action) -> bool:
    """Whether an action says no more than what something waits for."""
    if isinstance(action, WriteStep):
        return world.steps[action.operation, action.position].state is action.step.state
    if isinstance(action, WriteIncident):
        before = world.incidents.get(action.incident.service)
        return before is not None and replace(before, waits_for=action.incident.waits_for) == action.incident
    return False


def whatever_waits_is_woken(world: World, actions: list[Action], done: bool) -> None:
    """I4: a running operation never depends on luck to be looked at again."""
    if done and any(head.state in RUNNING for head in world.heads.values()):
        assert world.wake_at is not None
        assert world.wake_at > world.now


def guard(world: World) -> World:
    """``world`` with every invariant watched."""
    world.listeners.append(a_note_is_no_order)
    world.listeners.extend(_of_orders(invariant) for invariant in INVARIANTS)
    world.judges.extend((decisions_are_level_triggered, whatever_waits_is_woken))
    return world


def _of_orders(invariant: Listener) -> Listener:
    """``invariant``, asked of everything but notes."""

    def listener(world: World, action: Action) -> None:
        if not isinstance(action, SetDesired) or not world.is_note(action):
            invariant(world, action)

    return listener
