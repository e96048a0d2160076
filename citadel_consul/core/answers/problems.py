"""What is wrong with a stack beyond the health of its services."""

from __future__ import annotations

from dataclasses import dataclass

from citadel_consul.core.health import hold_on
from citadel_consul.core.model import Instance
from citadel_consul.core.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class StackProblem:
    """One thing that an operator should know. ``kind`` is ``key`` (cannot be used as it stands), ``edge`` (not in
    force), ``agent`` (missing) or ``leader`` (missing); ``place`` is the key, the edge or the node."""

    kind: str
    place: str
    message: str


def stack_problems(snapshot: Snapshot, *, led: bool) -> tuple[StackProblem, ...]:
    """All that is wrong: unusable keys, edges that are not in force, nodes without an agent, no leader."""
    found = (
        [] if led else [StackProblem("leader", snapshot.stack, "no orchestrator leads: nothing is started or stopped")]
    )
    found += [StackProblem("key", fault.key, fault.message) for fault in snapshot.faults]
    found += [
        StackProblem("edge", f"{fault.service} → {fault.dependency}", fault.message) for fault in snapshot.graph_faults
    ]
    found += [
        StackProblem("agent", node, "no node agent runs on it: its services cannot be started, stopped or seen")
        for node in missing_agents(snapshot)
    ]
    return tuple(found)


def missing_agents(snapshot: Snapshot) -> tuple[str, ...]:
    """The nodes that services are placed on and that no node agent answers for."""
    nodes = dict.fromkeys(node for spec in snapshot.specs.values() for node in spec.nodes)
    return tuple(sorted(node for node in nodes if node not in snapshot.agents))


def holds_on(snapshot: Snapshot, instances: tuple[Instance, ...], now: float) -> bool:
    """Whether a hold keeps citadel's hands off any of ``instances`` at ``now``."""
    return any(hold_on(snapshot, instance, now) is not None for instance in instances)
