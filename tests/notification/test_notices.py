"""What is told of an incident, and when: a table, and the words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from incidents import OPENED_AT, closed, frozen, incident, notice

from citadel_consul.core.incident import Incident, IncidentState
from citadel_consul.core.notice import Transition, due, due_at, word_of

OPEN, RECOVERING = IncidentState.OPEN, IncidentState.RECOVERING
GAVE_UP, QUARANTINED = IncidentState.GAVE_UP, IncidentState.QUARANTINED
SWALLOWED = "20250715T143000000000-stack"


@pytest.mark.parametrize(
    ("about", "said", "expected"),
    [
        (incident(state=OPEN), (), Transition.OPENED),
        (incident(state=RECOVERING), (), Transition.OPENED),
        (incident(state=OPEN), ("opened",), None),
        (incident(state=RECOVERING, attempts=3), ("opened",), None),
        (incident(state=GAVE_UP), ("opened",), Transition.GAVE_UP),
        (incident(state=GAVE_UP), (), Transition.GAVE_UP),
        (incident(state=GAVE_UP), ("opened", "gave_up"), None),
        (incident(state=OPEN), ("gave_up",), None),
        (incident(state=QUARANTINED), (), Transition.QUARANTINED),
        (incident(state=QUARANTINED), ("opened",), Transition.QUARANTINED),
        (incident(state=QUARANTINED), ("quarantined",), None),
        (incident(state=OPEN), ("quarantined",), None),
        (closed(), ("opened",), Transition.CLOSED),
        (closed(), ("quarantined",), Transition.CLOSED),
        (closed(), ("opened", "gave_up"), Transition.CLOSED),
        (closed(), ("opened", "closed"), None),
        (closed(), (), None),
        (frozen(), (), Transition.OPENED),
        (incident(state=OPEN, part_of=SWALLOWED), (), None),
        (incident(state=GAVE_UP, part_of=SWALLOWED), (), Transition.GAVE_UP),
        (incident(state=QUARANTINED, part_of=SWALLOWED), (), Transition.QUARANTINED),
        (closed(part_of=SWALLOWED), (), None),
        (closed(part_of=SWALLOWED), ("opened",), Transition.CLOSED),
    ],
)
def test_what_is_told_follows_from_the_incident_and_from_what_was_told_before(
    about: Incident, said: tuple[str, ...], expected: Transition | None
) -> None:
    assert due(about, said) is expected


@pytest.mark.parametrize(
    ("about", "transition", "age", "delay"),
    [
        (incident(state=OPEN), Transition.OPENED, 0.3, 0.7),
        (incident(state=OPEN), Transition.OPENED, 1.0, 0.0),
        (incident(state=OPEN), Transition.OPENED, 60.0, 0.0),
        (incident(state=OPEN), Transition.OPENED, -3600.0, 0.0),
        (incident(state=GAVE_UP), Transition.GAVE_UP, 0.3, 0.0),
        (closed(), Transition.CLOSED, 0.3, 0.0),
        (frozen(), Transition.OPENED, 0.3, 0.0),
    ],
)
def test_only_a_beginning_waits_and_not_for_a_clock_that_was_wrong(
    about: Incident, transition: Transition, age: float, delay: float
) -> None:
    now = about.opened_at + age
    assert due_at(about, transition, now, 1.0) - now == pytest.approx(delay)


def test_giving_up_again_after_a_repair_by_hand_is_news() -> None:
    again = incident(state=GAVE_UP, forgiven_at=OPENED_AT + 100)
    assert due(again, ("opened", "gave_up")) is Transition.GAVE_UP
    assert due(again, ("opened", "gave_up", word_of(again, Transition.GAVE_UP))) is None


def test_a_whole_life_is_told_once_each_whatever_is_written_in_between() -> None:
    life = [
        incident(state=OPEN),
        incident(state=RECOVERING),
        incident(state=RECOVERING, waits_for="…"),
        incident(state=GAVE_UP),
        incident(state=GAVE_UP, waits_for="citadel recover qdrant"),
        incident(state=OPEN),
        closed(),
        closed(),
    ]
    told: list[str] = []
    for step in life:
        transition = due(step, told)
        if transition is not None:
            told.append(word_of(step, transition))
    assert told == ["opened", "gave_up", "closed"]


def test_a_notice_says_what_happened_whom_it_reaches_and_what_was_done() -> None:
    opened = notice()
    assert opened.id == "20250715T143000000000-qdrant/opened"
    assert opened.title == "[shop] qdrant fails on n1: ended by signal 9"
    assert opened.blast_radius == "Cannot run without it: embedding-service, api-gateway (2)."
    assert opened.done == "1 attempt to recover it (20250715T143000000001-qdrant)."
    serves = notice(about=incident(healthy_since=OPENED_AT + 0.3))
    assert serves.done == f"{opened.done} It serves again, and is being watched."
    ended = notice(Transition.CLOSED)
    assert ended.blast_radius == "Could not run without it: embedding-service, api-gateway (2)."
    assert ended.done == opened.done
    assert ended.title == "[shop] qdrant: healthy again after 1 attempt, after 12 s"


def test_a_notice_that_nothing_is_done_says_why() -> None:
    held = notice(about=incident(state=OPEN, attempts=0, operations=(), waits_for="a hold stands on it"))
    assert held.done == "Nothing yet: a hold stands on it."


def test_it_calls_for_action_only_where_citadel_does_nothing_by_itself() -> None:
    assert not notice().calls_for_action
    assert notice(automatic=False).calls_for_action
    assert notice(Transition.GAVE_UP).calls_for_action
    assert notice(Transition.QUARANTINED).calls_for_action
    assert notice(about=frozen()).calls_for_action
    assert not notice(Transition.CLOSED, automatic=False).calls_for_action


def test_a_frozen_stack_is_told_with_how_to_go_on() -> None:
    page = notice(about=frozen())
    assert page.subject is None
    assert page.title == "[shop] automatic recovery is frozen: 8 of 12 services failed within 60 s"
    assert "citadel recover all" in page.advice
    assert page.blast_radius == "Failing: embedding-service, api-gateway."
    assert page.done == "Nothing is recovered automatically."


def test_a_notice_names_the_first_of_many() -> None:
    page = notice(about=incident(affected=tuple(f"s{number:03d}" for number in range(300))))
    assert page.blast_radius.endswith("s018, s019 and 280 more (300).")


def test_several_instances_and_other_details_read_as_sentences() -> None:
    two = incident(detail="qdrant@n1: killed by SIGKILL; qdrant@n2: http: no answer within 5 s")
    assert notice(about=two).title == "[shop] qdrant fails on n1: killed by SIGKILL; on n2: http: no answer within 5 s"
    given_up = notice(Transition.GAVE_UP, incident(state=GAVE_UP, detail="qdrant@n1: exit status 3"))
    assert given_up.title == "[shop] qdrant has failed for good on n1: exit status 3"
    flaps = notice(Transition.QUARANTINED, incident(state=QUARANTINED, detail="failed and came back 5 times in 8 s"))
    assert flaps.title.endswith("left alone until it is quiet: failed and came back 5 times in 8 s")
    assert "citadel recover qdrant ends the quarantine" in flaps.advice


@pytest.mark.parametrize("transition", Transition)
@pytest.mark.parametrize("about", [incident(), frozen()])
def test_every_transition_has_words(transition: Transition, about: Incident) -> None:
    told = notice(transition, replace(about, detail="odd {braces} %s"))
    assert "odd {braces} %s" in told.title or transition is Transition.CLOSED
    assert told.advice
    assert told.done.endswith(".")
