"""What is wrong with a stack beyond the health of its services."""

from __future__ import annotations

from dataclasses import dataclass

from citadel_consul.core.healing.brake import most_at_release
from citadel_consul.core.healing.observers import observer_faults
from citadel_consul.core.health import hold_on
from citadel_consul.core.incident import LEFT_ALONE, STACK, Incident, IncidentState
from citadel_consul.core.model import Instance
from citadel_consul.core.snapshot import Snapshot

MOST_NAMES = 10
"""How many services a message names."""


@dataclass(frozen=True, slots=True)
class StackProblem:
    """One thing that an operator should know. ``kind`` is ``key`` (cannot be used as it stands), ``edge`` (not in
    force), ``agent`` (missing), ``leader`` (missing), ``recovery`` (frozen, given up or in quarantine) or ``observer``
    (says what is not so, or nobody has confirmed); ``place`` is the key, the edge, the node, the service or the
    instance."""

    kind: str
    place: str
    message: str


def stack_problems(snapshot: Snapshot, *, led: bool) -> tuple[StackProblem, ...]:
    """All that is wrong: unusable keys, edges that are not in force, nodes without an agent, no leader, recovery that
    needs a person, and observers that are not believed."""
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
    found += [_unrecovered(snapshot, incident) for incident in snapshot.incidents.values() if _needs_a_person(incident)]
    found += [StackProblem("observer", f.place, f.message) for f in observer_faults(snapshot)]
    return tuple(found)


def _needs_a_person(incident: Incident) -> bool:
    return not incident.over and (incident.service == STACK or incident.state in LEFT_ALONE)


def _unrecovered(snapshot: Snapshot, incident: Incident) -> StackProblem:
    """Why nothing is recovered, and how to go on."""
    name = incident.service
    if name == STACK:
        rest = len(incident.affected) - MOST_NAMES
        names = ", ".join(incident.affected[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
        most = most_at_release(snapshot.defaults, snapshot.digested().wanted)
        message = (
            f"recovery is frozen: {incident.detail} ({names}). Nothing is restarted automatically while more than "
            f"{most} fail. Look for what they have in common; to go on as it is: citadel recover all"
        )
        return StackProblem("recovery", "stack", message)
    if incident.state is IncidentState.QUARANTINED:
        message = f"flaps, so it is left alone until it is quiet; to end that sooner: citadel recover {name}"
    else:
        message = f"has failed for good after {incident.attempts} attempts ({incident.detail}): citadel recover {name}"
    return StackProblem("recovery", name, message)


def missing_agents(snapshot: Snapshot) -> tuple[str, ...]:
    """The nodes that services are placed on and that no node agent answers for."""
    nodes = dict.fromkeys(node for spec in snapshot.specs.values() for node in spec.nodes)
    return tuple(sorted(node for node in nodes if node not in snapshot.agents))


def holds_on(snapshot: Snapshot, instances: tuple[Instance, ...], now: float) -> bool:
    """Whether a hold keeps citadel's hands off any of ``instances`` at ``now``."""
    return any(hold_on(snapshot, instance, now) is not None for instance in instances)
