"""The site of the scale benchmark: how many stacks, nodes, services and edges there are, drawn from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from citadel_consul.core.model import Check, CheckKind, Edge, ProcessBackend, RecoveryPolicy, ServiceSpec, Stack

INSTANCES_PER_NODE = 50
INSTANCES_PER_SERVICE = 2
DEPENDENCIES = 2
DEPTH = 6
"""The graph has so many layers; a service depends on services of the layer below it."""

POLICY = RecoveryPolicy(attempts=1_000_000, delay_seconds=0.0, max_delay_seconds=0.001, total_seconds=86_400.0)
"""A service that is killed again and again is started again at once: delays are no part of what is measured."""


@dataclass(frozen=True, slots=True)
class Site:
    """``instances`` in all, in equal parts in ``stacks`` stacks, each on nodes of its own."""

    instances: int
    stacks: int

    @property
    def services_per_stack(self) -> int:
        return max(1, self.instances // self.stacks // INSTANCES_PER_SERVICE)

    @property
    def nodes_per_stack(self) -> int:
        return max(INSTANCES_PER_SERVICE, -(-self.instances // self.stacks // INSTANCES_PER_NODE))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the stacks."""
        return tuple(f"scale-{number}" for number in range(self.stacks))

    def nodes(self, stack: str) -> tuple[str, ...]:
        return tuple(f"{stack}-n{number:03d}" for number in range(self.nodes_per_stack))

    def stack(self, name: str) -> Stack:
        """One stack, the same each time that it is asked for."""
        draw, nodes = random.Random(name), self.nodes(name)
        names = [f"s{number:04d}" for number in range(self.services_per_stack)]
        services = {service: _spec(service, number, nodes) for number, service in enumerate(names)}
        layers = [names[layer::DEPTH] for layer in range(DEPTH)]
        edges = [
            Edge(service, dependency)
            for below, layer in pairwise(layers)
            for service in layer
            for dependency in draw.sample(below, min(DEPENDENCIES, len(below)))
        ]
        return Stack(name, services, tuple(edges))


def _spec(service: str, number: int, nodes: tuple[str, ...]) -> ServiceSpec:
    port = 20_000 + number
    chosen = tuple(nodes[(number * INSTANCES_PER_SERVICE + k) % len(nodes)] for k in range(INSTANCES_PER_SERVICE))
    return ServiceSpec(
        name=service,
        type="scale",
        nodes=tuple(dict.fromkeys(chosen)),
        backend=ProcessBackend(command=("/usr/bin/env", "true", service)),
        endpoint=f"tcp://127.0.0.1:{port}",
        checks=(Check("tcp", CheckKind.TCP, f"127.0.0.1:{port}"),),
        tags=("scale",),
        recovery=POLICY,
    )
