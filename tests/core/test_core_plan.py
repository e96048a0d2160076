"""Plans: which steps a request comes to, before anything is done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import World, spec

from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Edge, Instance, OnRecovery, Strength
from citadel_consul.core.operation import Kind, Operation, Options
from citadel_consul.core.plan import plan, resolve_targets, running_dependents
from citadel_consul.core.snapshot import Snapshot


def platform(*edges: Edge, up: str = "abcd") -> Snapshot:
    """a on two nodes; b, c and d on one each; those in ``up`` run."""
    world = World.of([spec("d"), spec("c"), spec("b"), spec("a", "n1", "n2")], edges)
    for found in world.specs.values():
        for instance in found.instances if found.name in up else ():
            world.desired[instance] = Desired(run=True, generation=1, wanted=True)
            world.observed[instance] = Observed(1, Phase.READY, 0.0)
    return world.snapshot()


def steps_of(snapshot: Snapshot, kind: Kind, *targets: str, cascade: bool = False) -> list[str]:
    planned = plan(snapshot, Operation("1", kind, targets, Options(cascade=cascade)))
    assert planned.refusal is None
    assert planned.scope == {step.service for step in planned.steps}
    return [f"{s.action} {s.instance}" + (f" after {s.after}" if s.after else "") for s in planned.steps]


CHAIN = (Edge("b", "a"), Edge("c", "b"))


def test_all_stands_for_every_service() -> None:
    assert steps_of(platform(*CHAIN), Kind.STARTUP, "all") == [
        "start d@n1",
        "start a@n1",
        "start a@n2",
        "start b@n1",
        "start c@n1",
    ]


def test_a_target_named_twice_is_done_once() -> None:
    assert steps_of(platform(), Kind.STARTUP, "a@n1", "a", "a@n1") == ["start a@n1", "start a@n2"]


@pytest.mark.parametrize(
    ("targets", "refusal"),
    [
        (("x",), "unknown service 'x'"),
        (("all", "x"), "unknown service 'x'"),
        (("a@n3",), "service 'a' has no instance on node 'n3'"),
        (("b@n2", "x"), "service 'b' has no instance on node 'n2'"),
        (("",), "unknown service ''"),
    ],
)
def test_a_target_that_names_nothing_is_said(targets: tuple[str, ...], refusal: str) -> None:
    assert resolve_targets(platform(), targets) == ((), refusal)


def test_targets_are_resolved_in_start_order() -> None:
    found, refusal = resolve_targets(platform(*CHAIN), ["c", "a@n2", "b"])
    assert ([str(i) for i in found], refusal) == (["a@n2", "b@n1", "c@n1"], None)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (("a",), "stopping a would take down c, b; ask for it with --cascade"),
        (("a@n1",), "stopping a would take down c, b; ask for it with --cascade"),
        (("b", "a"), "stopping a, b would take down c; ask for it with --cascade"),
    ],
)
def test_the_refusal_of_a_shutdown_names_what_it_would_take_down_in_stop_order(
    targets: tuple[str, ...], said: str
) -> None:
    assert plan(platform(*CHAIN), Operation("1", Kind.SHUTDOWN, targets)).refusal == said


def test_a_cascading_shutdown_plans_the_stops_from_the_top() -> None:
    assert steps_of(platform(*CHAIN), Kind.SHUTDOWN, "a", cascade=True) == [
        "stop c@n1",
        "stop b@n1",
        "stop a@n2",
        "stop a@n1",
    ]


def test_a_dependent_that_is_down_takes_no_part_but_what_depends_on_it_may() -> None:
    """b is down, c runs nevertheless: c is what would be taken down."""
    snapshot = platform(*CHAIN, up="ac")
    targets, _ = resolve_targets(snapshot, ["a"])
    assert running_dependents(snapshot, targets) == ("c",)


def test_dependents_are_those_of_the_edges_that_break() -> None:
    edges = [
        Edge("b", "a", min_instances=1),
        Edge("c", "a", strength=Strength.MILESTONE),
        Edge("d", "a", strength=Strength.SOFT),
    ]
    snapshot = platform(*edges)
    one, both = (resolve_targets(snapshot, [target])[0] for target in ("a@n1", "a"))
    assert (running_dependents(snapshot, one), running_dependents(snapshot, both)) == ((), ("b",))


def test_dependents_of_many_layers_are_found_without_walking_every_path() -> None:
    """40 layers of two services that each depend on both below: 2^40 paths, 156 edges."""
    names = [f"s{layer}{side}" for layer in range(40) for side in "ab"]
    edges = [Edge(f"s{n}{x}", f"s{n - 1}{y}") for n in range(1, 40) for x in "ab" for y in "ab"]
    snapshot = World.of([spec(name) for name in names], edges).snapshot()
    targets, _ = resolve_targets(snapshot, ["s0a", "s0b"])
    assert running_dependents(snapshot, targets) == ()
    assert len(plan(snapshot, Operation("1", Kind.SHUTDOWN, ("all",))).steps) == 80


def test_a_restart_stops_from_the_top_and_starts_each_after_its_own_stop() -> None:
    assert steps_of(platform(*CHAIN, up="abc"), Kind.RESTART, "b", "c") == [
        "stop c@n1",
        "stop b@n1",
        "start b@n1 after (1,)",
        "start c@n1 after (0,)",
    ]


def test_a_cascading_restart_takes_the_running_dependents_along() -> None:
    assert steps_of(platform(*CHAIN, up="ab"), Kind.RESTART, "a", cascade=True) == [
        "stop b@n1",
        "stop a@n2",
        "stop a@n1",
        "start a@n1 after (2,)",
        "start a@n2 after (1,)",
        "start b@n1 after (0,)",
    ]


def test_followers_come_after_every_start_of_their_dependency() -> None:
    edges = [Edge("b", "a", on_recovery=OnRecovery.RESTART), Edge("c", "a", on_recovery=OnRecovery.RELOAD)]
    assert steps_of(platform(*edges), Kind.RESTART, "a")[4:] == [
        "stop b@n1 after (2, 3)",
        "start b@n1 after (4,)",
        "reload c@n1 after (2, 3)",
    ]


@pytest.mark.parametrize("on_recovery", [OnRecovery.RESTART, OnRecovery.NOTIFY, OnRecovery.NONE])
def test_a_dependent_that_is_down_does_not_follow(on_recovery: OnRecovery) -> None:
    edge = Edge("b", "a", on_recovery=on_recovery)
    assert len(steps_of(platform(edge, up="a"), Kind.RESTART, "a")) == 4


def test_a_recovery_plans_only_what_is_broken() -> None:
    snapshot = platform()
    ended = {**snapshot.observed, Instance("a", "n2"): Observed(1, Phase.EXITED, 0.0)}
    assert steps_of(replace(snapshot, observed=ended), Kind.RECOVER, "a", "b") == [
        "stop a@n2",
        "start a@n2 after (0,)",
    ]


def test_a_recovery_of_what_is_sound_plans_all_of_it() -> None:
    assert steps_of(platform(), Kind.RECOVER, "b") == ["stop b@n1", "start b@n1 after (0,)"]


def test_a_startup_takes_in_dependencies_also_of_services_that_are_targets_themselves() -> None:
    assert steps_of(platform(*CHAIN), Kind.STARTUP, "b", "a@n2") == ["start a@n1", "start a@n2", "start b@n1"]
