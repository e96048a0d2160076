"""A stack at one moment, for tests of what is said of it. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from citadel_consul.core.graph import build_graph
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Edge, Instance, ProcessBackend, ServiceSpec
from citadel_consul.core.operation import Kind, Operation, OperationState, Step, StepAction, StepState
from citadel_consul.core.snapshot import CheckStatus, Snapshot

V = TypeVar("V")

NOW = 1_752_589_800.0
"""2025-07-15T14:30:00Z, as in the site's document."""

BEGAN = NOW - 3600


def spec(name: str, *nodes: str, critical: bool = True, oneshot: bool = False) -> ServiceSpec:
    """A service on ``nodes`` (default: ``n1``)."""
    backend = ProcessBackend(command=("/bin/true",))
    return ServiceSpec(name, f"type-of-{name}", nodes or ("n1",), backend, critical=critical, oneshot=oneshot)


def ready(at: float = BEGAN + 2, *, starts: int = 1) -> Observed:
    """Ready since ``at``, two seconds after its start."""
    return Observed(1, Phase.READY, since=at, started_at=at - 2, ready_at=at, starts=starts, pid=1)


def run(generation: int = 1) -> Desired:
    """An order to run."""
    return Desired(run=True, generation=generation, wanted=True, reason="startup")


def stack(*specs: ServiceSpec, edges: tuple[Edge, ...] = (), serving: bool = True) -> Snapshot:
    """A stack of which everything serves, or nothing was ever started; every node has an agent."""
    graph, faults = build_graph([s.name for s in specs], edges)
    instances = [instance for one in specs for instance in one.instances]
    return Snapshot(
        stack="demo",
        specs={one.name: one for one in specs},
        graph=graph,
        graph_faults=faults,
        desired=dict.fromkeys(instances, run()) if serving else {},
        observed=dict.fromkeys(instances, ready()) if serving else {},
        agents=frozenset(instance.node for instance in instances),
    )


def seeing(
    snapshot: Snapshot,
    name: str,
    observed: Observed | None,
    desired: Desired | None = None,
    check: CheckStatus | None = None,
    node: str = "n1",
) -> Snapshot:
    """The same moment, but for one instance."""
    instance = Instance(name, node)
    checks = {**snapshot.checks, instance: check} if check is not None else snapshot.checks
    return replace(
        snapshot,
        observed=_with(snapshot.observed, instance, observed),
        desired=_with(snapshot.desired, instance, desired),
        checks=checks,
    )


def operation(
    kind: Kind, *steps: Step, state: OperationState = OperationState.SUCCEEDED, **fields: object
) -> Operation:
    """An operation on everything that began at ``NOW - 100`` and ended at ``NOW``."""
    plain = Operation(
        id="20250715T143000000000-aaaa",
        kind=kind,
        targets=("all",),
        state=state,
        requested_at=NOW - 100,
        started_at=NOW - 100,
        ended_at=NOW,
        step_count=len(steps),
        steps=steps,
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


def step(
    service: str,
    action: StepAction,
    begin: float | None = None,
    end: float | None = None,
    state: StepState = StepState.SUCCEEDED,
    **fields: object,
) -> Step:
    """A step from ``begin`` to ``end``, in seconds since the operation began."""
    origin = NOW - 100
    plain = Step(
        service,
        "n1",
        action,
        state,
        generation=None if begin is None else 1,
        began_at=None if begin is None else origin + begin,
        ended_at=None if end is None else origin + end,
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


def _with(table: Mapping[Instance, V], key: Instance, value: V | None) -> dict[Instance, V]:
    kept = {k: v for k, v in table.items() if k != key}
    return kept if value is None else {**kept, key: value}
