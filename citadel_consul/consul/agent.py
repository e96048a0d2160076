"""The local agent: the authority on the services and checks registered with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from citadel_consul.consul.api import Endpoint, document, found
from citadel_consul.consul.catalog import CheckState, ServiceEntry, check_state, service_entry
from citadel_consul.consul.transport import Response
from citadel_consul.errors import ConsulUnavailable, NotFound


@dataclass(frozen=True, slots=True)
class AgentSelf:
    """The agent that answers. ``config`` is its running configuration (``DebugConfig``), which has no contract.

    ``address`` is the one that it tells the other members.
    """

    node: str
    address: str
    datacenter: str
    version: str
    server: bool
    config: Mapping[str, object]

    @property
    def runs_scripts(self) -> bool:
        """Whether the agent accepts script checks over its API."""
        return bool(self.config.get("EnableRemoteScriptChecks"))


class Agent(Endpoint):
    """Methods on the local agent."""

    async def agent_self(self) -> AgentSelf:
        """Who answers."""
        return await self._read(_agent_self, "/v1/agent/self")

    async def agent_time(self) -> float | None:
        """The clock of the agent's machine in unix seconds, as the head of an answer has it (whole seconds).

        ``None`` if it does not say.
        """
        return await self._read(_time, "/v1/status/leader")

    async def register_service(self, definition: Mapping[str, object], *, replace_checks: bool = False) -> None:
        """Register a service, or change the one with its ``ID``.

        ``definition`` is the body of the agent API (``{"Name": …, "ID": …, "Checks": […]}``). A check without
        ``Status`` starts critical. ``replace_checks`` drops the service's checks that ``definition`` does not name, and
        with them at once every session bound to them; otherwise they stay.
        """
        params = [("replace-existing-checks", "true")] if replace_checks else []
        await self._write(found, "/v1/agent/service/register", params, orjson.dumps(definition))

    async def deregister_service(self, service_id: str) -> None:
        """Remove a service with its checks. One that is not there is fine."""
        try:
            await self._write(found, f"/v1/agent/service/deregister/{service_id}")
        except NotFound:
            return
        except ConsulUnavailable:
            # With ACLs on, older agents answer 500 for a service that is not there.
            if service_id in await self.agent_services():
                raise

    async def agent_services(self, filter: str | None = None) -> dict[str, ServiceEntry]:  # noqa: A002  # the API's word
        """The services of this agent by id, of all those that the token may read."""
        params = [("filter", filter)] if filter else []
        return await self._read(_services, "/v1/agent/services", params)

    async def agent_checks(self, filter: str | None = None) -> dict[str, CheckState]:  # noqa: A002  # the API's word
        """The checks of this agent by id, of all those that the token may read."""
        params = [("filter", filter)] if filter else []
        return await self._read(_checks, "/v1/agent/checks", params)

    async def register_check(self, definition: Mapping[str, object]) -> None:
        """Register a check of the node, or of the service that its ``ServiceID`` names."""
        await self._write(found, "/v1/agent/check/register", body=orjson.dumps(definition))

    async def deregister_check(self, check_id: str) -> None:
        """Remove a check. One that is not there is fine."""
        try:
            await self._write(found, f"/v1/agent/check/deregister/{check_id}")
        except NotFound:
            return
        except ConsulUnavailable:
            if check_id in await self.agent_checks():
                raise

    async def check_update(self, check_id: str, status: str, output: str = "") -> None:
        """Feed a TTL check. Keep ``output`` constant: a changing one wakes everybody who watches health.

        Raises ``NotFound`` if the agent has no such check: it forgot it in a restart, so register again.
        """
        body = orjson.dumps({"Status": status, "Output": output})
        try:
            await self._write(found, f"/v1/agent/check/update/{check_id}", body=body)
        except ConsulUnavailable:
            # Before 1.11 an unknown check was a 500. Whether the agent has it is a fact that it can be asked for.
            if check_id in await self.agent_checks():
                raise
            raise NotFound(f"this agent has no check {check_id!r}") from None

    async def service_maintenance(self, service_id: str, enable: bool, reason: str = "") -> None:
        """Take a service out of DNS, or put it back. Raises ``NotFound`` if the agent has no such service."""
        await self._write(found, f"/v1/agent/service/maintenance/{service_id}", _maintenance(enable, reason))

    async def node_maintenance(self, enable: bool, reason: str = "") -> None:
        """Take everything on this node out of DNS, or put it back."""
        await self._write(found, "/v1/agent/maintenance", _maintenance(enable, reason))


def _time(response: Response) -> float | None:
    said = response.headers.get("Date")
    return parsedate_to_datetime(said).timestamp() if said else None


def _maintenance(enable: bool, reason: str) -> list[tuple[str, object]]:
    params: list[tuple[str, object]] = [("enable", "true" if enable else "false")]
    if reason:
        params.append(("reason", reason))
    return params


def _agent_self(response: Response) -> AgentSelf:
    answer: Mapping[str, Any] = document(response)
    config = answer["Config"]
    return AgentSelf(
        node=config["NodeName"],
        address=answer["Member"]["Addr"],
        datacenter=config["Datacenter"],
        version=config["Version"],
        server=config["Server"],
        config=answer.get("DebugConfig") or {},
    )


def _services(response: Response) -> dict[str, ServiceEntry]:
    return {service_id: service_entry(item) for service_id, item in document(response).items()}


def _checks(response: Response) -> dict[str, CheckState]:
    return {check_id: check_state(item) for check_id, item in document(response).items()}
