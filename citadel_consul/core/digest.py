"""What a decision would otherwise have to look at the whole stack for.

A decision is about the few things that are not as they should be, and finding those by a look at everything takes time
in proportion to the stack (25 ms for 10,000 instances). A digest names them. Whoever puts snapshots together keeps it
up to date with each change; :func:`digest_of` works it out from nothing, and both have to come to the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from citadel_consul.core.incident import Incident
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Instance, ServiceSpec
from citadel_consul.core.stats import ServiceStats, Standing


@dataclass(frozen=True, slots=True)
class Since:
    """Where a service stands, and since when (unix seconds)."""

    standing: Standing
    at: float


@dataclass(frozen=True, slots=True)
class Digest:
    """``unsettled``: the instances for which :func:`is_settled` does not hold. ``incidents``: those that are not over.

    ``wanted`` is how many services somebody wants up. ``standings`` are those of the services that count for the
    account of the stack (see ``core.accounting``), of which there is one yet; ``counted`` are all of these services.
    """

    unsettled: Collection[Instance] = frozenset()
    incidents: Mapping[str, Incident] = field(default_factory=dict)
    wanted: int = 0
    counted: frozenset[str] = frozenset()
    standings: Mapping[str, Since] = field(default_factory=dict)


def is_settled(desired: Desired | None, observed: Observed | None, *, checked: bool) -> bool:
    """Whether nothing is to be done about an instance: not wanted, or up since its last order without a lapse.

    ``checked``: one of its checks is not passing.
    """
    if desired is None or not desired.run:
        return desired is None or not desired.wanted
    if observed is None or observed.lapses or observed.generation < desired.generation:
        return False
    return observed.phase is Phase.COMPLETED or (observed.phase is Phase.READY and not checked)


def is_wanted(desired: Desired | None) -> bool:
    """Whether somebody wants an instance up, told to run or not."""
    return desired is not None and (desired.run or desired.wanted)


def counted_services(specs: Mapping[str, ServiceSpec]) -> frozenset[str]:
    """What the stack has to have up: the critical services, or all if none is; none that runs once and ends."""
    lasting = [spec for spec in specs.values() if not spec.oneshot]
    return frozenset([spec.name for spec in lasting if spec.critical] or [spec.name for spec in lasting])


def since_of(stats: ServiceStats) -> Since:
    """Since when a service stands as it does: up with its first instance, down with its last."""
    standing = stats.standing()
    if standing is Standing.UP:
        return Since(standing, min(a.since for a in stats.instances.values() if a.standing is Standing.UP))
    return Since(standing, max((account.since for account in stats.instances.values()), default=0.0))


def digest_of(
    specs: Mapping[str, ServiceSpec],
    desired: Mapping[Instance, Desired],
    observed: Mapping[Instance, Observed],
    checked: Collection[Instance],
    incidents: Mapping[str, Incident],
    stats: Mapping[str, ServiceStats],
) -> Digest:
    """The digest of all this, by a look at all of it."""
    counted = counted_services(specs)
    return Digest(
        unsettled=[i for i, d in desired.items() if not is_settled(d, observed.get(i), checked=i in checked)],
        incidents={service: incident for service, incident in incidents.items() if not incident.over},
        wanted=sum(1 for _ in wanted_services(specs, desired)),
        counted=counted,
        standings={name: since_of(stats[name]) for name in counted if name in stats},
    )


def wanted_services(specs: Mapping[str, ServiceSpec], desired: Mapping[Instance, Desired]) -> Iterator[str]:
    """The services of which anything is wanted."""
    for service, spec in specs.items():
        if any(is_wanted(desired.get(instance)) for instance in spec.instances):
            yield service
