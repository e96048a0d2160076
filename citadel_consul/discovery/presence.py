"""The life of one registered instance: the work behind ``Registration``, in one event loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Final

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.instances import CRITICAL, PASSING, WARNING
from citadel_consul.discovery.advertisement import Advertisement
from citadel_consul.discovery.termination import Termination
from citadel_consul.errors import CitadelError, NotFound, TemporaryError

log = logging.getLogger(__name__)

Verdict = bool | str | None
HealthFunction = Callable[[], Verdict | Awaitable[Verdict]]

REASON: Final = "citadel: this instance is draining"
_MAINTENANCE: Final = "_service_maintenance:"
_BEATS_PER_TTL: Final = 3
_RETRY_SECONDS: Final = 1.0
_REFUSED_SECONDS: Final = 10.0
_FIRST_KNOCK_SECONDS: Final = 0.02
_LAST_KNOCK_SECONDS: Final = 0.5
_KNOCKS_BEFORE_WARNING: Final = 60
_FAREWELL_SECONDS: Final = 3.0

# Texts that never change: a changing output wakes everybody who watches the service.
_OUTPUTS: Final = {
    PASSING: "the service says that it is well",
    WARNING: "the service says that it is degraded",
    CRITICAL: "the service says that it cannot serve",
}


class Presence:
    """Registers one instance, feeds its check, drains it, takes it out. Made and used in one event loop.

    ``termination`` is set when SIGTERM is kept back; ``terminate`` is what it calls, in the loop, when it arrives.
    """

    def __init__(
        self,
        advertisement: Advertisement,
        client: ConsulClient,
        health: HealthFunction | None,
        drain_seconds: float,
        termination: Termination | None,
    ) -> None:
        self._advertisement = advertisement
        self._client = client
        self._health = health
        self._beat_seconds = advertisement.ttl_seconds / _BEATS_PER_TTL
        self._drain_seconds = drain_seconds
        self._termination = termination
        self._terminated = asyncio.Event()
        self._draining = False
        self._announced = False  # from before the first attempt: one that was broken off may have reached the agent
        self._tidy = False
        self._registering = asyncio.Lock()
        self._drained = asyncio.Event()
        self._said = ""
        self.registered = asyncio.Event()
        # A context of its own: beats must not be part of the request, or the trace, that happened to be current.
        self._living = asyncio.get_running_loop().create_task(
            self._live(), name=f"registration of {advertisement.instance_id}", context=Context()
        )

    def terminate(self) -> None:
        """SIGTERM has come."""
        self._terminated.set()

    async def drain(self) -> None:
        """Go to maintenance, and return when nobody should choose this instance any more."""
        if self._draining:
            await self._drained.wait()
            return
        self._draining = True
        try:
            if self._announced:
                async with asyncio.timeout(_FAREWELL_SECONDS), self._registering:
                    await self._client.service_maintenance(self._advertisement.instance_id, True, REASON)
                log.info("draining for %.1f s", self._drain_seconds)
                await asyncio.sleep(self._drain_seconds)
        except (CitadelError, TimeoutError) as error:  # then nobody can be told, and waiting would help nobody
            log.warning("Consul cannot be told that this instance is draining: %r", error)
        finally:
            self._drained.set()

    async def end(self) -> None:
        """Stop feeding the check and take the instance out of the catalog; Consul's absence is not waited out."""
        self._living.cancel()
        await asyncio.wait({self._living})
        try:
            await self._leave()
        finally:
            await self._client.aclose()
        if not self._living.cancelled():
            await self._living  # it ended before, by an error that nobody has seen yet

    async def _live(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep())
            await self._terminated.wait()
            await self.drain()
            if self._termination is not None:
                if self._termination.ends_the_process:
                    await self._leave()
                self._termination.let_through()

    async def _keep(self) -> None:
        """Register and feed the check, until cancelled."""
        await self._until_listening()
        while True:
            status = await self._status()
            try:
                await self._tell(status)
            except CitadelError as error:
                self._say(f"Consul does not take the registration of {self._advertisement.instance_id}: {error}")
                pause = _RETRY_SECONDS if isinstance(error, TemporaryError) else _REFUSED_SECONDS
                await asyncio.sleep(min(self._beat_seconds, pause))
            else:
                self._say("")
                await asyncio.sleep(self._beat_seconds)

    async def _tell(self, status: str) -> None:
        if self.registered.is_set():
            try:
                await self._client.check_update(self._advertisement.alive_id, status, _OUTPUTS[status])
            except NotFound:
                log.warning("Consul's agent has forgotten %s", self._advertisement.instance_id)
                self.registered.clear()
        async with self._registering:
            if not self.registered.is_set() and not self._draining:
                self._announced, self._tidy = True, False
                await self._client.register_service(self._advertisement.body(status))
                self.registered.set()
            if not self._tidy and not self._draining:
                await self._clear_away()
                self._tidy = True

    async def _clear_away(self) -> None:
        """Remove what an earlier life of this instance left behind.

        Consul could replace all checks at once, but would end an operator's maintenance with them. Of maintenance only
        our own is ended: that of a life that was killed while draining.
        """
        identity = self._advertisement.instance_id
        current = {check["CheckID"] for check in self._advertisement.body(PASSING)["Checks"]}
        for check in await self._client.agent_checks(f'ServiceID == "{identity}"'):
            if check not in current and not check.startswith(_MAINTENANCE):
                await self._client.deregister_check(check)
        if await self._client.agent_checks(f'ServiceID == "{identity}" and Notes == "{REASON}"'):
            await self._client.service_maintenance(identity, False)

    async def _leave(self) -> None:
        self._draining = True
        if not self._announced:
            return
        self._announced = False
        self.registered.clear()
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._client.deregister_service(self._advertisement.instance_id)
        except (CitadelError, TimeoutError) as error:
            log.warning("%s stays in Consul until its check fails: %s", self._advertisement.instance_id, error)

    async def _status(self) -> str:
        """What the health function says, as one of Consul's words."""
        if self._health is None:
            return PASSING
        try:
            async with asyncio.timeout(self._beat_seconds):
                verdict = self._health()
                if inspect.isawaitable(verdict):
                    verdict = await verdict
        except Exception as error:  # noqa: BLE001  # the service's own code: whatever it raises says 'not well'
            self._say(f"the health function failed: {error!r}")
            return CRITICAL
        if isinstance(verdict, str) and verdict in _OUTPUTS:
            return verdict
        if isinstance(verdict, str):
            self._say(f"the health function said {verdict!r}, which is none of {', '.join(_OUTPUTS)}")
            return CRITICAL
        return CRITICAL if verdict is False else PASSING

    async def _until_listening(self) -> None:
        """Wait until the port accepts connections: who is told of it earlier is refused."""
        port = self._advertisement.port
        if port is None:
            return
        hosts = [self._advertisement.address] if self._advertisement.address else ["127.0.0.1", socket.gethostname()]
        pause, knocks = _FIRST_KNOCK_SECONDS, 0
        while not any([await _accepts(host, port) for host in hosts]):
            knocks += 1
            if knocks == _KNOCKS_BEFORE_WARNING:
                log.warning("nobody accepts connections on port %d yet, so Consul is not told of it", port)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_KNOCK_SECONDS)

    def _say(self, trouble: str) -> None:
        """Log a trouble once, and its end."""
        if trouble != self._said:
            self._said = trouble
            if trouble:
                log.warning("%s", trouble)
            else:
                log.info("registered as %s", self._advertisement.instance_id)


async def _accepts(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
