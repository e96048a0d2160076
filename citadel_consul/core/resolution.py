"""What the catalog and DNS say of a service, and where they differ."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

PASSING: Final = "passing"
CRITICAL: Final = "critical"

_IS_ADDRESS: Final = re.compile(r"[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*")


@dataclass(frozen=True, slots=True)
class CatalogInstance:
    """An instance as the HTTP API has it. ``status`` is the worst of its checks and its node's."""

    id: str
    node: str
    address: str
    port: int
    status: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsTarget:
    """An instance as an SRV record has it."""

    address: str
    port: int
    weight: int


@dataclass(frozen=True, slots=True)
class DnsSide:
    """What DNS at ``server`` answers for ``name``. ``addresses`` are from A and AAAA records, ``services`` from SRV.

    ``ttl_seconds`` is the shortest of the records'. ``failure`` says why there is no answer.
    """

    server: str
    name: str
    addresses: tuple[str, ...] = ()
    services: tuple[DnsTarget, ...] = ()
    ttl_seconds: int | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Resolution:
    """Both sides. ``dns`` is None if it was not asked; ``differences`` are sentences."""

    service: str
    tag: str | None
    passing: int
    instances: tuple[CatalogInstance, ...]
    dns: DnsSide | None = None
    differences: tuple[str, ...] = ()


def differences(instances: tuple[CatalogInstance, ...], dns: DnsSide, *, only_passing: bool | None) -> tuple[str, ...]:
    """Where DNS says something else than it should by the catalog.

    It hands out what is not critical or, with ``only_passing``, what passes; None: not known which of them.
    """
    if dns.failure:
        return (dns.failure,)
    must = {i for i in instances if i.status == PASSING or (only_passing is False and i.status != CRITICAL)}
    may = must | {i for i in instances if only_passing is None and i.status != CRITICAL}
    return (*_missing(must, dns), *_surplus(may, dns))


def _missing(must: set[CatalogInstance], dns: DnsSide) -> Iterator[str]:
    targets = {(service.address, service.port) for service in dns.services}
    for instance in sorted(must, key=lambda i: i.id):
        where = f"{instance.id} ({instance.address}:{instance.port})"
        without = [] if (instance.address, instance.port) in targets else ["SRV"]
        # An address that is a name has no A record of Consul's, unless it stands alone.
        if _IS_ADDRESS.fullmatch(instance.address) and instance.address not in dns.addresses:
            without.append("AAAA" if ":" in instance.address else "A")
        if without:
            yield f"DNS has no {' and no '.join(without)} record of {where}, which is {instance.status}"


def _surplus(may: set[CatalogInstance], dns: DnsSide) -> Iterator[str]:
    for service in dns.services:
        if (service.address, service.port) not in {(i.address, i.port) for i in may}:
            yield f"DNS hands out {service.address}:{service.port} (SRV), which the catalog would not"
    for address in dns.addresses:
        if address not in {i.address for i in may}:
            yield f"DNS hands out {address} (A or AAAA), which the catalog would not"
