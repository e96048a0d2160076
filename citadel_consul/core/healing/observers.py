"""What is wrong with those who observe, rather than with what they observe."""

from __future__ import annotations

from dataclasses import dataclass

from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.snapshot import CheckStatus, Snapshot


@dataclass(frozen=True, slots=True)
class ObserverFault:
    """A witness that is, or may be, wrong. ``place`` is an instance or a node; ``certain`` if it has been refuted."""

    place: str
    message: str
    certain: bool


def observer_faults(snapshot: Snapshot) -> tuple[ObserverFault, ...]:
    """What was seen of Consul's agents and checks and is not believed: nothing is restarted for it."""
    found = [
        ObserverFault(node, f"{message}: what is said of this node's services is not to be trusted", certain=True)
        for node, message in snapshot.node_faults.items()
    ]
    for instance, check in snapshot.checks.items():
        observed = snapshot.observed.get(instance)
        if observed is None or observed.phase is not Phase.READY or check is CheckStatus.MAINTENANCE:
            continue
        if observed.contradicted_since is not None:
            message = f"Consul calls it {check}, and it passes the same checks when its node agent runs them"
            found.append(ObserverFault(str(instance), message, certain=True))
        elif check is CheckStatus.CRITICAL and observed.failing_since is None:
            message = "Consul calls it critical, which its node agent has not confirmed"
            found.append(ObserverFault(str(instance), message, certain=False))
    return tuple(sorted(found, key=lambda fault: fault.place))
