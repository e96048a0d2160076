"""Starting what is wanted and was never told to run, once what it needs is there.

A startup skips what depends on a service that failed. The operation ends, the wish does not: when the dependency comes
back, by itself, by recovery or by hand, the services above it are started. The same goes for what a restart had stopped
when it could not go on, and for starts that no node agent was there to take.
"""

from __future__ import annotations

from citadel_consul.core.healing.policy import policy_of
from citadel_consul.core.healing.ward import Ward
from citadel_consul.core.incident import LEFT_ALONE
from citadel_consul.core.model import Instance


def startable(ward: Ward) -> tuple[Instance, ...]:
    """What is wanted, does not run, and could be started now, dependencies first."""
    snapshot, idle = ward.turn.snapshot, ward.survey.idle
    chosen: list[Instance] = []
    for service in snapshot.graph.in_start_order(s for s in snapshot.graph.services if s in idle):
        if service in ward.busy or not policy_of(snapshot, service).enabled or not ward.causes.is_grounded(service):
            continue
        incident = ward.incident(service)
        if incident is None or incident.state not in LEFT_ALONE:
            chosen += [instance for instance in idle[service] if _can_start(ward, instance)]
    return tuple(chosen)


def _can_start(ward: Ward, instance: Instance) -> bool:
    snapshot = ward.turn.snapshot
    return instance.node in snapshot.agents and not snapshot.is_alive(instance) and not ward.is_held(instance)
