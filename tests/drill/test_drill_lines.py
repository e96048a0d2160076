"""The lines of a drill: those of a good one word for word, and the right one for each planted fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from drill_evidence import (
    API,
    CACHE,
    DB,
    EDGES,
    GRAPH,
    LAYOUT,
    ORDER,
    REPORT,
    SPECS,
    WEB,
    Evidence,
    operation,
    starts,
    step,
    stops,
)  # fmt: skip

from citadel_consul.cli.drilling.data import Kept
from citadel_consul.cli.drilling.monitoring import Degradation
from citadel_consul.cli.drilling.sequence import Layout
from citadel_consul.cli.drilling.verdict import Line, Result, assessment, assessment_text, heading, phase_text
from citadel_consul.core.health import Status
from citadel_consul.core.model import Edge, OnRecovery, ProcessBackend
from citadel_consul.core.operation import Kind, OperationState, StepAction, StepState

GOOD = """
Orchestration Full Cycle Test Results:
=====================================

Test Phase 1: Service Discovery
✅ All services registered successfully (5 of 5)
✅ Dependency graph resolved correctly (4 edges, 3 levels)
✅ Health endpoints validated (5 of 5 answered)

Test Phase 2: Startup Coordination
✅ Services started in correct order (5 starts, 4 edges)
✅ Dependency resolution working (started at most 2500 ms after the last dependency)
✅ Total startup time: 2.5 seconds (target: <300s)
✅ All critical services healthy (4 of 4)

Test Phase 3: Health Monitoring
✅ Health checks operational for all services (5 checks, 5 instances)
✅ Health status reporting accurate (5 of 5 agree with Consul)
✅ Degraded service detection working (report, noticed after 12 ms)

Test Phase 4: Recovery Testing
✅ Simulated service failure (db) (SIGKILL for process 4711, reported after 4 ms)
✅ Automatic recovery triggered (new process after 18 ms)
✅ Service restored successfully (serving again after 1.2 s)
✅ Dependent services notified (2 of 2)

Test Phase 5: Shutdown Coordination
✅ Graceful shutdown initiated (5 instances)
✅ Services stopped in reverse dependency order (5 stops, 4 edges)
✅ No data loss detected (2 of 2 found again)
✅ Clean shutdown completed (0.8 s, no process left, nothing registered)

