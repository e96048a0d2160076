"""Order proven from the history: what counts as too early, for every kind of edge, and that no clock is believed."""

from __future__ import annotations

import pytest

from citadel_consul.cli.drilling.sequence import Happening, Layout, start_violations, stop_violations
from citadel_consul.core.model import Condition, Edge, Instance, ProcessBackend, ServiceSpec, Strength

Nodes = dict[str, tuple[str, ...]]


def layout(*edges: Edge, nodes: Nodes | None = None, oneshots: tuple[str, ...] = ()) -> Layout:
    names = dict.fromkeys(name for edge in edges for name in (edge.dependency, edge.service))
    specs = {
        name: ServiceSpec(
            name, "test", (nodes or {}).get(name, ("n1",)), ProcessBackend(("x",)), oneshot=name in oneshots
        )
        for name in names
    }
    return Layout(specs, edges)


def history(*words: str) -> list[Happening]:
    """``db@n1 started``, each at the next raft index."""
    found = []
    for index, text in enumerate(words):
        place, what = text.split()
        found.append(Happening(index, float(index), what, Instance(*place.split("@"))))
    return found


NEEDS_DB = Edge("api", "db")


@pytest.mark.parametrize(
    ("edge", "words", "violated"),
    [
        (NEEDS_DB, ("db@n1 started", "db@n1 ready", "api@n1 started"), False),
        (NEEDS_DB, ("db@n1 started", "api@n1 started", "db@n1 ready"), True),
        (NEEDS_DB, ("db@n1 started", "db@n1 ready", "db@n1 exited", "api@n1 started"), True),
        (Edge("api", "db", Condition.STARTED), ("db@n1 started", "api@n1 started"), False),
        (Edge("api", "db", Condition.STARTED), ("api@n1 started", "db@n1 started"), True),
        (Edge("api", "db", Condition.COMPLETED), ("db@n1 started", "db@n1 completed", "api@n1 started"), False),
        (Edge("api", "db", Condition.COMPLETED), ("db@n1 started", "db@n1 ready", "api@n1 started"), True),
        (Edge("api", "db", strength=Strength.MILESTONE), ("db@n1 started", "api@n1 started", "db@n1 ready"), True),
        (Edge("api", "db", strength=Strength.SOFT), ("db@n1 started", "api@n1 started", "db@n1 ready"), True),
        (Edge("api", "db", strength=Strength.SOFT), ("db@n1 started", "db@n1 failed", "api@n1 started"), False),
    ],
)
def test_a_start_is_too_early_if_its_edge_did_not_hold(edge: Edge, words: tuple[str, ...], violated: bool) -> None:
    assert bool(start_violations(history(*words), layout(edge))) is violated


def test_what_ran_once_and_is_done_is_as_good_as_healthy() -> None:
    plan = layout(NEEDS_DB, oneshots=("db",))
    assert start_violations(history("db@n1 started", "db@n1 completed", "api@n1 started"), plan) == []


def test_as_many_instances_as_the_edge_asks_for_have_to_be_ready() -> None:
    nodes: Nodes = {"db": ("n1", "n2", "n3")}
    words = ("db@n1 started", "db@n2 started", "db@n3 started", "db@n1 ready", "db@n2 ready", "api@n1 started")
    assert start_violations(history(*words), layout(Edge("api", "db", min_instances=2), nodes=nodes)) == []
    assert start_violations(history(*words), layout(NEEDS_DB, nodes=nodes)) == [
        "api@n1 was started before db was healthy"
    ]


def test_what_the_history_does_not_show_is_not_taken_for_granted() -> None:
    (problem,) = start_violations(history("db@n1 started", "db@n1 ready"), layout(NEEDS_DB))
    assert problem == "the history does not show that api@n1 was started"


def test_rafts_order_counts_and_not_the_clocks_of_the_nodes() -> None:
    db, api = Instance("db", "n1"), Instance("api", "n2")
    plan = layout(NEEDS_DB, nodes={"api": ("n2",)})
    ahead = [Happening(1, 500.0, "started", db), Happening(2, 500.1, "ready", db), Happening(3, 100.0, "started", api)]
    assert start_violations(reversed(ahead), plan) == []
    wrong = [Happening(1, 1.0, "started", db), Happening(2, 9.0, "started", api), Happening(3, 2.0, "ready", db)]
    assert start_violations(wrong, plan) == ["api@n2 was started before db was healthy"]


UP = [Instance("db", "n1"), Instance("api", "n1")]


@pytest.mark.parametrize(
    ("edge", "words", "expected"),
    [
        (NEEDS_DB, ("api@n1 stopping", "api@n1 stopped", "db@n1 stopping", "db@n1 stopped"), []),
        (NEEDS_DB, ("api@n1 stopping", "db@n1 stopping", "api@n1 stopped"), ["db@n1 was stopped while api@n1 ran"]),
        (NEEDS_DB, ("api@n1 exited", "db@n1 stopping"), ["api@n1 was never told to stop"]),
        (
            Edge("api", "db", strength=Strength.SOFT),
            ("db@n1 stopping", "api@n1 stopping"),
            ["db@n1 was stopped while api@n1 ran"],
        ),
        (Edge("api", "db", Condition.COMPLETED), ("db@n1 stopping", "api@n1 stopping"), []),
        (NEEDS_DB, ("api@n1 stopping", "api@n1 stopped"), ["db@n1 was never told to stop"]),
    ],
)
def test_a_stop_is_too_early_while_a_dependent_runs(edge: Edge, words: tuple[str, ...], expected: list[str]) -> None:
    assert stop_violations(history(*words), layout(edge), UP) == expected


def test_an_instance_that_can_be_spared_may_go_first() -> None:
    nodes: Nodes = {"db": ("n1", "n2")}
    up = [Instance("db", "n1"), Instance("db", "n2"), Instance("api", "n1")]
    words = ("db@n1 stopping", "db@n1 stopped", "api@n1 stopping", "api@n1 stopped", "db@n2 stopping", "db@n2 stopped")
    assert stop_violations(history(*words), layout(Edge("api", "db", min_instances=1), nodes=nodes), up) == []
    assert stop_violations(history(*words), layout(NEEDS_DB, nodes=nodes), up) == ["db@n1 was stopped while api@n1 ran"]
