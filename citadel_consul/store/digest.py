"""The digest of a stack, kept up to date by what changes (see ``core.digest``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from citadel_consul.core.digest import Digest, Since, counted_services, is_settled, is_wanted, since_of
from citadel_consul.core.incident import Incident
from citadel_consul.core.lifecycle import Desired, Observed
from citadel_consul.core.model import Instance, ServiceSpec
from citadel_consul.core.stats import ServiceStats


class RunningDigest:
    """Told of each change, it has the digest at hand whenever it is asked for."""

    def __init__(self) -> None:
        self._specs: Mapping[str, ServiceSpec] = {}
        self._counted: frozenset[str] = frozenset()
        self._unsettled: set[Instance] = set()
        self._incidents: dict[str, Incident] = {}
        self._standings: dict[str, Since] = {}
        self._wanted: dict[str, set[Instance]] = {}
        """By service: the instances that are wanted, where the spec has them."""

    def current(self) -> Digest:
        """The digest as of now."""
        return Digest(
            unsettled=frozenset(self._unsettled),
            incidents=dict(self._incidents),
            wanted=len(self._wanted),
            counted=self._counted,
            standings=dict(self._standings),
        )

    def take_specs(
        self,
        specs: Mapping[str, ServiceSpec],
        desired: Mapping[Instance, Desired],
        stats: Iterable[ServiceStats],
    ) -> None:
        """Other specs: what is wanted and what counts is found out anew."""
        self._specs, self._counted = specs, counted_services(specs)
        self._wanted = {}
        for instance, order in desired.items():
            self._take_wish(instance, order)
        self._standings = {each.service: since_of(each) for each in stats if each.service in self._counted}

    def take_instance(
        self, instance: Instance, desired: Desired | None, observed: Observed | None, *, checked: bool
    ) -> None:
        """What is wanted or seen of an instance has changed."""
        if is_settled(desired, observed, checked=checked):
            self._unsettled.discard(instance)
        else:
            self._unsettled.add(instance)
        self._take_wish(instance, desired)

    def take_incident(self, service: str, incident: Incident | None) -> None:
        """The incident of a service has changed."""
        if incident is None or incident.over:
            self._incidents.pop(service, None)
        else:
            self._incidents[service] = incident

    def take_stats(self, service: str, stats: ServiceStats | None) -> None:
        """What is counted of a service has changed."""
        if stats is None:
            self._standings.pop(service, None)
        elif service in self._counted:
            self._standings[service] = since_of(stats)

    def _take_wish(self, instance: Instance, desired: Desired | None) -> None:
        service = instance.service
        spec = self._specs.get(service)
        if spec is not None and instance.node in spec.nodes and is_wanted(desired):
            self._wanted.setdefault(service, set()).add(instance)
            return
        wanted = self._wanted.get(service)
        if wanted is not None:
            wanted.discard(instance)
            if not wanted:
                del self._wanted[service]
