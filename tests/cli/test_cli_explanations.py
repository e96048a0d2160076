"""Why a service does not run, from moments made of data: the outermost reason is the answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from moments import NOW, moment

from citadel_consul.cli.explaining import Case, Explanation, explain_service
from citadel_consul.core.incident import STACK, Incident, IncidentState
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Instance
from citadel_consul.core.operation import Kind, Operation, OperationState, Step, StepAction, StepState
from citadel_consul.core.snapshot import Hold, Snapshot

CHAIN = (("middle", "base"), ("top", "middle"))
STOPPED: dict[str, Phase | None] = dict.fromkeys(("base", "middle", "top"), Phase.STOPPED)


def explain(
    snapshot: Snapshot, service: str = "top", *, led: bool = True, ended: tuple[Operation, ...] = ()
) -> Explanation:
    return explain_service(Case(snapshot, service, NOW, led, {}, ended))


def startup(*steps: Step, **fields: object) -> Operation:
    """A running startup of the whole stack that began ten seconds ago."""
    made = Operation(
        "op1", Kind.STARTUP, ("all",), requested_by="alice", state=OperationState.RUNNING,
        requested_at=NOW - 10.0, started_at=NOW - 10.0, step_count=len(steps), steps=steps,
    )  # fmt: skip
    return replace(made, **fields)  # type: ignore[arg-type]


def start(
    service: str, state: StepState, began: float | None = None, ended: float | None = None, detail: str = ""
) -> Step:
    return Step(service, "n1", StepAction.START, state, generation=1, began_at=began, ended_at=ended, detail=detail)


def test_what_runs_needs_no_reason() -> None:
    told = explain(moment({"top": Phase.READY}))
    assert (told.status, told.why, told.when, told.do) == ("healthy", "it runs, and nothing says otherwise", "", "")


def test_without_a_leader_no_other_reason_matters() -> None:
    told = explain(moment(STOPPED, CHAIN, agents=frozenset()), led=False)
    assert told.why == "no orchestrator leads, so nothing is started or stopped"
    assert told.do == "start one: citadel orchestrator"


def test_an_operation_that_waits_for_another_one_is_the_reason() -> None:
    waiting = startup(state=OperationState.PENDING, started_at=None, waits_for="op0")
    told = explain(moment(STOPPED, CHAIN, operations=(waiting,)))
    assert told.why == "startup op1 has not begun: it waits for operation op0"
    assert (told.operation, told.do) == ("op1", "citadel ops show op0")


def test_a_waiting_step_says_what_it_waits_for_and_when_that_will_be() -> None:
    """Going by the last starts: base has 5 s of 8 s left, then middle 2 s and top 1 s."""
    operation = startup(
        start("base", StepState.RUNNING, NOW - 3.0),
        start("middle", StepState.WAITING, detail="waits for base to be healthy"),
        start("top", StepState.WAITING, detail="waits for middle to be healthy"),
    )
    before = startup(
        start("base", StepState.SUCCEEDED, 100.0, 108.0),
        start("middle", StepState.SUCCEEDED, 108.0, 110.0),
        start("top", StepState.SUCCEEDED, 110.0, 111.0),
        state=OperationState.SUCCEEDED,
    )
    snapshot = _never_measured(moment({**STOPPED, "base": Phase.STARTING}, CHAIN, operations=(operation,)))
    told = explain(snapshot, ended=(before,))
    assert told.why == "startup op1: waits for middle to be healthy"
    assert told.when == "in about 8.0 s, going by the last starts; given up in 4 min 50 s at the latest"
    assert told.do == "citadel ops show op1 --follow"
    assert told.chain == (
        "top needs middle to be healthy, and it is stopped",
        "middle needs base to be healthy, and it is starting",
    )


def test_without_a_start_to_go_by_there_is_no_estimate() -> None:
    operation = startup(start("base", StepState.RUNNING, NOW - 3.0), start("top", StepState.WAITING))
    told = explain(_never_measured(moment({**STOPPED, "base": Phase.STARTING}, CHAIN, operations=(operation,))))
    assert told.when == "given up in 4 min 50 s at the latest; no estimate, since base has not been started before"


def test_a_start_under_way_says_how_long_it_takes_and_may_take() -> None:
    operation = startup(start("base", StepState.RUNNING, NOW - 3.0))
    told = explain(moment({**STOPPED, "base": Phase.STARTING}, CHAIN, operations=(operation,)), "base")
    assert told.why == "it has been starting for 3.0 s, and may take 1 min"


def test_a_node_without_an_agent_is_the_reason() -> None:
    told = explain(moment({"top": None}, agents=frozenset({"n2"})))
    assert told.why == "no node agent runs on n1, so nobody can start it or see it"
    assert told.do == "citadel agent --node n1, on that node"


def test_what_ended_says_how_and_where_to_look() -> None:
    told = explain(moment({"top": Phase.EXITED}, details={"top": "exit status 1"}))
    assert (told.why, told.do) == ("exit status 1", "citadel logs top; citadel recover top")


def test_a_hold_is_the_reason_why_nothing_is_done_about_it() -> None:
    hold = Hold("service", "top", "carol", "migration")
    details = {"top": "killed by SIGKILL"}
    told = explain(moment({"top": Phase.EXITED}, details=details, holds=(hold,)))
    assert (told.status, told.why) == ("held", "killed by SIGKILL; held by carol: migration")
    assert (told.when, told.do) == ("when the hold is taken back", "citadel unhold top")
    told = explain(moment({"top": Phase.EXITED}, details=details, holds=(replace(hold, until=NOW + 60.0),)))
    assert told.when == "when the hold ends, at 2025-07-15T14:31:00Z"


def test_a_recovery_that_is_frozen_is_the_reason_why_nothing_is_done_about_it() -> None:
    stack = Incident("i1", STACK, IncidentState.OPEN, opened_at=NOW, cause="mass_failure")
    told = explain(replace(moment({"top": Phase.EXITED}), incidents={STACK: stack}))
    assert told.when == "recovery is frozen, since too much failed at once: see citadel status"
    assert told.do == "citadel logs top; citadel recover top; citadel recover all goes on with everything"


def test_a_start_that_takes_longer_than_the_last_one_says_so() -> None:
    operation = startup(start("base", StepState.RUNNING, NOW - 30.0))
    before = startup(start("base", StepState.SUCCEEDED, 100.0, 108.0), state=OperationState.SUCCEEDED)
    snapshot = _never_measured(moment({"base": Phase.STARTING}, operations=(operation,)))
    told = explain(snapshot, "base", ended=(before,))
    assert told.when.startswith("it takes longer than the last time; given up in ")


def test_what_a_dependency_keeps_down_is_mended_at_the_dependency() -> None:
    told = explain(moment({**STOPPED, "base": Phase.EXITED}, CHAIN, details={"base": "exit status 9"}))
    assert told.chain[-1] == "middle needs base to be healthy, and it is unhealthy (exit status 9)"
    assert told.do == "mend base first: citadel explain base"


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ((start("top", StepState.SKIPPED, detail="needs middle"),), "startup op1 skipped its start: needs middle"),
        ((start("top", StepState.FAILED, detail="exit status 1"),), "startup op1 could not start it: exit status 1"),
        (
            (start("top", StepState.SUCCEEDED), Step("top", "n1", StepAction.STOP, StepState.SUCCEEDED, undo=True)),
            "startup op1 stopped it (alice asked for it)",
        ),
        ((start("base", StepState.SUCCEEDED),), "nobody has asked for it"),
        ((), "nobody has asked for it"),
    ],
)
def test_what_is_not_wanted_is_explained_by_the_last_operation_on_it(steps: tuple[Step, ...], why: str) -> None:
    told = explain(moment({"top": Phase.STOPPED}), ended=(startup(*steps, state=OperationState.FAILED),))
    assert (told.why, told.do, told.when) == (why, "citadel up top", "")


def test_what_is_still_wanted_is_said_to_come_back_by_itself() -> None:
    told = explain(moment({"top": Phase.STOPPED}, wanted=frozenset({"top"})))
    assert told.when == "as soon as what it needs is back: it is still wanted"


def _never_measured(snapshot: Snapshot) -> Snapshot:
    """As if no node agent remembered how long any start took."""
    observed = {i: replace(o, ready_at=None) for i, o in snapshot.observed.items()}
    assert all(isinstance(instance, Instance) for instance in observed)
    return replace(snapshot, observed=observed)
