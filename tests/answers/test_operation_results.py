"""What operations came to: startup, shutdown, restart and recovery, from their steps."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from stack_at_a_moment import NOW, operation, seeing, spec, stack, step

from citadel_consul.core.answers.recovery import recovery_answer, recovery_reason, recovery_test_answer
from citadel_consul.core.answers.restart import restart_answer
from citadel_consul.core.answers.results import result_of
from citadel_consul.core.answers.shutdown import shutdown_answer
from citadel_consul.core.answers.startup import startup_answer
from citadel_consul.core.health import Status
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import Edge, OnRecovery
from citadel_consul.core.operation import Kind, OperationState, Options, Step, StepAction, StepState
from citadel_consul.core.snapshot import CheckStatus, Snapshot

START, STOP, NOTIFY = StepAction.START, StepAction.STOP, StepAction.NOTIFY
FAILED, SKIPPED = StepState.FAILED, StepState.SKIPPED
CHAIN = stack(
    spec("qdrant"),
    spec("embedding"),
    spec("gateway"),
    edges=(Edge("embedding", "qdrant", on_recovery=OnRecovery.RESTART), Edge("gateway", "embedding")),
)


def _words(steps: tuple[Step, ...], snapshot: Snapshot = CHAIN) -> dict[str, str]:
    results = startup_answer(snapshot, operation(Kind.STARTUP, *steps)).startup_result.execution_results
    return {result.service: result.status for result in results}


def test_a_startup_tells_what_each_service_took() -> None:
    told = startup_answer(
        CHAIN, operation(Kind.STARTUP, step("qdrant", START, 0, 45), step("embedding", START, 45, 85.5))
    ).startup_result
    assert [(r.service, r.status, r.time_seconds) for r in told.execution_results] == [
        ("qdrant", "started", 45.0),
        ("embedding", "started", 40.5),
    ]
    assert (told.total_services, told.total_startup_time_seconds, told.success_rate) == (2, 100.0, 100.0)
    assert [(e.order, e.services, e.parallel) for e in told.startup_sequence] == [
        (1, ("qdrant",), False),
        (2, ("embedding",), False),
    ]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((step("qdrant", START, None, 0),), {"qdrant": "already_running"}),
        ((step("qdrant", START, 0, 9, FAILED),), {"qdrant": "failed"}),
        ((step("qdrant", START, state=SKIPPED),), {"qdrant": "skipped"}),
        ((step("qdrant", START, 0, 9), step("qdrant", STOP, 9, 10, undo=True)), {"qdrant": "rolled_back"}),
        ((step("qdrant", START, 0, 9), step("qdrant", STOP, 9, 10, FAILED, undo=True)), {"qdrant": "started"}),
        ((step("qdrant", START, 0, 9), step("qdrant", START, 0, 9, FAILED, node="n2")), {"qdrant": "failed"}),
        ((step("qdrant", START, 0, 9), step("qdrant", START, None, 0, node="n2")), {"qdrant": "started"}),
        ((step("qdrant", START, state=StepState.WAITING),), {"qdrant": "waiting"}),
        ((step("qdrant", START, 0, state=StepState.RUNNING),), {"qdrant": "starting"}),
    ],
)
def test_the_word_for_what_became_of_a_service(steps: tuple[Step, ...], words: dict[str, str]) -> None:
    assert _words(steps) == words


def test_a_failed_startup_tells_who_failed_and_why() -> None:
    failed = operation(
        Kind.STARTUP,
        step("qdrant", START, 0, 3, FAILED, detail="exited with status 1"),
        step("embedding", START, state=SKIPPED, detail="needs qdrant"),
        step("gateway", START, None, 0),
        state=OperationState.FAILED,
        detail="start of qdrant@n1: exited with status 1",
    )
    told = startup_answer(CHAIN, failed).startup_result
    assert told.failed_services == ("qdrant",)
    assert told.success_rate == 33.3
    assert [r.detail for r in told.execution_results] == ["exited with status 1", "needs qdrant", ""]
    assert [r.time_seconds for r in told.execution_results] == [3.0, None, None]


def test_a_startup_of_nothing_has_no_success_rate() -> None:
    told = startup_answer(CHAIN, operation(Kind.STARTUP, state=OperationState.FAILED)).startup_result
    assert (told.total_services, told.success_rate) == (0, None)


@pytest.mark.parametrize(("seconds", "warned"), [(48.0, False), (48.5, True)])
def test_a_start_past_four_fifths_of_its_time_out_took_longer_than_expected(seconds: float, warned: bool) -> None:
    done = operation(Kind.STARTUP, step("qdrant", START, 0, seconds), warnings=("from the leader",))
    warnings = startup_answer(CHAIN, done).startup_result.warnings
    assert warnings[0] == "from the leader"
    assert [w.partition(":")[0] for w in warnings[1:]] == (["qdrant took longer than expected"] if warned else [])


def test_a_shutdown_tells_its_order_from_the_top() -> None:
    told = shutdown_answer(
        CHAIN,
        operation(
            Kind.SHUTDOWN,
            step("gateway", STOP, 0, 2),
            step("embedding", STOP, None, 2),
            step("qdrant", STOP, 2, 30),
            options=Options(cascade=True),
        ),
    ).shutdown_result
    assert [entry.services for entry in told.shutdown_sequence] == [("gateway",), ("embedding",), ("qdrant",)]
    assert [r.status for r in told.execution_results] == ["stopped", "not_running", "stopped"]
    assert (told.graceful, told.cascade, told.success_rate) == (True, True, 100.0)
    assert told.warnings == ("qdrant took longer than expected: 28 s of the 30 s it may take",)


def test_a_restart_tells_dependents_that_were_restarted_and_told() -> None:
    told = restart_answer(
        CHAIN,
        operation(
            Kind.RESTART,
            step("qdrant", STOP, 0, 1),
            step("qdrant", START, 1, 3),
            step("embedding", STOP, 3, 4),
            step("embedding", START, 4, 6),
            step("gateway", NOTIFY, 6, 6),
            targets=("qdrant",),
        ),
    ).restart_result
    assert [(r.service, r.status, r.time_seconds) for r in told.execution_results] == [
        ("qdrant", "restarted", 3.0),
        ("embedding", "restarted", 3.0),
        ("gateway", "notified", 0.0),
    ]
    assert told.affected_services == ("embedding", "gateway")
    assert told.dependent_services_restarted == 1


RECOVERED = (
    step("qdrant", STOP, 0, 15),
    step("qdrant", START, 20, 75, executed_at=NOW - 100 + 65),
    step("embedding", STOP, 75, 80),
    step("embedding", START, 80, 90),
    step("gateway", NOTIFY, 90, 90),
)


def _recovery(*steps: Step, **fields: object) -> list[tuple[str, float | None]]:
    told = recovery_answer(CHAIN, operation(Kind.RECOVER, *steps, targets=("qdrant",), **fields), NOW)  # type: ignore[arg-type]
    return [(found.status, found.time_seconds) for found in told.recovery_result.recovery_steps]


def test_the_steps_of_a_recovery_add_up_to_the_whole() -> None:
    assert _recovery(*RECOVERED) == [
        ("completed", 15.0),  # stopped
        ("completed", 5.0),  # allowed to start
        ("completed", 45.0),  # process started
        ("completed", 10.0),  # healthy
        ("completed", 25.0),  # dependents told, the operation ended
    ]


def test_a_recovery_tells_its_reason_its_blast_radius_and_how_the_service_is_now() -> None:
    done = operation(Kind.RECOVER, *RECOVERED, targets=("qdrant",), options=Options(reason="health_check_failure"))
    told = recovery_answer(CHAIN, done, NOW).recovery_result
    assert (told.service, told.recovery_reason) == ("qdrant", "health_check_failure")
    assert told.recovery_triggered == "2025-07-15T14:28:20Z"
    assert told.affected_services == ("embedding", "gateway")
    assert told.dependent_services_restarted == 1
    assert told.recovery_successful
    assert told.post_recovery_health is Status.HEALTHY
    assert told.total_recovery_time_seconds == 100.0


STOPPED = step("qdrant", STOP, 0, 9)
NOT_STARTED = step("qdrant", START, state=SKIPPED)


@pytest.mark.parametrize(
    ("steps", "marks"),
    [
        ((step("qdrant", STOP, 0, 9, FAILED), NOT_STARTED), "✘----"),
        ((STOPPED, NOT_STARTED), "✔✘---"),
        ((STOPPED, step("qdrant", START, 9, 20, FAILED)), "✔✔✘--"),
        ((STOPPED, step("qdrant", START, 9, 20, FAILED, executed_at=NOW - 90)), "✔✔✔✘-"),
        ((*RECOVERED[:3], step("embedding", START, 80, 99, FAILED)), "✔✔✔✔✘"),
        ((step("qdrant", STOP, None, 0), step("qdrant", START, 0, 9)), "✔✔✔✔✔"),
        ((), "✔✘---"),
    ],
)
def test_the_first_step_that_did_not_complete_failed(steps: tuple[Step, ...], marks: str) -> None:
    words = {"completed": "✔", "failed": "✘", "skipped": "-"}
    told = _recovery(*steps)
    assert "".join(words[word] for word, _ in told) == marks
    assert sum(seconds for _, seconds in told if seconds is not None) == pytest.approx(100.0)
    assert "".join("-" if seconds is None else "+" for _, seconds in told) == re.sub("[✔✘]", "+", marks)


def test_a_nodes_clock_that_is_ahead_makes_no_step_negative() -> None:
    ahead = replace(RECOVERED[1], executed_at=NOW + 500)
    told = _recovery(RECOVERED[0], ahead)
    assert all(seconds is not None and seconds >= 0 for _, seconds in told)
    assert sum(seconds or 0 for _, seconds in told) == pytest.approx(100.0)


def test_a_dependent_that_fails_afterwards_leaves_the_recovery_successful() -> None:
    steps = (*RECOVERED[:3], step("embedding", START, 80, 99, FAILED))
    done = operation(Kind.RECOVER, *steps, targets=("qdrant",), state=OperationState.FAILED)
    told = recovery_answer(CHAIN, done, NOW).recovery_result
    assert told.recovery_successful
    assert told.state is OperationState.FAILED
    assert told.dependent_services_restarted == 0


@pytest.mark.parametrize(
    ("observed", "check", "reason"),
    [
        (Observed(1, Phase.FAILED, NOW), None, "start_failure"),
        (Observed(1, Phase.EXITED, NOW), None, "process_exit"),
        (Observed(1, Phase.READY, NOW), CheckStatus.CRITICAL, "health_check_failure"),
        (Observed(1, Phase.STARTING, NOW - 900, started_at=NOW - 900), None, "start_timeout"),
        (Observed(1, Phase.STARTING, NOW, started_at=NOW), None, "requested"),
        (Observed(1, Phase.READY, NOW), CheckStatus.WARNING, "requested"),
    ],
)
def test_the_reason_of_a_recovery_is_what_is_plain_to_see(
    observed: Observed, check: CheckStatus | None, reason: str
) -> None:
    snapshot = seeing(CHAIN, "qdrant", observed, next(iter(CHAIN.desired.values())), check)
    assert recovery_reason(snapshot, "qdrant", NOW) == reason


def test_a_test_of_recovery_tells_what_would_be_done() -> None:
    broken = seeing(CHAIN, "qdrant", Observed(1, Phase.EXITED, NOW), next(iter(CHAIN.desired.values())))
    qdrant, gateway = recovery_test_answer(broken, NOW, ["qdrant", "gateway"]).recovery_test.recoveries
    assert (qdrant.needed, qdrant.recovery_reason, qdrant.refusal) == (True, "process_exit", None)
    assert [(s.action, s.service) for s in qdrant.planned_steps] == [
        (STOP, "qdrant"),
        (START, "qdrant"),
        (STOP, "embedding"),
        (START, "embedding"),
        (NOTIFY, "gateway"),
    ]
    assert {s.status for s in qdrant.recovery_steps} == {"planned"}
    assert (qdrant.dependent_services_restarted, qdrant.dependents_notified) == (1, 1)
    assert (gateway.needed, gateway.affected_services) == (False, ())
    assert recovery_test_answer(broken, NOW, ["nix"]).recovery_test.recoveries[0].refusal == "unknown service 'nix'"


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_operation_has_a_result(kind: Kind) -> None:
    answer = result_of(CHAIN, operation(kind, targets=("qdrant",)), NOW)
    name = "recovery_result" if kind is Kind.RECOVER else f"{kind}_result"
    assert getattr(answer, name).operation_id
