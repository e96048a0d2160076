"""Random stacks, random behaviour, random requests. One function, fed by hypothesis or by a seeded ``Random``."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from invariants import guard
from world import DEFAULTS, Behaviour, World, spec

from citadel_consul.core.model import Condition, Edge, Instance, OnFailure, OnRecovery, ServiceSpec, Strength
from citadel_consul.core.operation import Kind

NODES = ("n1", "n2", "n3")


def any_world(rng: Random, *, most_services: int = 15, faults: float = 0.1) -> World:
    """A guarded world of 1 to ``most_services`` services.

    ``faults`` is the share of instances that misbehave; edges that cannot be met and silent nodes come with it.
    """
    count = rng.randint(1, most_services)
    names = [f"s{number}" for number in range(count)]
    nodes = NODES[: rng.randint(1, len(NODES))]
    specs = [_any_spec(rng, name, nodes) for name in names]
    edges = _any_edges(rng, {s.name: s for s in specs}, faults)
    rng.shuffle(specs)  # the order of the stack is not the order of the graph
    world = World.of(specs, edges, defaults=DEFAULTS)
    for found in specs:
        for instance in found.instances:
            world.behaviours[instance] = _any_behaviour(rng, instance, faults=faults, oneshot=found.oneshot)
    world.silent = {node for node in nodes if rng.random() < faults / 2}
    return guard(world)


def any_request(rng: Random, world: World) -> str:
    """Ask ``world`` for something; returns the id."""
    kind = rng.choice(list(Kind))
    targets = [any_target(rng, world) for _ in range(rng.randint(1, 2))]
    return world.request(
        kind,
        *targets,
        cascade=rng.random() < 0.5,
        graceful=rng.random() < 0.8,
        on_failure=rng.choice([None, *OnFailure]),
        timeout_seconds=rng.choice([None, None, 5.0]),
        rolling=rng.random() < 0.5,
        subtree=rng.random() < 0.3,
        force=rng.random() < 0.3,
        drain_seconds=rng.choice([None, None, 0.0, 4.0]),
    )


def upset(rng: Random, world: World) -> None:
    """Something that nobody ordered, or nothing: a death, an agent that goes or comes back, an edge more or less."""
    chance = rng.random()
    if chance < 0.3 and world.processes:
        world.kill(rng.choice(sorted(world.processes)))
    elif chance < 0.45:
        world.silent ^= {rng.choice(NODES)}
    elif chance < 0.6 and world.edges:
        world.edges.remove(rng.choice(world.edges))
    elif chance < 0.75 and len(world.specs) > 1:
        below, above = sorted(rng.sample(sorted(world.specs), 2), key=_rank)
        if not any((edge.service, edge.dependency) == (above, below) for edge in world.edges):
            world.edges.append(_any_edge(rng, above, world.specs[below], faults=0.1))


def _rank(name: str) -> int:
    """The place of a service: its edges lead to services of a lower rank only, so there are no cycles."""
    return int(name[1:])


def any_target(rng: Random, world: World) -> str:
    """Everything, a service or an instance."""
    if rng.random() < 0.4:
        return "all"
    found = world.specs[rng.choice(sorted(world.specs))]
    return found.name if rng.random() < 0.7 else f"{found.name}@{rng.choice(found.nodes)}"


def _any_spec(rng: Random, name: str, nodes: tuple[str, ...]) -> ServiceSpec:
    chosen = rng.sample(nodes, rng.randint(1, len(nodes)))
    draining = rng.choice([None, None, None, 2.0])
    return spec(
        name,
        *chosen,
        oneshot=rng.random() < 0.15,
        on_failure=rng.choice(list(OnFailure)),
        drain_timeout_seconds=draining,
    )


def _any_edges(rng: Random, specs: dict[str, ServiceSpec], faults: float) -> list[Edge]:
    names = list(specs)
    share = rng.choice([0.1, 0.3, 0.6])
    return [
        _any_edge(rng, service, specs[dependency], faults)
        for position, service in enumerate(names)
        for dependency in names[:position]
        if rng.random() < share
    ]


def _any_edge(rng: Random, service: str, dependency: ServiceSpec, faults: float) -> Edge:
    likely = Condition.COMPLETED if dependency.oneshot else rng.choice([Condition.HEALTHY, Condition.STARTED])
    return Edge(
        service,
        dependency.name,
        condition=rng.choice(list(Condition)) if rng.random() < faults / 2 else likely,
        strength=rng.choice([Strength.HARD, Strength.HARD, Strength.SOFT, Strength.MILESTONE]),
        min_instances=rng.choice([None, None, rng.randint(1, len(dependency.nodes))]),
        on_recovery=rng.choice(list(OnRecovery)),
    )


def _any_behaviour(rng: Random, instance: Instance, *, faults: float, oneshot: bool) -> Behaviour:
    usual = Behaviour(
        ready_after=rng.choice([0.0, 1.0, 3.0]),
        stop_after=rng.choice([0.0, 1.0, None]),
        drained_after=rng.choice([0.0, 0.5, 1.0, None]),
        exits_after=rng.choice([1.0, 4.0]) if oneshot else None,
        exits_well=True,
    )
    if rng.random() >= faults:
        return usual
    return rng.choice(
        [
            replace(usual, cannot_start=True),
            replace(usual, ready_after=None, exits_after=None),
            replace(usual, exits_after=2.0, exits_well=False),
            replace(usual, unkillable=True),
            replace(usual, critical=True),
            replace(usual, ready_after=12.0),
        ]
    )
