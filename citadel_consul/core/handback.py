"""Handing services back: their node agents let go of what runs, and citadel forgets it.

The request is a hold with ``handback``: from the moment that it stands nothing is recovered any more. The leader then
orders each instance to be *released*. That is an order of its own, and not the absence of one: orders that are missing
(data of Consul that was lost, a key that was deleted by hand) must never make an agent let go. The agent takes the
instance out of the catalog, stops watching it, and reports it no longer; whatever happens to agents and leaders
meanwhile, nothing here stops it. Whoever asked removes spec, edges and hold when all instances were let go of.
"""

from __future__ import annotations

from collections.abc import Iterable

from citadel_consul.core.lifecycle import Desired
from citadel_consul.core.model import Instance
from citadel_consul.core.snapshot import Hold, Snapshot
from citadel_consul.core.turn import Turn


def hand_back(turn: Turn, taken: Iterable[tuple[str, frozenset[str]]]) -> None:
    """Order what is to be handed back to be released, unless one of the unfinished operations works on it."""
    asked = [hold for hold in turn.snapshot.holds if hold.handback and hold.scope == "service"]
    if not asked:
        return
    busy = frozenset[str]().union(*(scope for _, scope in taken))
    for hold in asked:
        if hold.name not in busy and hold.stands(turn.now):
            for instance in turn.snapshot.instances(hold.name):
                _release(turn, instance, hold)


def is_let_go(snapshot: Snapshot, instance: Instance) -> bool:
    """Whether nobody of citadel's has ``instance`` in hand. A node without an agent has nobody."""
    desired, observed = snapshot.desired.get(instance), snapshot.observed.get(instance)
    if desired is None and observed is None:
        return True
    ordered = desired is not None and desired.released
    return ordered and (observed is None or instance.node not in snapshot.agents)


def _release(turn: Turn, instance: Instance, hold: Hold) -> None:
    desired, observed = turn.snapshot.desired.get(instance), turn.snapshot.observed.get(instance)
    if (desired is None and observed is None) or (desired is not None and desired.released):
        return
    by = f" by {hold.by}" if hold.by else ""
    reason = f"handed back{by}"
    order = Desired(run=False, generation=turn.next_generation(instance), reason=reason, released=True)
    turn.set_desired(instance, order)
    turn.record("instance-released", f"{instance} is {reason}: it is let go of as it is", instance=instance)
