"""What is wrong with those who observe, rather than with what they observe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Instance
from citadel_consul.core.snapshot import CheckStatus, Snapshot

MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class ObserverFault:
    """A witness that is, or may be, wrong. ``place`` is an instance or a node; ``certain`` if it has been refuted."""

    place: str
    message: str
    certain: bool


def observer_faults(snapshot: Snapshot) -> tuple[ObserverFault, ...]:
    """What was seen of Consul's agents and checks and is not believed: nothing is restarted for it.

    What is said of many instances of one node is one fault, with the node as its place.
    """
    found = [
        ObserverFault(node, f"{message}: what is said of this node's services is not to be trusted", certain=True)
        for node, message in snapshot.node_faults.items()
    ]
    doubted: dict[tuple[str, CheckStatus, bool], list[Instance]] = {}
    for instance, check, refuted in doubts(snapshot):
        doubted.setdefault((instance.node, check, refuted), []).append(instance)
    found += [_fault(check, refuted, sorted(told)) for (_, check, refuted), told in doubted.items()]
    return tuple(sorted(found, key=lambda fault: fault.place))


def doubts(snapshot: Snapshot) -> Iterator[tuple[Instance, CheckStatus, bool]]:
    """What Consul's checks say of instances and is not believed, and whether a node agent has refuted it."""
    for instance, check in snapshot.checks.items():
        observed = snapshot.observed.get(instance)
        if observed is None or observed.phase is not Phase.READY or check is CheckStatus.MAINTENANCE:
            continue
        if observed.contradicted_since is not None:
            yield instance, check, True
        elif check is CheckStatus.CRITICAL and observed.failing_since is None:
            yield instance, check, False


def _fault(check: CheckStatus, refuted: bool, instances: list[Instance]) -> ObserverFault:
    if len(instances) == 1:
        doubt = (
            "and it passes the same checks when its node agent runs them"
            if refuted
            else "which its node agent has not confirmed"
        )
        return ObserverFault(str(instances[0]), f"Consul calls it {check}, {doubt}", refuted)
    doubt = (
        "and they pass the same checks when their node agent runs them"
        if refuted
        else "which their node agent has not confirmed"
    )
    rest = len(instances) - MOST_NAMES
    names = ", ".join(instance.service for instance in instances[:MOST_NAMES]) + (
        f" and {rest} more" if rest > 0 else ""
    )
    return ObserverFault(
        instances[0].node, f"Consul calls {len(instances)} services {check}, {doubt}: {names}", refuted
    )
