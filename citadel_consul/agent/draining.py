"""Draining, as the node agent does it: out of the catalog, out of clients' memories, nothing more in flight.

Three waits, one after the other; whoever calls puts an end to them when the drain's time is up.

1. Consul's maintenance mode, until the catalog shows the instance as critical: from then on neither DNS nor a watch
   names it. Deregistering would do as much, but people could not see then that it drains, and why.
2. As long as an answer from before may be used. A client with a watch needs a moment to hear of it
   (:data:`SETTLE_SECONDS`); a client of Consul's DNS may keep an answer for the TTL that the local Consul agent gives.
3. Until nothing has been in flight for :data:`QUIET_SECONDS`. What is in flight is what the service says itself, if its
   spec names a figure :data:`IN_FLIGHT` of the JSON at its health endpoint. Otherwise it is the number of connections
   that are open to the port of its endpoint: then a client that keeps an idle one holds the drain up. Where neither can
   be known the whole time is waited, since to stop in the middle of a request is what a drain is there to prevent.
   A service without a port has no clients to wait for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import httpx
import orjson

from citadel_consul.agent.connections import established
from citadel_consul.agent.gauge import BODY_BYTES, ask, teller_of
from citadel_consul.agent.readiness import Prober
from citadel_consul.agent.registrar import Registrar
from citadel_consul.config.durations import seconds_or_none
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.draining import IN_FLIGHT
from citadel_consul.core.figures import figures_in
from citadel_consul.core.model import Instance, ServiceSpec
from citadel_consul.errors import CitadelError

log = logging.getLogger(__name__)

SETTLE_SECONDS = 1.0
"""How long a client with a watch may take to hear of a change; some milliseconds, unless its machine is busy."""
QUIET_SECONDS = 0.5
LOOK_SECONDS = 0.1
TELL_SECONDS = 1.0
"""How often what is in flight is told at most: each time is a write to Consul."""
RETRY_SECONDS = 0.5

Tell = Callable[[int | None], None]


class Drainer:
    """Drains instances of one node."""

    def __init__(self, client: ConsulClient, registrar: Registrar, prober: Prober) -> None:
        self._client = client
        self._registrar = registrar
        self._prober = prober

    async def drain(self, spec: ServiceSpec, instance: Instance, pid: int | None, tell: Tell) -> None:
        """Take ``instance`` out of the catalog, and return when nothing more is in flight.

        ``pid`` is its main process, if it has one; ``tell`` is called with what is in flight when that has changed,
        with None if it cannot be known.
        """
        async with asyncio.TaskGroup() as group:
            leaving = group.create_task(self._leave(spec, instance))
            watching = group.create_task(self._watch(spec, pid, tell, leaving))
            await watching

    async def _leave(self, spec: ServiceSpec, instance: Instance) -> None:
        """Be named by nobody any more, neither by Consul nor by those who have asked it before."""
        while True:
            try:
                await self._registrar.conceal(instance)
                ttl = dns_ttl_seconds((await self._client.agent_self()).config, spec.name)
            except CitadelError as error:
                log.warning("%s cannot be taken out of the catalog yet: %s", instance, error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                break
        await asyncio.sleep(max(SETTLE_SECONDS, ttl))

    async def _watch(self, spec: ServiceSpec, pid: int | None, tell: Tell, leaving: asyncio.Task[None]) -> None:
        """Look again and again at what is in flight, until it was nothing for a while after the instance had left."""
        loop = asyncio.get_running_loop()
        quiet_since: float | None = None
        told_at = loop.time() - TELL_SECONDS
        told: int | None = -1
        while True:
            count = await self._in_flight(spec, pid)
            now = loop.time()
            if count != told and now >= told_at + TELL_SECONDS:
                tell(count)
                told_at, told = now, count
            if count != 0 or not leaving.done():
                quiet_since = None
            elif quiet_since is None:
                quiet_since = now
            elif now >= quiet_since + QUIET_SECONDS:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _in_flight(self, spec: ServiceSpec, pid: int | None) -> int | None:
        if IN_FLIGHT in spec.metrics:
            return await self._told_by_service(spec)
        port = urlsplit(spec.endpoint or "").port
        if port is None:
            return 0
        return await asyncio.to_thread(established, port, pid)

    async def _told_by_service(self, spec: ServiceSpec) -> int | None:
        check = teller_of(spec)
        if check is None:
            return None
        client = self._prober.client(verify=not check.tls_skip_verify)
        try:
            async with asyncio.timeout(check.timeout_seconds):
                _, body = await ask(client, check, with_body=True)
            document = orjson.loads(body) if len(body) <= BODY_BYTES else None
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, ValueError):
            return None
        figure = figures_in(document, {IN_FLIGHT: spec.metrics[IN_FLIGHT]}).get(IN_FLIGHT)
        return None if figure is None else max(0, round(figure))


def dns_ttl_seconds(config: Mapping[str, object], service: str) -> float:
    """How long clients may keep what Consul's DNS says of ``service``, by the agent's running configuration.

    ``service_ttl`` has an entry for the service, for a prefix (``api*``; the longest counts) or for all (``*``).
    """
    table = config.get("DNSServiceTTL")
    if not isinstance(table, Mapping):
        return 0.0
    prefixes = sorted((key for key in table if key.endswith("*") and service.startswith(key[:-1])), key=len)
    chosen = service if service in table else prefixes[-1] if prefixes else None
    if chosen is None:
        return 0.0
    return seconds_or_none(table[chosen]) or 0.0  # what has no contract may change its form
