"""Stacks at a moment, made of data: for the screens, which need no Consul."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from citadel_consul.cli.looking import Look
from citadel_consul.core.answers.status import Leadership
from citadel_consul.core.graph import build_graph
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Edge, Instance, ProcessBackend, ServiceSpec
from citadel_consul.core.operation import Operation
from citadel_consul.core.snapshot import CheckStatus, Defaults, Hold, Snapshot
from citadel_consul.store.state import StackState

NOW = 1_752_589_800.0
"""2025-07-15T14:30:00Z."""

LEADER = Leadership("o1:8000", "o1", "10.0.0.1:8000", NOW - 7_500.0, 312)


def moment(
    phases: Mapping[str, Phase | None],
    edges: Iterable[tuple[str, str] | Edge] = (),
    *,
    nodes: Mapping[str, tuple[str, ...]] | None = None,
    checks: Mapping[str, CheckStatus] | None = None,
    details: Mapping[str, str] | None = None,
    wanted: frozenset[str] = frozenset(),
    agents: frozenset[str] = frozenset({"n1"}),
    operations: tuple[Operation, ...] = (),
    holds: tuple[Hold, ...] = (),
    not_critical: frozenset[str] = frozenset(),
) -> Snapshot:
    """A stack whose services are in ``phases`` (None: never seen); what is not stopped is wanted."""
    places = {name: (nodes or {}).get(name, ("n1",)) for name in phases}
    graph, faults = build_graph(phases, [e if isinstance(e, Edge) else Edge(*e) for e in edges])
    desired: dict[Instance, Desired] = {}
    observed: dict[Instance, Observed] = {}
    for name, phase in phases.items():
        for node in places[name]:
            instance = Instance(name, node)
            run = phase not in (None, Phase.STOPPED, Phase.STOPPING)
            desired[instance] = Desired(run, 1, wanted=run or name in wanted)
            if phase is not None:
                ready = NOW - 60.0 if phase is Phase.READY else None
                detail = (details or {}).get(name, "")
                started = NOW - 3.0 if phase is Phase.STARTING else NOW - 62.5
                observed[instance] = Observed(1, phase, NOW - 60.0, started, ready, detail=detail)
    return Snapshot(
        stack="shop",
        specs={
            name: ServiceSpec(name, "test", places[name], ProcessBackend(("x",)), critical=name not in not_critical)
            for name in phases
        },
        graph=graph,
        graph_faults=faults,
        desired=desired,
        observed=observed,
        checks={Instance(name, "n1"): status for name, status in (checks or {}).items()},
        agents=agents,
        operations=operations,
        holds=holds,
        defaults=Defaults(),
    )


def look_at(
    snapshot: Snapshot,
    *,
    leadership: Leadership | None = LEADER,
    standbys: tuple[str, ...] | None = ("o2:8000",),
    outputs: Mapping[Instance, tuple[str, ...]] | None = None,
) -> Look:
    """A look at it, as the commands take one."""
    return Look(NOW, StackState(snapshot.stack, snapshot.defaults), snapshot, leadership, standbys, outputs or {})
