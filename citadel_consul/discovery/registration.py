"""A service registers itself, says how it is, and takes leave before it goes.

    async with Registration("embedding-service", port=8082, version="1.4.0", health=model_is_loaded):
        await serve()

    app = FastAPI(lifespan=Registration("embedding-service", port=8082).lifespan)

Its life, all of which goes on beside the service and never stops it, whatever Consul does (fail static):

==============  ====================================================================================================
waiting         its port does not accept connections yet, so nobody is told of it
registered      a TTL check is fed from its health function, three times in each TTL; if the agent has forgotten the
                service, it is registered again
draining        after SIGTERM: in Consul's maintenance, so that no client chooses it any more, while it still serves
gone            taken out of the catalog
==============  ====================================================================================================
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from citadel_consul.consul.address import ConsulAddress
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import Check
from citadel_consul.discovery.advertisement import Advertisement, Weights
from citadel_consul.discovery.environment import consul_from_environment
from citadel_consul.discovery.presence import HealthFunction, Presence
from citadel_consul.discovery.termination import Termination
from citadel_consul.discovery.thread import LoopThread

TTL_SECONDS: Final = 10.0
DRAIN_SECONDS: Final = 2.0
REMOVE_AFTER_SECONDS: Final = 24 * 3600.0


class Registration:
    """One instance of ``service`` in Consul, for the time of a ``with`` or ``async with`` block.

    ``port`` None is a service that listens on none. ``address`` is where clients reach it, by default the address of
    the node that Consul's agent is on. ``version`` becomes metadata. ``health`` is called for each beat of the TTL
    check and says True or None (passing), False (critical), or one of Consul's words, ``"passing"``, ``"warning"``,
    ``"critical"``; if it raises, or takes longer than a third of the TTL, the service is critical. It may be a
    coroutine function; a plain one must be quick, as it runs in the event loop. ``weights`` override the template's.
    ``checks`` are further ones, which Consul runs. A dead instance is removed after ``remove_after_seconds`` (Consul's
    floor is a minute; None: never).

    On SIGTERM the instance goes to maintenance, and the signal takes effect ``drain_seconds`` later: give it the time
    for which clients may remember a DNS answer. That needs the main thread, and a server that takes signals by
    ``signal.signal`` as uvicorn does; otherwise set ``handle_sigterm`` to False and call :meth:`drain` before you stop.

    Raises InvalidInput for what Consul would refuse. Entering the block neither waits for Consul nor fails because of
    it; :meth:`registered` waits.
    """

    def __init__(
        self,
        service: str,
        port: int | None = None,
        *,
        address: str | None = None,
        version: str | None = None,
        tags: Sequence[str] = (),
        meta: Mapping[str, str] | None = None,
        weights: Weights | None = None,
        health: HealthFunction | None = None,
        ttl_seconds: float = TTL_SECONDS,
        drain_seconds: float = DRAIN_SECONDS,
        remove_after_seconds: float | None = REMOVE_AFTER_SECONDS,
        handle_sigterm: bool = True,
        checks: Sequence[Check] = (),
        scheme: str = "http",
        type: str = "service",  # noqa: A002  # the word of the stack file
        template: str | None = None,
        template_dirs: Sequence[Path] = (),
        node: str | None = None,
        instance_id: str | None = None,
        consul: ConsulAddress | None = None,
    ) -> None:
        node = node or socket.gethostname().lower()
        self._advertisement = Advertisement(
            service=service,
            node=node,
            port=port,
            address=address,
            scheme=scheme,
            instance_id=instance_id or ":".join([service, node, *([str(port)] if port is not None else [])]),
            type=type,
            tags=tuple(tags),
            meta={**(meta or {}), **({"version": version} if version is not None else {})},
            weights=weights,
            checks=tuple(checks),
            ttl_seconds=ttl_seconds,
            remove_after_seconds=remove_after_seconds,
            template=template,
            template_dirs=tuple(template_dirs),
        )
        self._health = health
        self._drain_seconds = drain_seconds
        self._handle_sigterm = handle_sigterm
        self._consul = consul if consul is not None else consul_from_environment()
        self._presence: Presence | None = None
        self._termination: Termination | None = None
        self._thread: LoopThread | None = None

    @property
    def instance_id(self) -> str:
        """Consul's id of the instance."""
        return self._advertisement.instance_id

    async def registered(self) -> None:
        """Wait until Consul's agent has the instance."""
        await self._entered().registered.wait()

    async def drain(self) -> None:
        """Have no client choose the instance any more, and return when they all should know."""
        await self._entered().drain()

    async def __aenter__(self) -> Self:
        self._take_sigterm(asyncio.get_running_loop())
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        presence, self._presence = self._entered(), None
        try:
            await presence.end()
        finally:
            self._give_sigterm_back()

    def __enter__(self) -> Self:
        """As ``async with``, for a program without an event loop: one thread beside it does the work."""
        self._thread = LoopThread(f"registration of {self._advertisement.service}")
        self._take_sigterm(self._thread.loop)
        self._thread.call(self._begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        presence, self._presence = self._entered(), None
        thread, self._thread = self._thread, None
        try:
            if thread is not None:
                thread.call(presence.end())
                thread.close()
        finally:
            self._give_sigterm_back()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002  # the signature is ASGI's
        """For Starlette and FastAPI: ``FastAPI(lifespan=Registration(…).lifespan)``."""
        async with self:
            yield

    async def _begin(self) -> None:
        client = ConsulClient(self._consul)
        self._presence = Presence(self._advertisement, client, self._health, self._drain_seconds, self._termination)

    def _take_sigterm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._presence is not None:
            raise RuntimeError("this registration has been entered already")
        if self._handle_sigterm:

            def begin() -> None:
                loop.call_soon_threadsafe(self._terminate)

            termination = Termination(begin)
            self._termination = termination if termination.install() else None

    def _terminate(self) -> None:
        if self._presence is not None:
            self._presence.terminate()

    def _give_sigterm_back(self) -> None:
        termination, self._termination = self._termination, None
        if termination is not None:
            termination.remove()

    def _entered(self) -> Presence:
        if self._presence is None:
            raise RuntimeError("this registration has not been entered")
        return self._presence
