"""The dependency graph: which edges are in force, how cycles are said, and in what order things are."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_consul.core.graph import GraphFault, build_graph, describe_cycle, find_cycles
from citadel_consul.core.model import Edge, Strength


def edges_of(text: str) -> list[Edge]:
    """``a>b c>d`` says that a depends on b, and c on d."""
    return [Edge(service, dependency) for service, _, dependency in (pair.partition(">") for pair in text.split())]


PLATFORM = "embed>qdrant gate>embed gate>redis gate>router router>embed batch>redis"
SERVICES = ["gate", "batch", "router", "embed", "qdrant", "redis"]


# --- which edges are in force -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edges", "refused", "message"),
    [
        ("a>a", ("a", "a"), "makes a cycle: a → a"),
        ("a>b b>a", ("b", "a"), "makes a cycle: b → a → b"),
        ("b>a a>b", ("a", "b"), "makes a cycle: a → b → a"),
        ("a>b b>c c>a", ("c", "a"), "makes a cycle: c → a → b → c"),
        ("a>b a>c b>d c>d d>a", ("d", "a"), "makes a cycle: d → a → b → d"),
    ],
)
def test_the_youngest_edge_of_a_cycle_is_refused_and_the_cycle_is_readable(
    edges: str, refused: tuple[str, str], message: str
) -> None:
    graph, faults = build_graph("abcd", edges_of(edges))
    assert faults == (GraphFault(*refused, message),)
    assert [(e.service, e.dependency) for e in graph.edges] == [
        (e.service, e.dependency) for e in edges_of(edges) if (e.service, e.dependency) != refused
    ]


def test_an_edge_after_a_refused_one_is_judged_without_it() -> None:
    graph, faults = build_graph("abc", edges_of("a>b b>a b>c c>a"))
    assert [(f.service, f.dependency) for f in faults] == [("b", "a"), ("c", "a")]
    assert graph.edges == tuple(edges_of("a>b b>c"))


@pytest.mark.parametrize(("edge", "unknown"), [("a>x", "x"), ("x>a", "x"), ("x>y", "x")])
def test_an_edge_of_an_unknown_service_is_refused(edge: str, unknown: str) -> None:
    graph, faults = build_graph("ab", [*edges_of("a>b"), *edges_of(edge)])
    service, _, dependency = edge.partition(">")
    assert faults == (GraphFault(service, dependency, f"unknown service '{unknown}'"),)
    assert graph.edges == tuple(edges_of("a>b"))


@pytest.mark.parametrize(
    ("edges", "cycles"),
    [
        ("a>b b>c", []),
        ("a>a", ["a → a"]),
        ("a>b b>a", ["b → a → b"]),
        ("a>b b>c c>a b>a", ["c → a → b → c", "b → a → b"]),
        ("a>b b>a c>d d>c", ["b → a → b", "d → c → d"]),
    ],
)
def test_cycles_are_found_one_for_each_edge_that_closes_one(edges: str, cycles: list[str]) -> None:
    assert [describe_cycle(cycle) for cycle in find_cycles(edges_of(edges))] == cycles


def test_every_step_of_a_reported_cycle_is_an_edge() -> None:
    rng = Random(5)
    names = [f"s{n}" for n in range(12)]
    edges = [Edge(a, b) for a in names for b in names if rng.random() < 0.2]
    cycles = find_cycles(edges)
    known = {(e.service, e.dependency) for e in edges}
    assert cycles
    assert all(pair in known for c in cycles for pair in zip(c, (*c[1:], c[0]), strict=True))


# --- order --------------------------------------------------------------------------------------------------------


def test_start_order_has_every_dependency_first_and_else_keeps_the_order_of_the_stack() -> None:
    graph, _ = build_graph(SERVICES, edges_of(PLATFORM))
    assert graph.in_start_order(SERVICES) == ["qdrant", "embed", "router", "redis", "gate", "batch"]


def test_start_order_of_a_stack_file_that_is_in_order_is_that_of_the_file() -> None:
    graph, _ = build_graph("abcd", edges_of("d>a c>a b>a"))
    assert graph.in_start_order("abcd") == list("abcd")


def test_start_order_of_some_services_ignores_the_others() -> None:
    graph, _ = build_graph("abc", edges_of("a>b b>c"))
    assert graph.in_start_order(["a", "c"]) == ["a", "c"]


def test_depths_are_start_ranks_from_one() -> None:
    graph, _ = build_graph(SERVICES, edges_of(PLATFORM))
    assert graph.depths() == {"qdrant": 1, "redis": 1, "embed": 2, "batch": 2, "router": 3, "gate": 4}


def test_heights_are_stop_ranks_from_one() -> None:
    graph, _ = build_graph(SERVICES, edges_of(PLATFORM))
    assert graph.heights() == {"gate": 1, "batch": 1, "router": 2, "redis": 2, "embed": 3, "qdrant": 4}


def test_ranks_within_some_services_count_only_these() -> None:
    graph, _ = build_graph(SERVICES, edges_of(PLATFORM))
    chosen = {"embed", "gate", "redis"}
    assert graph.depths(chosen) == {"embed": 1, "redis": 1, "gate": 2}
    assert graph.heights(chosen) == {"gate": 1, "embed": 2, "redis": 2}


def test_the_critical_path_is_the_longest_chain() -> None:
    graph, _ = build_graph(SERVICES, edges_of(PLATFORM))
    assert graph.critical_path() == ("qdrant", "embed", "router", "gate")


def test_the_critical_path_is_the_dearest_chain_when_costs_differ() -> None:
    graph, _ = build_graph(SERVICES, edges_of(PLATFORM))
    assert graph.critical_path(lambda service: 30.0 if service in ("redis", "batch") else 1.0) == ("redis", "batch")


def test_an_empty_graph_has_no_order_and_no_path() -> None:
    graph, faults = build_graph([], [])
    assert (graph.in_start_order([]), graph.depths(), graph.heights(), graph.critical_path(), faults) == (
        [],
        {},
        {},
        (),
        (),
    )


# --- reach --------------------------------------------------------------------------------------------------------


def test_reach_follows_only_the_edges_that_are_asked_for() -> None:
    edges = [Edge("a", "b"), Edge("b", "c", strength=Strength.MILESTONE), Edge("b", "d", strength=Strength.SOFT)]
    graph, _ = build_graph("abcd", edges)
    assert graph.with_dependencies("a", lambda edge: edge.needed_to_start) == {"a", "b", "c"}
    assert graph.with_dependencies("a", lambda edge: edge.needed_to_run) == {"a", "b"}
    assert graph.with_dependents("d", lambda _edge: True) == {"a", "b", "d"}
    assert graph.with_dependents("c", lambda edge: edge.needed_to_run) == {"c"}


def test_the_edges_of_a_service_are_known_from_both_ends() -> None:
    first, second = edges_of("a>b c>b")
    graph, _ = build_graph("abc", [first, second])
    assert (graph.dependencies("a"), graph.dependents("b"), graph.dependencies("b")) == ((first,), (first, second), ())


# --- any graph ----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), unique=True, max_size=40))
def test_whatever_edges_come_the_graph_in_force_can_be_started_in_order(pairs: list[tuple[int, int]]) -> None:
    names = [f"s{number}" for number in range(9)]
    edges = [Edge(names[a], names[b]) for a, b in pairs]
    graph, faults = build_graph(names, edges)
    order = graph.in_start_order(names)
    assert sorted(order) == names
    assert all(order.index(e.dependency) < order.index(e.service) for e in graph.edges)
    assert len(graph.edges) + len(faults) == len(edges)
    assert len(faults) == len(find_cycles(edges))
    depths, heights = graph.depths(), graph.heights()
    assert all(depths[e.service] > depths[e.dependency] for e in graph.edges)
    assert all(heights[e.service] < heights[e.dependency] for e in graph.edges)
    assert len(graph.critical_path()) == max(depths.values()) == max(heights.values())


def test_a_refused_edge_would_have_closed_a_cycle_and_no_other_was_refused() -> None:
    rng = Random(11)
    names = [f"s{number}" for number in range(10)]
    edges = [Edge(a, b) for a in names for b in names if rng.random() < 0.3]
    rng.shuffle(edges)
    graph, faults = build_graph(names, edges)
    for fault in faults:
        assert fault.service in graph.with_dependencies([fault.dependency], lambda _edge: True)