Overall Assessment:
✅ Service orchestration fully operational
✅ All coordination mechanisms working
✅ Recovery mechanisms functional
✅ Performance meets requirements
✅ System ready for production use
"""


def lines_of(evidence: Evidence) -> dict[str, Line]:
    return {line.text: line for phase in evidence.report().phases for line in phase.lines}


def failures_of(evidence: Evidence) -> dict[str, str]:
    """The lines that failed, each with its reason."""
    return {text: line.reason for text, line in lines_of(evidence).items() if line.result is Result.FAILED}


def test_a_drill_in_which_all_goes_well_reads_as_the_site_wrote_it() -> None:
    report = Evidence().report()
    texts = [*heading(), *(text for phase in report.phases for text in phase_text(phase)), *assessment_text(report)]
    assert "\n".join(texts) == GOOD.strip()
    assert not report.failed


def ignores_its_stop_signal(good: Evidence) -> None:
    good.stopped = replace(good.stopped, forced=(API,))


def ignores_another_stop_signal(good: Evidence) -> None:
    specs = {**SPECS, "db": replace(SPECS["db"], backend=ProcessBackend(("x",), stop_signal="SIGINT"))}
    good.stopped = replace(good.stopped, forced=(DB,), layout=Layout(specs, EDGES))


def started_too_early(good: Evidence) -> None:
    good.started = replace(good.started, history=starts(DB, API, CACHE, REPORT, WEB))


def stopped_under_a_dependent(good: Evidence) -> None:
    good.stopped = replace(good.stopped, history=stops(WEB, REPORT, DB, API, CACHE))


def edge_removed_behind_its_back(good: Evidence) -> None:
    """The graph in force lacks an edge that the KV store has."""
    good.discovered = replace(good.discovered, graph=replace(GRAPH, edges=EDGES[1:]))


def recovery_switched_off(good: Evidence) -> None:
    assert good.recovered is not None
    why = "its incident is open: automatic recovery is switched off for it"
    good.recovered = replace(good.recovered, operation=None, triggered_seconds=None, restored_seconds=None, why_not=why)


def data_lost(good: Evidence) -> None:
    good.stopped = replace(good.stopped, kept=Kept(2, ("datum 1 of 2 is gone: GET http://h/1: HTTP 404",)))


def nothing_could_be_written(good: Evidence) -> None:
    good.stopped = replace(good.stopped, kept=Kept(0, ("nothing could be written: POST http://h: HTTP 503",)))


def not_registered(good: Evidence) -> None:
    good.discovered = replace(good.discovered, registered={i: "passing" for i in ORDER if i != WEB})


def registered_and_critical(good: Evidence) -> None:
    good.discovered = replace(good.discovered, registered={**good.discovered.registered, WEB: "critical"})


def wrong_health_endpoint(good: Evidence) -> None:
    probes = {**good.discovered.probes, "api http://127.0.0.1:2/healthz": "HTTP 404"}
    good.discovered = replace(good.discovered, probes=probes)


def dependent_never_told(good: Evidence) -> None:
    assert good.recovered is not None
    assert good.recovered.operation is not None
    steps = good.recovered.operation.steps[:-1]
    good.recovered = replace(good.recovered, operation=replace(good.recovered.operation, steps=steps))


def dependent_not_restarted(good: Evidence) -> None:
    assert good.recovered is not None
    steps = (step(DB, StepAction.START), step(API, StepAction.START, StepState.FAILED), step(REPORT, StepAction.NOTIFY))
    good.recovered = replace(good.recovered, operation=operation(Kind.RECOVER, *steps))


def orphan_left(good: Evidence) -> None:
    good.stopped = replace(good.stopped, left=("api: process 99 (sleep)",))


def still_registered(good: Evidence) -> None:
    good.stopped = replace(good.stopped, registered=("shop.api.n1",))


def startup_over_target(good: Evidence) -> None:
    good.target_seconds = 2.0


def degraded_not_noticed(good: Evidence) -> None:
    good.monitored = replace(good.monitored, degradation=Degradation(REPORT, None, None))


def degraded_for_ever(good: Evidence) -> None:
    good.monitored = replace(good.monitored, degradation=Degradation(REPORT, 0.01, None))


def reports_what_is_not_so(good: Evidence) -> None:
    good.monitored = replace(good.monitored, witnessed={**good.monitored.witnessed, "api": Status.UNHEALTHY})


def has_no_check(good: Evidence) -> None:
    good.monitored = replace(good.monitored, checks={**good.monitored.checks, CACHE: ()})


def lacks_a_check(good: Evidence) -> None:
    good.monitored = replace(good.monitored, wanted={**good.monitored.wanted, API: 2})


def failed_to_start(good: Evidence) -> None:
    steps = [step(i, StepAction.START) for i in ORDER if i != REPORT]
    steps.append(step(REPORT, StepAction.START, StepState.FAILED, "exited with status 1"))
    failed = replace(operation(Kind.STARTUP, *steps, state=OperationState.FAILED), detail="report")
    good.started = replace(good.started, operation=failed)


def critical_and_unhealthy(good: Evidence) -> None:
    good.started = replace(good.started, statuses={**good.started.statuses, "db": Status.DEGRADED})


def unseen_by_consul(good: Evidence) -> None:
    good.started = replace(good.started, unfit=frozenset({DB}))


def end_not_noticed(good: Evidence) -> None:
    assert good.recovered is not None
    good.recovered = replace(good.recovered, seen_dead_seconds=None)


def not_restored(good: Evidence) -> None:
    assert good.recovered is not None
    good.recovered = replace(good.recovered, restored_seconds=None)


def shutdown_not_begun(good: Evidence) -> None:
    refused = replace(good.stopped.operation, started_at=None, state=OperationState.FAILED, detail="no leader")
    good.stopped = replace(good.stopped, operation=refused)


ORDER_LINE = "Services started in correct order"
REVERSE_LINE = "Services stopped in reverse dependency order"
CLEAN_LINE = "Clean shutdown completed"
DATA_LINE = "No data loss detected"
FAULTS: list[tuple[Callable[[Evidence], None], dict[str, str]]] = [
    (ignores_its_stop_signal, {CLEAN_LINE: "api@n1 did not end on SIGTERM and was killed"}),
    (ignores_another_stop_signal, {CLEAN_LINE: "db@n1 did not end on SIGINT and was killed"}),
    (started_too_early, {ORDER_LINE: "api@n1 was started before cache was healthy"}),
    (stopped_under_a_dependent, {REVERSE_LINE: "db@n1 was stopped while api@n1 ran"}),
    (edge_removed_behind_its_back, {"Dependency graph resolved correctly": "api → db is in the KV store and not in"}),
    (
        recovery_switched_off,
        {
            "Automatic recovery triggered": "automatic recovery is switched off for it",
            "Service restored successfully": "db@n1 does not serve again",
            "Dependent services notified": "api@n1 was not restarted; report@n1 was not told",
        },
    ),
    (data_lost, {DATA_LINE: "datum 1 of 2 is gone"}),
    (nothing_could_be_written, {DATA_LINE: "nothing could be written"}),
    (not_registered, {"All services registered successfully": "web@n1 is not registered"}),
    (registered_and_critical, {"All services registered successfully": "its checks are critical"}),
    (wrong_health_endpoint, {"Health endpoints validated": "api http://127.0.0.1:2/healthz: HTTP 404"}),
    (dependent_never_told, {"Dependent services notified": "report@n1 was not told"}),
    (dependent_not_restarted, {"Dependent services notified": "api@n1 was not restarted"}),
    (orphan_left, {CLEAN_LINE: "api: process 99 (sleep) is left"}),
    (still_registered, {CLEAN_LINE: "shop.api.n1 is still registered"}),
    (startup_over_target, {"Total startup time: 2.5 seconds (target: <2s)": "0.5 s too long"}),
    (degraded_not_noticed, {"Degraded service detection working": "was not called degraded"}),
    (degraded_for_ever, {"Degraded service detection working": "is still called degraded"}),
    (reports_what_is_not_so, {"Health status reporting accurate": "api is reported as healthy, and is unhealthy"}),
    (has_no_check, {"Health checks operational for all services": "cache@n1 has no check"}),
    (lacks_a_check, {"Health checks operational for all services": "api@n1 has 1 of its 2 checks"}),
    (
        failed_to_start,
        {
            "Dependency resolution working": "report@n1 failed: exited with status 1",
            "Total startup time: 2.5 seconds (target: <300s)": "it did not succeed",
        },
    ),
    (critical_and_unhealthy, {"All critical services healthy": "db is degraded"}),
    (unseen_by_consul, {"All critical services healthy": "Consul does not show db@n1 as passing"}),
    (end_not_noticed, {"Simulated service failure (db)": "was not reported within"}),
    (not_restored, {"Service restored successfully": "db@n1 does not serve again"}),
    (
        shutdown_not_begun,
        {"Graceful shutdown initiated": "the shutdown was not begun: no leader", CLEAN_LINE: "the shutdown failed"},
    ),
]


@pytest.mark.parametrize(("plant", "expected"), FAULTS, ids=[plant.__name__ for plant, _ in FAULTS])
def test_a_planted_fault_fails_its_own_lines_and_no_others(
    plant: Callable[[Evidence], None], expected: dict[str, str]
) -> None:
    evidence = Evidence()
    plant(evidence)
    found = failures_of(evidence)
    assert found.keys() == expected.keys()
    for text, reason in expected.items():
        assert reason in found[text]
    report = evidence.report()
    assert report.failed
    assert assessment(report.phases)[-1].result is Result.FAILED


def test_every_line_of_a_drill_can_fail() -> None:
    failing: set[str] = set()
    for plant, _ in FAULTS:
        evidence = Evidence()
        plant(evidence)
        failing |= {text.partition(":")[0] for text in failures_of(evidence)}
    assert failing == {text.partition(":")[0] for text in lines_of(Evidence())}


def test_a_line_names_some_reasons_and_counts_the_rest() -> None:
    good = Evidence()
    good.discovered = replace(good.discovered, registered={})
    reason = failures_of(good)["All services registered successfully"]
    assert reason.count("is not registered") == 4
    assert reason.endswith("and 1 more")


def test_a_dependent_that_died_with_the_victim_and_was_started_again_needs_no_telling() -> None:
    good = Evidence()
    dependent_not_restarted(good)
    assert good.recovered is not None
    good.recovered = replace(good.recovered, renewed=frozenset({API, DB}))
    assert failures_of(good) == {}


# --- what cannot be checked is neither good nor bad -------------------------------------------------------------


def test_without_data_nothing_is_claimed_of_it() -> None:
    good = Evidence()
    good.stopped = replace(good.stopped, kept=None, why_no_data="no drill.yaml")
    line = lines_of(good)["No data loss detected"]
    assert str(line) == "➖ No data loss detected: no drill.yaml"
    report = good.report()
    assert not report.failed
    results = [(line.text, line.result) for line in assessment(report.phases)]
    assert results == [
        ("Service orchestration fully operational", Result.PASSED),
        ("All coordination mechanisms working", Result.NOT_CHECKED),
        ("Recovery mechanisms functional", Result.PASSED),
        ("Performance meets requirements", Result.PASSED),
        ("System ready for production use", Result.NOT_CHECKED),
    ]


def test_without_a_process_here_that_may_be_killed_recovery_is_not_checked() -> None:
    good = Evidence()
    good.recovered = None
    report = good.report()
    assert {line.result for line in report.phases[3].lines} == {Result.NOT_CHECKED}
    assert not report.failed


def test_a_victim_on_which_nobody_depends_leaves_nobody_to_be_told() -> None:
    good = Evidence()
    assert good.recovered is not None
    edges = tuple(replace(edge, on_recovery=OnRecovery.NONE) for edge in good.recovered.edges)
    good.recovered = replace(good.recovered, edges=edges)
    assert lines_of(good)["Dependent services notified"].result is Result.NOT_CHECKED


def test_endpoints_of_other_machines_are_counted_and_not_claimed() -> None:
    good = Evidence()
    good.discovered = replace(good.discovered, probes={}, elsewhere=5)
    assert lines_of(good)["Health endpoints validated"].result is Result.NOT_CHECKED
    good.stopped = replace(good.stopped, watched=3)
    assert "2 not seen from here" in lines_of(good)["Clean shutdown completed"].figure


def test_phases_that_were_not_run_leave_their_part_of_the_assessment_open() -> None:
    phases = [phase for phase in Evidence().report().phases if phase.number in (2, 4)]
    by_text = {line.text: line for line in assessment(phases)}
    assert by_text["Recovery mechanisms functional"].result is Result.PASSED
    assert by_text["Performance meets requirements"].result is Result.PASSED
    assert by_text["All coordination mechanisms working"].reason == "phase 5 was not run"
    assert by_text["System ready for production use"].result is Result.NOT_CHECKED


def test_a_stack_that_is_not_left_as_it_was_found_fails_the_drill() -> None:
    report = replace(Evidence().report(), trouble="startup failed: db")
    assert report.failed
    assert list(assessment_text(report))[-1] == "❌ The stack is not as it was found: startup failed: db"


def test_an_edge_that_the_start_order_does_not_obey_is_found_without_the_graph_saying_so() -> None:
    good = Evidence()
    backwards = (*EDGES, Edge("db", "web"))
    good.discovered = replace(good.discovered, edges=backwards, graph=replace(GRAPH, edges=backwards))
    assert "db would be started before web" in failures_of(good)["Dependency graph resolved correctly"]
    assert LAYOUT.edges == EDGES
