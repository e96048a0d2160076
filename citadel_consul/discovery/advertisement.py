"""What a service that registers itself tells Consul: the same templates as for a stack, without a stack.

The node agent of a stack takes out registrations of its stack that it did not make. So these carry no
``citadel-stack``, and their ids are of another form, ``service:node:port``: several instances of a service may share a
node here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from citadel_consul.core.model import Check, CheckKind, ProcessBackend, ServiceSpec
from citadel_consul.core.names import RULE, is_label
from citadel_consul.errors import InvalidInput
from citadel_consul.rendering.definition import render_definition
from citadel_consul.rendering.environment import duration
from citadel_consul.rendering.identity import check_id, service_id
from citadel_consul.rendering.registration import to_agent_api
from citadel_consul.rendering.scope import NodeContext

ALIVE: Final = "alive"
_NO_STACK: Final = "self"
_SOMEWHERE: Final = "127.0.0.1"
_FLOOR_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Weights:
    """The share of requests that an instance takes while it passes, and while it warns."""

    passing: int = 10
    warning: int = 1


@dataclass(frozen=True, slots=True)
class Advertisement:
    """One instance as it wants to be known. The fields are those of ``Registration``."""

    service: str
    node: str
    port: int | None
    address: str | None
    scheme: str
    instance_id: str
    type: str
    tags: tuple[str, ...]
    meta: Mapping[str, str]
    weights: Weights | None
    checks: tuple[Check, ...]
    ttl_seconds: float
    remove_after_seconds: float | None
    template: str | None
    template_dirs: tuple[Path, ...] = field(default=())

    def __post_init__(self) -> None:
        if not is_label(self.service):
            raise InvalidInput.at("service", f"{self.service!r} is not a name", RULE)
        if self.remove_after_seconds is not None and self.remove_after_seconds < _FLOOR_SECONDS:
            remedy = "set it far above any outage that the service recovers from, or to None"
            raise InvalidInput.at("remove_after_seconds", "Consul takes no less than a minute", remedy)
        if any(check.name == ALIVE for check in self.checks):
            raise InvalidInput.at("checks", f"the name {ALIVE!r} is taken by the check that the service feeds itself")
        self.body("passing")

    @property
    def alive_id(self) -> str:
        """Consul's id of the TTL check."""
        return check_id(self.instance_id, ALIVE)

    def body(self, status: str) -> dict[str, Any]:
        """The body of the agent API's registration, every check in ``status``. Raises InvalidInput."""
        context = NodeContext(self.node, self.address or _SOMEWHERE, _NO_STACK)
        body = to_agent_api(render_definition(self._spec(), context, self.template_dirs), status)
        self._own(body)
        if self.weights is not None:
            body["Weights"] = {"Passing": self.weights.passing, "Warning": self.weights.warning}
        if self.address is None:
            # Consul's agent knows better where its node is reached, and clients are told the node's address then.
            body.pop("Address", None)
        return body

    def _own(self, body: dict[str, Any]) -> None:
        """Give the rendered registration the identity of this instance in place of one of a stack."""
        rendered = service_id(_NO_STACK, self.service, self.node)
        body["ID"] = self.instance_id
        body["Meta"] = {key: value for key, value in body.get("Meta", {}).items() if key != "citadel-stack"}
        for check in body["Checks"]:
            check["CheckID"] = self.instance_id + str(check["CheckID"]).removeprefix(rendered)
            if check["CheckID"] == self.alive_id and self.remove_after_seconds is not None:
                check["DeregisterCriticalServiceAfter"] = duration(self.remove_after_seconds)

    def _spec(self) -> ServiceSpec:
        alive = Check(ALIVE, CheckKind.TTL, ttl_seconds=self.ttl_seconds)
        host = self.address or _SOMEWHERE
        authority = f"[{host}]" if ":" in host else host
        return ServiceSpec(
            name=self.service,
            type=self.type,
            nodes=(self.node,),
            backend=ProcessBackend(()),
            endpoint=None if self.port is None else f"{self.scheme}://{authority}:{self.port}",
            checks=(alive, *self.checks),
            tags=self.tags,
            meta=self.meta,
            template=self.template,
        )
