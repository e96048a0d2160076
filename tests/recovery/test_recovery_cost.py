"""What recovery costs grows with the stack and no faster: a turn is the heartbeat of the leader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import process_time

from clinic import patient

from citadel_consul.core.actions import WriteIncident
from citadel_consul.core.graph import build_graph
from citadel_consul.core.healing.heal import MOST_AT_ONCE, heal
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Edge, Instance
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.core.turn import Turn

LAYERS, FAN_OUT = 10, 2
NOW = 1_000.0


def layered(count: int) -> Snapshot:
    """A healthy stack of ``count`` services in layers, each with two dependencies in the one below."""
    width = count // LAYERS
    names = [f"s{number:05d}" for number in range(count)]
    edges = [
        Edge(name, names[(place // width - 1) * width + (place * FAN_OUT + nth) % width])
        for place, name in enumerate(names)
        for nth in range(FAN_OUT)
        if place >= width
    ]
    graph, faults = build_graph(names, edges)
    assert faults == ()
    ready = Observed(1, Phase.READY, 0.0, started_at=0.0, ready_at=0.0)
    instances = [Instance(name, "n1") for name in names]
    return Snapshot(
        stack="s",
        specs={name: patient(name) for name in names},
        graph=graph,
        desired=dict.fromkeys(instances, Desired(True, 1, wanted=True)),
        observed=dict.fromkeys(instances, ready),
        agents=frozenset({"n1"}),
    )


def with_dead(snapshot: Snapshot, count: int) -> Snapshot:
    """``snapshot`` after the first ``count`` services were killed a second ago."""
    dead = Observed(1, Phase.EXITED, NOW - 1.0, exit_signal=9)
    victims = [Instance(name, "n1") for name in list(snapshot.specs)[:count]]
    return replace(snapshot, observed={**snapshot.observed, **dict.fromkeys(victims, dead)})


def seconds(snapshot: Snapshot) -> float:
    """The CPU time of one turn of recovery, the least of three: others work on this machine, too."""
    return min(_measured(lambda turn: heal(turn, []), Turn(snapshot, NOW)) for _ in range(3))


def _measured(work: Callable[[Turn], None], turn: Turn) -> float:
    began = process_time()
    work(turn)
    return process_time() - began


def test_a_healthy_stack_of_thousands_costs_next_to_nothing() -> None:
    assert seconds(layered(4_000)) < 0.05


def test_one_failure_in_a_large_stack_costs_a_fraction_of_what_a_turn_may_take() -> None:
    assert seconds(with_dead(layered(4_000), 1)) < 0.5


def test_the_cost_of_one_failure_does_not_grow_faster_than_the_stack() -> None:
    small, large = seconds(with_dead(layered(1_000), 1)), seconds(with_dead(layered(8_000), 1))
    assert large < 8 * 4 * max(small, 0.001)


def test_a_turn_begins_a_bounded_number_of_recoveries_and_comes_back_for_the_rest() -> None:
    turn = Turn(with_dead(layered(4_000), 400), NOW)
    heal(turn, [])
    assert sum(isinstance(action, WriteIncident) for action in turn.actions) == MOST_AT_ONCE
    assert turn.wake_at == NOW
