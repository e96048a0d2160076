"""What the benchmark makes of the moments that services wrote down; and one real start and stop, so that it works."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from consul_process import ConsulSpace
from cycle import Cycle, started, stopped
from document import renewed
from graphs import GRAPHS, Graph, Timing, chain, random_graph
from start_stop import OURS, Row, times_of
from tables import aims_table, best_in_order, efficiency_table, hops_table, reasons
from timed_service import Life, TimedServices, life_of
from under_citadel import under_citadel

PAIR = Graph("pair", {"db": Timing(1.0, 0.5), "app": Timing(2.0, 0.25)}, (("app", "db"),))
LIVES = {
    "db": Life(executed=10.1, listening=11.1, stopping=20.6, exited=21.1),
    "app": Life(executed=11.2, listening=13.2, stopping=20.1, exited=20.4),
}


def row(manager: str, wall: float, *, broken: int = 0, graph: Graph = PAIR) -> Row:
    lives = LIVES if not broken else {**LIVES, "app": Life(10.1, 12.1, 20.6, 21.3)}
    way = started(graph, lives, 10.0, 10.0 + wall)
    return Row(graph, manager, (Cycle(way, stopped(graph, lives, 20.0, 20.0 + wall)),))


def test_a_ledger_tells_the_last_life_of_a_service() -> None:
    text = "executed 1.5 7\nlistening 2.5 7\nexecuted 3.25 8\nlistening 4.0 8\nstopping 5.0 8\nexited 5.5 8\n"
    assert life_of(text) == Life(3.25, 4.0, 5.0, 5.5)
    assert life_of("") == Life()


def test_a_start_is_measured_until_the_manager_says_it_is_done_and_else_until_all_listen() -> None:
    assert started(PAIR, LIVES, 10.0, 13.5).wall_seconds == pytest.approx(3.5)
    assert started(PAIR, LIVES, 10.0, None).wall_seconds == pytest.approx(3.2)


def test_the_path_is_what_the_services_took_and_the_nominal_one_what_they_were_told_to() -> None:
    way = started(PAIR, LIVES, 10.0, 13.3)
    assert way.path_seconds == pytest.approx(3.0)
    assert way.nominal_path_seconds == pytest.approx(3.0)
    assert way.efficiency == pytest.approx(1.1)
    down = stopped(PAIR, LIVES, 20.0, 21.2)
    assert down.path_seconds == pytest.approx(0.8)
    assert down.nominal_path_seconds == pytest.approx(0.75)


def test_an_edge_is_broken_by_a_dependent_that_does_not_wait() -> None:
    assert started(PAIR, LIVES, 10.0, None).broken_edges == 0
    assert stopped(PAIR, LIVES, 20.0, None).broken_edges == 0
    early = {**LIVES, "app": Life(executed=11.0, listening=13.0, stopping=20.1, exited=20.7)}
    assert started(PAIR, early, 10.0, None).broken_edges == 1
    assert stopped(PAIR, early, 20.0, None).broken_edges == 1


@pytest.mark.parametrize("name", GRAPHS)
def test_dependencies_come_before_their_dependents_in_every_graph(name: str) -> None:
    graph = GRAPHS[name]()
    place = {service: n for n, service in enumerate(graph.services)}
    assert all(place[needed] < place[service] for service, needed in graph.edges)
    assert len(set(graph.edges)) == len(graph.edges)


def test_a_random_graph_is_the_same_for_a_seed_and_within_its_bounds() -> None:
    graph = random_graph(100, seed=3)
    assert graph == random_graph(100, seed=3)
    assert graph != random_graph(100, seed=4)
    assert all(0.2 <= timing.ready <= 3.0 for timing in graph.services.values())


def test_who_breaks_edges_is_shown_in_brackets_and_never_the_best() -> None:
    rows = [row("ours", 3.3), row("careless", 2.1, broken=1), row("slow", 6.0)]
    assert best_in_order(rows, "start") == "ours"
    assert "(0.70; 1 of 1 edges broken)" in efficiency_table(rows, "start")
    assert "| pair | 3.00 s | 1.10 |" in efficiency_table(rows, "start")


def test_what_was_not_measured_is_a_dash_with_its_reason() -> None:
    rows = [row("ours", 3.3), Row(PAIR, "absent", why="not installed")]
    assert "| 1.10 | – | ours |" in efficiency_table(rows, "start")
    assert reasons(rows) == "- absent: not installed (pair)"
    assert rows[1].as_dict()["not_measured"] == "not installed"


def test_an_aim_that_is_missed_is_said() -> None:
    platform = Graph("ai-platform-12", PAIR.services, PAIR.edges)
    assert "| ≤ 1.05 | no |" in aims_table([row(OURS, 3.3, graph=platform)])
    assert "| ≤ 1.05 | yes |" in aims_table([row(OURS, 3.1, graph=platform)])


def test_the_cost_of_a_hop_is_shown_of_chains_alone() -> None:
    two = Graph("chain-2", PAIR.services, PAIR.edges)
    assert "| ours | 150.0 ms | 1250.0 ms |" in hops_table([row("ours", 3.3, graph=two), row("ours", 3.3)])


def test_large_graphs_and_slow_peers_are_started_fewer_times() -> None:
    assert [times_of(OURS, random_graph(size), 5) for size in (10, 100, 500)] == [5, 2, 1]
    assert times_of("docker-compose", chain(), 5) == 1


@pytest.fixture
def two_services(tmp_path: Path) -> TimedServices:
    return TimedServices.make(chain(2, ready=0.05), tmp_path / "services")


def test_a_service_listens_when_it_was_told_to_and_writes_down_its_moments(two_services: TimedServices) -> None:
    process = subprocess.Popen(two_services.command("s00"))
    try:
        while two_services.lives().get("s00", Life()).listening == 0.0:
            assert process.poll() is None
        assert subprocess.run(two_services.probe("s00"), check=False).returncode == 0
        process.terminate()
        assert process.wait(30) == 0
    finally:
        two_services.close()
    life = two_services.lives()["s00"]
    assert life.listening - life.executed >= 0.05
    assert life.exited - life.stopping >= 0.05
    assert subprocess.run(two_services.probe("s00"), check=False).returncode == 1


def test_citadel_starts_and_stops_a_real_chain_in_order(two_services: TimedServices, consul: ConsulSpace) -> None:
    try:
        with under_citadel(two_services, consul.address) as once:
            cycle = once()
    finally:
        two_services.close()
    for way in (cycle.start, cycle.stop):
        assert way.broken_edges == 0
        assert way.wall_seconds > way.path_seconds >= 0.1


def test_tables_are_renewed_between_their_marks_and_nothing_else() -> None:
    text = "a\n<!-- bench:start -->\nold\n<!-- /bench:start -->\nb\n<!-- bench:stop -->\nkept\n<!-- /bench:stop -->\n"
    once = renewed(text, {"start": "| new |", "unknown": "x"})
    assert once == text.replace("old\n", "\n| new |\n\n")
    assert renewed(once, {"start": "| new |"}) == once
