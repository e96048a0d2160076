"""Sessions: what a lock is held by, and what makes it let go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential

from citadel_consul.consul.api import Endpoint, document, milliseconds
from citadel_consul.consul.transport import Response
from citadel_consul.errors import ConsulUnavailable, NotFound

SERF_HEALTH: Final = "serfHealth"
_BIND_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A living session. ``ttl`` is a duration as it was given, empty if there is none."""

    id: str
    name: str
    node: str
    behavior: str
    lock_delay_seconds: float
    ttl: str
    node_checks: tuple[str, ...]
    service_checks: tuple[str, ...]
    create_index: int


class Sessions(Endpoint):
    """Methods on sessions."""

    async def session_create(
        self,
        name: str,
        ttl_seconds: float | None = None,
        *,
        lock_delay_seconds: float = 0.0,
        node_checks: Sequence[str] = (SERF_HEALTH,),
        service_checks: Sequence[str] = (),
        behavior: str = "release",
        node: str | None = None,
    ) -> str:
        """Create a session that lives while all its checks do; returns its id.

        ``ttl_seconds`` is 10 to 86,400; Consul expires it at up to twice that. No lock delay is the default, because
        every write that matters is fenced. The catalog may not know a check yet that was registered, or passed, a
        moment ago; Consul then answers 500, so the call is tried again for two seconds before ``ConsulUnavailable``.
        """
        body: dict[str, object] = {
            "Name": name,
            "LockDelay": milliseconds(lock_delay_seconds),
            "Behavior": behavior,
            "NodeChecks": list(node_checks),
            "ServiceChecks": [{"ID": check} for check in service_checks],
        }
        if ttl_seconds is not None:
            body["TTL"] = milliseconds(ttl_seconds)
        if node is not None:
            body["Node"] = node
        _ = self._api  # loaded now (30 ms), and not when a dead leader's session has to be destroyed at once
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(ConsulUnavailable),
            wait=wait_exponential(multiplier=0.005, max=0.2),
            stop=stop_after_delay(_BIND_SECONDS if service_checks else 0.0),
            reraise=True,
        )
        return await retrying(self._write, _id, "/v1/session/create", (), orjson.dumps(body))

    async def session_renew(self, session: str) -> bool:
        """Start the session's TTL anew; ``False`` if the session is gone."""
        try:
            await self._api.session.renew(session)
        except NotFound:
            return False
        return True

    async def session_destroy(self, session: str) -> None:
        """End the session, which frees its locks. One that is gone already is fine."""
        await self._api.session.destroy(session)

    async def session_info(self, session: str) -> SessionInfo | None:
        """The session, or ``None`` if it is gone (or this token may not read it)."""
        found: tuple[SessionInfo, ...] = await self._read(_sessions, f"/v1/session/info/{session}")
        return found[0] if found else None

    async def session_list(self) -> tuple[SessionInfo, ...]:
        """Every living session of the datacenter that this token may read."""
        return await self._read(_sessions, "/v1/session/list")


def _id(response: Response) -> str:
    return str(document(response)["ID"])


def _sessions(response: Response) -> tuple[SessionInfo, ...]:
    return tuple(_session(item) for item in document(response) or ())


def _session(item: Mapping[str, Any]) -> SessionInfo:
    return SessionInfo(
        id=item["ID"],
        name=item["Name"],
        node=item["Node"],
        behavior=item["Behavior"],
        lock_delay_seconds=item["LockDelay"] / 1e9,
        ttl=item["TTL"],
        node_checks=tuple(item.get("NodeChecks") or ()),
        service_checks=tuple(check["ID"] for check in item.get("ServiceChecks") or ()),
        create_index=item["CreateIndex"],
    )
