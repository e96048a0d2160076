"""The screens, from moments made of data: what is wrong comes first, and everything fits."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import click
import pytest
from moments import NOW, look_at, moment

from citadel_consul.cli.ailments import ailments
from citadel_consul.cli.healthscreen import health_lines
from citadel_consul.cli.looking import Look
from citadel_consul.cli.screen import Line, Piece, columns, draw
from citadel_consul.cli.spans import clock, span
from citadel_consul.cli.statusscreen import MOST_SERVICES, status_lines
from citadel_consul.core.incident import STACK, Incident, IncidentState
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.measurement import CheckCounts, Measured, Measurement, NodeMeasurements
from citadel_consul.core.model import Edge, Instance, Strength
from citadel_consul.core.operation import Kind, Operation, OperationState, Step, StepAction, StepState
from citadel_consul.core.snapshot import CheckStatus, Fault, Hold, Snapshot

READY, STOPPED, EXITED, FAILED, STARTING = Phase.READY, Phase.STOPPED, Phase.EXITED, Phase.FAILED, Phase.STARTING
CHAIN = (("middle", "base"), ("top", "middle"))


def screen(look: Look, width: int | None = None) -> str:
    return click.unstyle("\n".join(draw(status_lines(look), width)))


# --- spans and lines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1.0, "0.0 s"), (0.04, "0.0 s"), (1.26, "1.3 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"),
        (59.6, "1 min"), (61.0, "1 min 1 s"), (3600.0, "1 h"), (7_500.0, "2 h 5 min"), (86_400.0 + 59.0, "1 d"),
        (10 * 86_400.0 + 7_200.0, "10 d 2 h"),
    ],
)  # fmt: skip
def test_spans_are_told_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_moment_is_told_in_utc_to_the_second() -> None:
    assert clock(NOW) == "2025-07-15T14:30:00Z"
    assert clock(None) == ""


def test_a_long_text_is_folded_under_its_beginning() -> None:
    drawn = Line((Piece("  name  "),), "one two three four five six seven eight").fold(40)
    assert drawn == ["  name  one two three four five six", "        seven eight"]


def test_nothing_is_folded_where_nobody_has_a_width() -> None:
    assert Line((Piece("a "),), "word " * 100).fold(None) == ["a " + "word " * 100]


def test_columns_are_as_wide_as_their_widest_cell_and_end_without_blanks() -> None:
    rows = [(Piece("a"), Piece("bb")), (Piece("aaa"), Piece("b"))]
    assert draw(columns(rows), None) == ["  a    bb", "  aaa  b"]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_screen_keeps_to_the_width_of_the_terminal(width: int) -> None:
    text = screen(_everything_wrong(), width)
    assert max(len(line) for line in text.splitlines()) <= width + 20, "names are not cut, only texts are folded"
    assert all(len(line) <= width for line in text.splitlines() if line.startswith("  leader"))


# --- what is wrong comes first --------------------------------------------------------------------------------------


def _everything_wrong() -> Look:
    operation = Operation(
        "20250715T143000000000-aaaa", Kind.STARTUP, ("all",), requested_by="alice@ops", state=OperationState.RUNNING,
        requested_at=NOW - 9.0, started_at=NOW - 8.0, step_count=2,
        steps=(
            Step("base", "n1", StepAction.START, StepState.SUCCEEDED, began_at=NOW - 8.0, ended_at=NOW - 7.0),
            Step("top", "n1", StepAction.START, detail="waits for middle to be healthy"),
        ),
    )  # fmt: skip
    waiting = Operation(
        "20250715T143001000000-bbbb", Kind.SHUTDOWN, ("base",), requested_by="bob@ops", requested_at=NOW - 1.0,
        waits_for=operation.id,
    )  # fmt: skip
    snapshot = moment(
        {"base": READY, "middle": EXITED, "top": EXITED, "far": READY, "aside": READY},
        [*CHAIN, Edge("base", "top")],
        nodes={"far": ("n2",)},
        details={"middle": "killed by SIGKILL", "top": "exit status 1"},
        checks={"aside": CheckStatus.WARNING},
        operations=(operation, waiting),
        holds=(Hold("service", "aside", "carol", "migration", NOW + 60.0), Hold("node", "n9", until=NOW - 1.0)),
        not_critical=frozenset({"aside"}),
    )
    snapshot = replace(snapshot, faults=(Fault("citadel/shop/edges/a/b", "is not JSON"),))
    outputs = {Instance("aside", "n1"): ("check http is warning: HTTP GET http://x/health: 429 Too Many Requests",)}
    return look_at(snapshot, leadership=None, outputs=outputs)


def test_the_screen_of_a_stack_where_everything_is_wrong() -> None:
    assert screen(_everything_wrong()).splitlines() == [
        "shop  unhealthy  1 of 5 services healthy (1 degraded, 2 unhealthy, 1 unknown)   2025-07-15T14:30:00Z",
        "",
        "WRONG",
        "  ✘ no orchestrator leads: nothing is started or stopped",
        "  ✘ middle  unhealthy  killed by SIGKILL",
        "                       needed by top",
        "  ✘ far     unknown    no node agent runs on n2",
        "  ! aside   degraded   check http is warning: HTTP GET http://x/health: 429 Too Many Requests",
        "  ✘ top     unhealthy  exit status 1",
        "                       needs middle: mend that first",
        "  ! key citadel/shop/edges/a/b  is not JSON",
        "    it does no harm as it is; mend it, or: consul kv delete citadel/shop/edges/a/b",
        "  ! edge base → top  is not in force: makes a cycle: base → top → middle → base",
        "    citadel deps remove base top",
        "  ! node n2  no node agent runs on it: its services cannot be started, stopped or seen",
        "    citadel agent --node n2, on that node",
        "",
        "UNDER WAY",
        "  startup running  all, asked for by alice@ops; 1 of 2 steps in 8.0 s   20250715T143000000000-aaaa",
        "    start top@n1: waits for middle to be healthy",
        "  shutdown pending  base, asked for by bob@ops 1.0 s ago   20250715T143001000000-bbbb",
        "    waits for operation 20250715T143000000000-aaaa",
        "",
        "HELD (no automatic action)",
        "  service aside  by carol: migration, until 2025-07-15T14:31:00Z",
        "",
        "SERVICES",
        "  service  status     instances  up for",
        "  base     healthy    n1         1 min",
        "  middle   unhealthy  n1",
        "  top      unhealthy  n1",
        "  far      unknown    n2",
        "  aside    degraded   n1         1 min",
        "",
        "CONTROL",
        "  standbys  o2:8000",
        "  agents    n1",
    ]


def test_causes_come_before_what_suffers_from_them() -> None:
    snapshot = moment({"top": EXITED, "base": EXITED, "middle": EXITED, "alone": FAILED}, CHAIN)
    found = ailments(snapshot, {}, NOW)
    assert [a.service for a in found][:2] in (["base", "alone"], ["alone", "base"])
    assert {a.service: a.suffers_from for a in found} == {
        "base": (), "alone": (), "middle": ("base",), "top": ("middle",),
    }  # fmt: skip
    assert {a.service: a.endangers for a in found}["base"] == ("top", "middle")


def test_a_dependency_that_is_not_needed_to_run_is_nobodys_cause() -> None:
    edges = [Edge("a", "b", strength=Strength.MILESTONE), Edge("a", "c", strength=Strength.SOFT)]
    found = {a.service: a for a in ailments(moment({"a": EXITED, "b": EXITED, "c": EXITED}, edges), {}, NOW)}
    assert found["a"].suffers_from == ()
    assert found["b"].endangers == ()


def test_each_ailing_instance_is_named_if_there_are_several() -> None:
    snapshot = moment({"a": READY}, nodes={"a": ("n1", "n2", "n3")}, agents=frozenset({"n1", "n2"}))
    (found,) = ailments(snapshot, {}, NOW)
    assert found.reasons == ("on n3: no node agent runs on n3",)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"state": "recovering", "attempts": 1}, "being recovered: 1 attempt"),
        ({"state": "recovering", "attempts": 2, "next_attempt_at": NOW + 30.0}, "2 attempts so far, the next in 30 s"),
        ({"state": "open", "waits_for": "a hold by carol"}, "nothing is done about it now: a hold by carol"),
        ({"state": "open"}, "a recovery is due"),
        ({"state": "gave_up", "attempts": 3}, "given up after 3 attempts: mend it, then citadel recover a"),
        ({"state": "quarantined"}, "in quarantine until it has been quiet: mend it, then citadel recover a"),
        ({"state": "closed"}, ""),
    ],
)
def test_what_is_done_about_a_service_stands_with_the_service(fields: dict[str, Any], text: str) -> None:
    state = IncidentState(fields.pop("state"))
    incident = Incident("i1", "a", state, opened_at=NOW - 60.0, cause="process_exit", **fields)
    snapshot = replace(moment({"a": EXITED}), incidents={"a": incident})
    (found,) = ailments(snapshot, {}, NOW)
    assert found.treatment == text
    assert text in screen(look_at(snapshot))


def test_a_quarantine_says_when_it_ends_at_the_earliest() -> None:
    snapshot = moment({"a": EXITED})
    seen = replace(snapshot.observed[Instance("a", "n1")], lapses=tuple(NOW - n for n in range(5)))
    incident = Incident("i1", "a", IncidentState.QUARANTINED, opened_at=NOW - 60.0, cause="flapping")
    snapshot = replace(snapshot, observed={Instance("a", "n1"): seen}, incidents={"a": incident})
    (found,) = ailments(snapshot, {}, NOW)
    assert found.treatment.startswith("in quarantine until it has been quiet, 2025-07-15T14:36:34Z at the earliest: ")


def test_a_claim_that_nobody_confirms_says_why_nothing_is_done() -> None:
    snapshot = moment({"a": READY, "b": READY}, checks={"a": CheckStatus.CRITICAL, "b": CheckStatus.CRITICAL})
    refuted = replace(snapshot.observed[Instance("b", "n1")], contradicted_since=NOW)
    snapshot = replace(snapshot, observed={**snapshot.observed, Instance("b", "n1"): refuted})
    assert {found.service: found.treatment for found in ailments(snapshot, {}, NOW)} == {
        "a": "its node agent has not confirmed that: nothing is restarted until it does",
        "b": "its node agent finds it well: nothing is restarted for it",
    }


def _incident(service: str, state: IncidentState, age: float = 60.0, **fields: Any) -> Incident:
    detail = f"{service}@n1: killed by SIGKILL"
    return Incident("i1", service, state, opened_at=NOW - age, cause="process_exit", detail=detail, **fields)


def test_who_was_woken_finds_what_failed_although_it_is_over() -> None:
    incidents = [
        _incident("base", IncidentState.CLOSED, closed_at=NOW - 48.0, outcome="healthy again after 1 attempt"),
        _incident("middle", IncidentState.RECOVERING, 5.0, attempts=2, healthy_since=NOW - 3.0, part_of="i0"),
        _incident("top", IncidentState.CLOSED, 9_000.0, closed_at=NOW - 8_000.0, outcome="healthy again"),
    ]
    snapshot = moment({"base": READY, "middle": READY, "top": READY}, CHAIN)
    lines = screen(look_at(replace(snapshot, incidents={i.service: i for i in incidents}))).splitlines()
    assert lines[2] == "nothing fails now; what did a moment ago stands below"
    why = "failed on n1: killed by SIGKILL"
    watched = "it serves again, after 2 attempts, and is watched for a moment; told with that of what it needs"
    assert lines[4:7] == [
        "INCIDENTS",
        f"  middle  2025-07-15T14:29:55Z  {why}; {watched}",
        f"  base    2025-07-15T14:29:00Z  {why}; healthy again after 1 attempt, over at 2025-07-15T14:29:12Z",
    ]


def test_a_frozen_recovery_comes_first_with_how_to_go_on() -> None:
    names = tuple(f"s{number:02d}" for number in range(20))
    detail = "15 of 20 services failed within 60 s"
    stack = Incident("i1", STACK, IncidentState.OPEN, NOW, "mass_failure", detail, names[:15])
    phases = {name: EXITED if name in stack.affected else READY for name in names}
    lines = screen(look_at(replace(moment(phases), incidents={STACK: stack}))).splitlines()
    assert lines[3:6] == [
        f"  ✘ recovery is frozen: {detail} ({', '.join(names[:10])} and 5 more)",
        "    Nothing is restarted automatically while more than 5 fail",
        "    Look for what they have in common; to go on as it is: citadel recover all",
    ]


def test_the_screen_of_a_stack_that_is_well() -> None:
    lines = screen(look_at(moment({"base": READY, "middle": READY}, [("middle", "base")]))).splitlines()
    assert lines[0] == "shop  healthy  2 of 2 services healthy   2025-07-15T14:30:00Z"
    assert lines[2] == "nothing is wrong"
    assert "WRONG" not in lines
    assert lines[-4:] == [
        "CONTROL",
        "  leader    o1:8000, epoch 312, since 2025-07-15T12:25:00Z (2 h 5 min), API 10.0.0.1:8000",
        "  standbys  o2:8000",
        "  agents    n1",
    ]


def test_the_screen_of_an_empty_stack_says_how_to_begin() -> None:
    assert screen(look_at(moment({}))).splitlines()[0] == "shop  no services: citadel apply FILE writes them"


def test_many_services_are_not_listed_but_those_that_are_wrong_are() -> None:
    phases: dict[str, Phase | None] = {f"s{n:03d}": READY for n in range(MOST_SERVICES + 1)}
    text = screen(look_at(moment({**phases, "s007": EXITED})))
    assert "SERVICES" not in text
    assert re.search(r"✘ s007 +unhealthy", text)
    assert "s008" not in text


def test_standbys_that_the_token_may_not_see_are_not_said_to_be_none() -> None:
    assert "standbys  unknown: the token may not read services" in screen(look_at(moment({"a": READY}), standbys=None))


def test_how_the_last_operation_ended_is_told() -> None:
    operation = Operation(
        "x", Kind.RESTART, ("a",), state=OperationState.FAILED, started_at=NOW - 5.0, ended_at=NOW - 3.0,
        detail="start of a@n1: exit status 1",
    )  # fmt: skip
    text = screen(look_at(moment({"a": EXITED}, operations=(operation,))))
    assert "last      restart of a failed in 2.0 s at 2025-07-15T14:29:57Z: start of a@n1: exit status 1" in text


def test_the_health_screen_has_a_row_for_each_service_and_its_reason() -> None:
    snapshot: Snapshot = moment({"a": READY, "b": EXITED, "c": STOPPED}, details={"b": "exit status 3"})
    assert [click.unstyle(line) for line in draw(health_lines(look_at(snapshot)), None)] == [
        "shop  unhealthy  33.3 % of services healthy, not all critical ones are   2025-07-15T14:30:00Z",
        "",
        "  service  status     score  answers in  up for",
        "  a        healthy    100    -           1 min",
        "  b        unhealthy  0      -           -       exit status 3",
        "  c        stopped    -      -           -",
    ]


def test_the_health_screen_shows_what_the_node_agents_measured_and_what_is_missing() -> None:
    snapshot: Snapshot = moment({"a": READY, "b": READY})
    a = Measurement(CheckStatus.PASSING, 0.0, 7.24, {"queue_size": 3, "request_rate": 125.3})
    node = NodeMeasurements("n1", 0.0, CheckCounts(), {"a": a, "b": Measurement(detail="it has not answered yet")})
    look = replace(look_at(snapshot), measured=Measured({"n1": node}))
    _, _, *rows = (click.unstyle(line) for line in draw(health_lines(look), None))
    assert rows == [
        "  service  status   score  answers in  up for",
        "  a        healthy  100    7.2 ms      1 min   queue size 3, request rate 125.3",
        "  b        healthy  100    -           1 min   it has not answered yet",
    ]
