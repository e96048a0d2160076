"""What the cluster knows: nodes, services, and how their checks stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from citadel_consul.consul.api import Endpoint, Indexed, blocking, document, index_of
from citadel_consul.consul.transport import Response

T = TypeVar("T")

PASSING: Final = "passing"
WARNING: Final = "warning"
CRITICAL: Final = "critical"
STATES: Final = ("any", PASSING, WARNING, CRITICAL)

MAINTENANCE_PREFIX: Final = "_service_maintenance:"
"""How Consul names the check that stands for the maintenance mode of a service."""


@dataclass(frozen=True, slots=True)
class CheckState:
    """How one check stands. ``service_id`` and ``service_name`` are empty for a check of the node."""

    node: str
    check_id: str
    name: str
    status: str
    output: str
    service_id: str
    service_name: str
    tags: tuple[str, ...]
    modify_index: int
    notes: str = ""

    @property
    def is_maintenance(self) -> bool:
        """Whether it is the mark of the maintenance mode of a service."""
        return self.check_id.startswith(MAINTENANCE_PREFIX)


@dataclass(frozen=True, slots=True)
class CatalogNode:
    """A node as the catalog lists it."""

    name: str
    id: str
    address: str
    datacenter: str
    meta: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """A registered instance of a service. ``address`` is empty where it is that of the node."""

    id: str
    name: str
    address: str
    port: int
    tags: tuple[str, ...]
    meta: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """An instance with its node and every check that counts for it (its own and the node's)."""

    node: CatalogNode
    service: ServiceEntry
    checks: tuple[CheckState, ...]

    @property
    def status(self) -> str:
        """The worst of its checks, which is what DNS and ``passing`` go by."""
        statuses = {check.status for check in self.checks}
        if CRITICAL in statuses:
            return CRITICAL
        return WARNING if WARNING in statuses else PASSING

    @property
    def address(self) -> str:
        """Where clients reach the instance."""
        return self.service.address or self.node.address


class Catalog(Endpoint):
    """Methods on the catalog and the health of what is in it. All but the last two are blocking queries on request."""

    async def health_state(
        self,
        state: str,
        index: int | None = None,
        wait_seconds: float | None = None,
        *,
        filter: str | None = None,  # noqa: A002  # the API's own word
    ) -> Indexed[tuple[CheckState, ...]]:
        """Every check in ``state``: ``passing``, ``warning``, ``critical`` or ``any``."""
        if state not in STATES:
            # Consul answers an unknown state with an empty list.
            raise ValueError(f"no state of a check: {state!r}")
        params = blocking(index, wait_seconds)
        if filter:
            params.append(("filter", filter))
        return await self._read(_each(check_state), f"/v1/health/state/{state}", params)

    async def health_node(
        self,
        node: str,
        index: int | None = None,
        wait_seconds: float | None = None,
        *,
        filter: str | None = None,  # noqa: A002  # the API's own word
    ) -> Indexed[tuple[CheckState, ...]]:
        """Every check of a node and of the services on it."""
        params = blocking(index, wait_seconds)
        if filter:
            params.append(("filter", filter))
        return await self._read(_each(check_state), f"/v1/health/node/{node}", params)

    async def health_service(
        self,
        name: str,
        *,
        passing: bool = False,
        tag: str | None = None,
        near: str | None = None,
        index: int | None = None,
        wait_seconds: float | None = None,
        filter: str | None = None,  # noqa: A002  # the API's own word
    ) -> Indexed[tuple[ServiceHealth, ...]]:
        """The instances of a service; ``passing`` leaves out what DNS would. ``near`` sorts by round trip to a node."""
        params = blocking(index, wait_seconds)
        if passing:
            params.append(("passing", "1"))
        params.extend((key, value) for key, value in (("tag", tag), ("near", near), ("filter", filter)) if value)
        return await self._read(_each(_service_health), f"/v1/health/service/{name}", params)

    async def catalog_services(
        self, index: int | None = None, wait_seconds: float | None = None
    ) -> Indexed[Mapping[str, tuple[str, ...]]]:
        """The name of every service, with all tags that any of its instances has, sorted (Consul has no order)."""
        return await self._read(_tags_by_service, "/v1/catalog/services", blocking(index, wait_seconds))

    async def node_services(
        self,
        node: str,
        *,
        filter: str | None = None,  # noqa: A002  # the API's own word
    ) -> Mapping[str, ServiceEntry]:
        """What the catalog has on a node, by the id of the service; nothing for a node that it does not know."""
        params = (("filter", filter),) if filter else ()
        return await self._read(_services_by_id, f"/v1/catalog/node/{node}", params)

    async def catalog_nodes(
        self,
        index: int | None = None,
        wait_seconds: float | None = None,
        *,
        near: str | None = None,
        filter: str | None = None,  # noqa: A002  # the API's own word
    ) -> Indexed[tuple[CatalogNode, ...]]:
        """Every node of the datacenter."""
        params = blocking(index, wait_seconds)
        params.extend((key, value) for key, value in (("near", near), ("filter", filter)) if value)
        return await self._read(_each(_node), "/v1/catalog/nodes", params)

    async def status_leader(self) -> str | None:
        """The address of the cluster's leader as this agent knows it; ``None`` while there is none."""
        return await self._read(_leader, "/v1/status/leader")

    async def event_fire(
        self,
        name: str,
        payload: bytes = b"",
        *,
        node: str | None = None,
        service: str | None = None,
        tag: str | None = None,
    ) -> str:
        """Gossip a user event (payloads well under 512 bytes); returns its id. Filters are regular expressions."""
        filters = [(key, value) for key, value in (("node", node), ("service", service), ("tag", tag)) if value]
        return await self._write(_event_id, f"/v1/event/fire/{name}", filters, payload)


def check_state(item: Mapping[str, Any]) -> CheckState:
    """Read one check, as the agent or the catalog writes it."""
    return CheckState(
        node=item["Node"],
        check_id=item["CheckID"],
        name=item["Name"],
        status=item["Status"],
        output=item["Output"],
        service_id=item["ServiceID"],
        service_name=item["ServiceName"],
        tags=tuple(item.get("ServiceTags") or ()),
        modify_index=item.get("ModifyIndex", 0),
        notes=item.get("Notes") or "",
    )


def service_entry(item: Mapping[str, Any]) -> ServiceEntry:
    """Read one service, as the agent or the health endpoint writes it."""
    return ServiceEntry(
        id=item["ID"],
        name=item["Service"],
        address=item.get("Address") or "",
        port=item.get("Port") or 0,
        tags=tuple(item.get("Tags") or ()),
        meta=item.get("Meta") or {},
    )


def _node(item: Mapping[str, Any]) -> CatalogNode:
    return CatalogNode(
        name=item["Node"],
        id=item.get("ID") or "",
        address=item["Address"],
        datacenter=item.get("Datacenter") or "",
        meta=item.get("Meta") or {},
    )


def _service_health(item: Mapping[str, Any]) -> ServiceHealth:
    checks = tuple(check_state(check) for check in item["Checks"] or ())
    return ServiceHealth(_node(item["Node"]), service_entry(item["Service"]), checks)


def _each(read: Callable[[Mapping[str, Any]], T]) -> Callable[[Response], Indexed[tuple[T, ...]]]:
    def decode(response: Response) -> Indexed[tuple[T, ...]]:
        return Indexed(index_of(response), tuple([read(item) for item in document(response) or ()]))

    return decode


def _event_id(response: Response) -> str:
    return str(document(response)["ID"])


def _leader(response: Response) -> str | None:
    leader = document(response)
    if not isinstance(leader, str):
        raise TypeError("the leader's address is no string")
    return leader or None


def _services_by_id(response: Response) -> Mapping[str, ServiceEntry]:
    listing = document(response)
    services = (listing or {}).get("Services") or {}
    return {service_id: service_entry(item) for service_id, item in services.items()}


def _tags_by_service(response: Response) -> Indexed[Mapping[str, tuple[str, ...]]]:
    tags = {name: tuple(sorted(values or ())) for name, values in document(response).items()}
    return Indexed(index_of(response), tags)
