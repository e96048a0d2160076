"""The state machines: every pair of states, legal or not, written out once more by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from enum import StrEnum

import pytest

from citadel_consul.core.lifecycle import ALIVE, IllegalTransitionError, Observed, Phase, check_transition
from citadel_consul.core.operation import (
    ENDED,
    STEP_ENDED,
    Kind,
    Operation,
    OperationState,
    Step,
    StepAction,
    StepState,
    check_operation_transition,
    check_step_transition,
)

PHASES = """
stopped    -> starting failed
starting   -> ready exited completed failed stopping
ready      -> exited completed stopping draining
draining   -> ready exited completed stopping
stopping   -> stopped
exited     -> starting stopped failed
completed  -> starting stopped failed
failed     -> starting stopped
"""
OPERATIONS = """
pending      -> running succeeded failed cancelled
running      -> rolling_back succeeded failed cancelled
rolling_back -> failed cancelled
succeeded    ->
failed       ->
cancelled    ->
"""
STEPS = """
waiting   -> running succeeded failed skipped
running   -> succeeded failed skipped
succeeded ->
failed    ->
skipped   ->
"""


def table(text: str) -> Mapping[str, set[str]]:
    rows = (line.split("->") for line in text.strip().splitlines())
    return {before.strip(): set(after.split()) for before, after in rows}


def pairs(states: type[StrEnum], text: str) -> list[tuple[StrEnum, StrEnum, bool]]:
    """Each pair of states, and whether the table has it; staying is always allowed."""
    rows = table(text)
    return [(a, b, a is b or str(b) in rows[str(a)]) for a, b in itertools.product(states, states)]


def hold_against(check: Callable[[], None], *, legal: bool) -> None:
    if legal:
        check()
    else:
        with pytest.raises(IllegalTransitionError):
            check()


@pytest.mark.parametrize(("before", "after", "legal"), pairs(Phase, PHASES))
def test_each_change_of_phase_is_legal_or_raises(before: Phase, after: Phase, legal: bool) -> None:
    hold_against(lambda: check_transition(before, after), legal=legal)


@pytest.mark.parametrize(("before", "after", "legal"), pairs(OperationState, OPERATIONS))
def test_each_change_of_an_operation_is_legal_or_raises(
    before: OperationState, after: OperationState, legal: bool
) -> None:
    hold_against(lambda: check_operation_transition(before, after), legal=legal)


@pytest.mark.parametrize(("before", "after", "legal"), pairs(StepState, STEPS))
def test_each_change_of_a_step_is_legal_or_raises(before: StepState, after: StepState, legal: bool) -> None:
    hold_against(lambda: check_step_transition(before, after), legal=legal)


def test_an_illegal_change_names_both_states() -> None:
    with pytest.raises(IllegalTransitionError, match=r"^operation succeeded → running$"):
        check_operation_transition(OperationState.SUCCEEDED, OperationState.RUNNING)


@pytest.mark.parametrize("state", list(OperationState))
def test_an_operation_has_ended_when_no_state_may_follow(state: OperationState) -> None:
    ended = not table(OPERATIONS)[str(state)]
    assert Operation("1", Kind.STARTUP, ("all",), state=state).ended is ended is (state in ENDED)


@pytest.mark.parametrize("state", list(StepState))
def test_a_step_has_ended_when_no_state_may_follow(state: StepState) -> None:
    ended = not table(STEPS)[str(state)]
    assert Step("a", "n1", StepAction.START, state).ended is ended is (state in STEP_ENDED)


@pytest.mark.parametrize("phase", list(Phase))
def test_something_runs_in_the_phases_that_are_alive(phase: Phase) -> None:
    runs = phase in (Phase.STARTING, Phase.READY, Phase.DRAINING, Phase.STOPPING)
    assert Observed(1, phase, 0.0).alive is runs is (phase in ALIVE)


def test_the_scope_of_an_operation_is_the_services_of_its_steps() -> None:
    steps = tuple(Step(s, n, StepAction.START) for s, n in (("a", "n1"), ("a", "n2"), ("b", "n1")))
    assert Operation("1", Kind.STARTUP, ("all",), steps=steps).scope == {"a", "b"}
