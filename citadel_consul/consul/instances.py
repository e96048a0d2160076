"""The instances of a service as its clients want them: where each listens, how well it is, what share it takes.

Of the health endpoint this reads what a choice needs and no more; ``catalog`` has the checks and their outputs. With
``cached`` the local agent answers from its own cache, which it keeps fresh by one watch of its own for all of its
clients: ten processes of a node that follow one service cost the servers one watch (measured: no later than without).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from citadel_consul.consul.api import Endpoint, Indexed, blocking, document, index_of
from citadel_consul.consul.transport import Response

PASSING = "passing"
WARNING = "warning"
CRITICAL = "critical"

_DEFAULT_WEIGHT = 1


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a service.

    ``host`` has no brackets, also when it is an IPv6 address. ``port`` is 0 for a service that listens on none.
    ``address`` is ``host:port`` as a URL has it. ``status`` is the worst of its checks and its node's: ``passing``,
    ``warning`` or ``critical``. ``weight`` is the share that it takes at this status.
    """

    id: str
    service: str
    node: str
    datacenter: str
    host: str
    port: int
    status: str
    weight: int
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict, hash=False)
    address: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        # Every request asks for it several times.
        object.__setattr__(self, "address", f"{host}:{self.port}" if self.port else host)

    def __str__(self) -> str:
        return f"{self.service} at {self.address}"


class Instances(Endpoint):
    """Methods on the instances of services."""

    async def service_instances(
        self,
        service: str,
        index: int | None = None,
        wait_seconds: float | None = None,
        *,
        tag: str | None = None,
        near: str | None = None,
        cached: bool = False,
    ) -> Indexed[tuple[Instance, ...]]:
        """Every instance of ``service``, whatever its status; a blocking query if there is an ``index`` to wait past.

        ``near`` names the node (``_agent`` is the agent's own) by distance from which they are ordered.
        """
        params = blocking(index, wait_seconds)
        params.extend((key, value) for key, value in (("tag", tag), ("near", near)) if value)
        if cached:
            params.append(("cached", ""))
        return await self._read(_indexed_instances, f"/v1/health/service/{service}", params)

    async def query_instances(self, query: str, near: str | None = None) -> tuple[Instance, ...]:
        """What a prepared query, or a template of one, finds for the name ``query``: it may be in another datacenter.

        Raises ``NotFound`` if no prepared query answers to that name.
        """
        params = [("near", near)] if near else []
        return await self._read(_query_instances, f"/v1/query/{query}/execute", params)


def _indexed_instances(response: Response) -> Indexed[tuple[Instance, ...]]:
    return Indexed(index_of(response), tuple([_instance(item) for item in document(response) or ()]))


def _query_instances(response: Response) -> tuple[Instance, ...]:
    answer = document(response)
    return tuple([_instance(item, answer.get("Datacenter") or "") for item in answer["Nodes"] or ()])


def _instance(item: Mapping[str, Any], datacenter: str = "") -> Instance:
    node, service = item["Node"], item["Service"]
    status = _worst(item["Checks"] or ())
    weights = service.get("Weights") or {}
    return Instance(
        id=service["ID"],
        service=service["Service"],
        node=node["Node"],
        datacenter=node.get("Datacenter") or datacenter,
        host=service.get("Address") or node["Address"],
        port=service.get("Port") or 0,
        status=status,
        weight=weights.get("Warning" if status == WARNING else "Passing", _DEFAULT_WEIGHT),
        tags=tuple(service.get("Tags") or ()),
        meta=service.get("Meta") or {},
    )


def _worst(checks: Any) -> str:
    states = {check["Status"] for check in checks}
    if CRITICAL in states:
        return CRITICAL
    return WARNING if WARNING in states else PASSING
