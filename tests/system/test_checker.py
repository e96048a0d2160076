"""The checker tells: each invariant that it reads for is broken once, and found."""

from __future__ import annotations

import pytest
from checker import Life, ended_unasked, lived_twice, unfinished, violations

from citadel_consul.agent.chronicle import Entry
from citadel_consul.core.model import Edge, Instance
from citadel_consul.core.operation import Kind, Operation, OperationState

EDGES = [Edge("top", "base")]

Row = tuple[str, str, int, int]
"""What was done to which service, at which generation, by orders of which epoch."""

SOUND: list[Row] = [
    ("started", "base", 1, 5),
    ("ready", "base", 1, 5),
    ("started", "top", 1, 5),
    ("ready", "top", 1, 5),
    ("stopping", "top", 1, 7),
    ("stopped", "top", 1, 7),
    ("stopping", "base", 1, 7),
    ("stopped", "base", 1, 7),
]


def history(rows: list[Row]) -> list[Entry]:
    """One entry a second on one node; a service has the same pid for one generation."""
    return [
        Entry(float(at), what, "n1", service, generation, epoch, pid=100 * generation + len(service))
        for at, (what, service, generation, epoch) in enumerate(rows)
    ]


def test_a_sound_history_has_no_violation() -> None:
    assert violations(history(SOUND), EDGES) == []


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([*SOUND[:4], ("started", "top", 1, 5)], "top@n1 was started twice for generation 1"),
        ([*SOUND[:5], ("stopping", "top", 1, 7)], "top@n1 (pid 103) was stopped twice"),
        ([SOUND[0], SOUND[2]], "I1: top@n1 was started before base was ready"),
        ([*SOUND[:4], SOUND[6]], "I2: base@n1 was stopped while top ran"),
        ([*SOUND, ("started", "base", 2, 5)], "I3: base@n1 started at epoch 5 < 7"),
        ([*SOUND[:2], ("stopping", "base", 1, 4)], "I3: base@n1 stopping at epoch 4 < 5"),
    ],
    ids=["double start", "double stop", "too early", "under a dependent", "deposed starts", "deposed stops"],
)
def test_each_violation_is_found(rows: list[Row], found: str) -> None:
    assert violations(history(rows), EDGES) == [found]


def test_a_stop_that_a_successor_of_the_agent_takes_up_is_one_stop() -> None:
    rows = [*SOUND[:5], ("adopted", "top", 1, 7), ("stopping", "top", 1, 7), *SOUND[5:]]
    assert violations(history(rows), EDGES) == []


def test_epochs_count_from_the_beginning_after_consul_lost_its_data() -> None:
    rows = [*SOUND, ("new-log", "", 0, 0), ("started", "base", 2, 3)]
    assert violations(history(rows), EDGES) == []


def test_a_process_that_ended_by_itself_is_found_and_one_that_was_stopped_is_not() -> None:
    lives = [Life(0.0, 104, 1), Life(9.0, 204, 2), Life(10.0, 304, 3)]
    found = ended_unasked(Instance("base", "n1"), lives, running=[304], entries=history(SOUND))
    assert found == ["I7: base@n1 (pid 204, generation 2) ended, and nobody had ordered it"]


def test_two_lives_for_one_generation_are_found_in_what_the_service_itself_wrote() -> None:
    assert lived_twice("base@n1", [Life(0.0, 1, 1), Life(1.0, 2, 1), Life(2.0, 3, 2)]) == [
        "base@n1 lived twice for generation 1 (pid 2)"
    ]


def test_an_operation_that_is_lost_or_goes_on_for_ever_is_found() -> None:
    running = Operation(
        id="a", kind=Kind.STARTUP, targets=("all",), requested_by="test", requested_at=0.0, state=OperationState.RUNNING
    )
    assert unfinished([running], requested=["a", "b"]) == [
        "I4: operation b is lost",
        "I4: startup a has not ended: running",
    ]
