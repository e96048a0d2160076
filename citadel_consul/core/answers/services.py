"""``services``: what is managed, where it is reached, and its place in the order."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from citadel_consul.core.answers.instants import instant_or_none
from citadel_consul.core.answers.problems import holds_on
from citadel_consul.core.health import Status, instance_status, service_status
from citadel_consul.core.model import Check, CheckKind, Instance, ServiceSpec
from citadel_consul.core.snapshot import Snapshot

_PASSWORD = re.compile(r"^([^/?#]*//[^/?#:@]*):[^/?#]*@")

Locate = Callable[[ServiceSpec], ServiceSpec]
"""Fills in what depends on the node: a spec's endpoints may be templates."""


@dataclass(frozen=True, slots=True)
class InstanceAnswer:
    """A service on a node. ``phase`` is what the node agent last said, None if it never said anything; ``since`` is
    when that phase began. ``detail`` says why, if there is something to say."""

    node: str
    status: Status
    phase: str | None
    since: str | None
    wanted: bool
    pid: int | None
    starts: int
    detail: str


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """One service. ``startup_order`` and ``shutdown_order`` are its ranks: services of equal rank do not wait for one
    another. ``endpoint`` and ``health_endpoint`` are None for a service that has none, and hold no password; if it runs
    on several nodes, they are those of the first. ``held`` tells whether a hold stands on it."""

    name: str
    type: str
    status: Status
    endpoint: str | None
    health_endpoint: str | None
    dependencies: tuple[str, ...]
    dependents: tuple[str, ...]
    startup_order: int
    shutdown_order: int
    critical: bool
    held: bool
    instances: tuple[InstanceAnswer, ...]


@dataclass(frozen=True, slots=True)
class ServicesAnswer:
    services: tuple[ServiceAnswer, ...]


def services_answer(snapshot: Snapshot, now: float, *, locate: Locate = lambda spec: spec) -> ServicesAnswer:
    """All services in the order of their start."""
    depths, heights = snapshot.graph.depths(), snapshot.graph.heights()
    order = snapshot.graph.in_start_order(snapshot.graph.services)

    def answer(name: str) -> ServiceAnswer:
        spec = locate(snapshot.specs[name])
        return ServiceAnswer(
            name=name,
            type=spec.type,
            status=service_status(snapshot, name, now),
            endpoint=_public(spec.endpoint),
            health_endpoint=_public(health_endpoint(spec)),
            dependencies=tuple(edge.dependency for edge in snapshot.graph.dependencies(name)),
            dependents=tuple(edge.service for edge in snapshot.graph.dependents(name)),
            startup_order=depths[name],
            shutdown_order=heights[name],
            critical=spec.critical,
            held=holds_on(snapshot, spec.instances, now),
            instances=tuple(instance_answer(snapshot, instance, now) for instance in spec.instances),
        )

    return ServicesAnswer(tuple(answer(name) for name in order))


def instance_answer(snapshot: Snapshot, instance: Instance, now: float) -> InstanceAnswer:
    """One instance as it is now."""
    desired, observed = snapshot.desired.get(instance), snapshot.observed.get(instance)
    return InstanceAnswer(
        node=instance.node,
        status=instance_status(snapshot, instance, now),
        phase=str(observed.phase) if observed is not None else None,
        since=instant_or_none(observed.since if observed is not None else None),
        wanted=desired is not None and (desired.run or desired.wanted),
        pid=observed.pid if observed is not None else None,
        starts=observed.starts if observed is not None else 0,
        detail=observed.detail if observed is not None else "",
    )


def health_endpoint(spec: ServiceSpec) -> str | None:
    """Where its health can be asked for: what the spec says, or the target of its first check that has one."""
    if spec.health_endpoint is not None:
        return spec.health_endpoint
    return next((url for url in map(_check_url, spec.checks) if url is not None), None)


def _public(url: str | None) -> str | None:
    """``url`` without its password: an answer ends up on screens and in logs."""
    return None if url is None else _PASSWORD.sub(r"\1:***@", url)


def _check_url(check: Check) -> str | None:
    if not check.target:
        return None
    schemes = {CheckKind.HTTP: "", CheckKind.TCP: "tcp://", CheckKind.GRPC: "grpc://"}
    return f"{schemes[check.kind]}{check.target}" if check.kind in schemes else None
