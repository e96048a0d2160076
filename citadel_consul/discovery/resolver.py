"""Finds the instances of services, for clients that do not speak HTTP or not through httpx.

    async with Resolver() as resolver:
        instance = await resolver.choose("redis")
        connection = await connect(instance.host, instance.port)

The first question about a service begins a watch of it; every later one is answered from memory. What is known stays in
use while Consul is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextvars import Context
from time import monotonic
from types import TracebackType
from typing import Final, Self

from citadel_consul.consul.address import ConsulAddress
from citadel_consul.consul.instances import Instance
from citadel_consul.consul.instances import Instances as Endpoint
from citadel_consul.consul.transport import HttpxTransport
from citadel_consul.discovery.balancer import DEFAULT_EJECTION, Balancer, Outcome
from citadel_consul.discovery.choice import EjectionRule, Instances
from citadel_consul.discovery.feed import WATCHES, Feed
from citadel_consul.discovery.naming import ServiceName
from citadel_consul.discovery.statistics import Statistics
from citadel_consul.discovery.view import View

FIRST_ANSWER_SECONDS: Final = 5.0


class Resolver:
    """Knows the services that it was asked for, and chooses among their instances.

    ``consul`` is the agent to ask; by default the one that the environment names (``CONSUL_HTTP_ADDR`` and the other
    variables of Consul's own tools). ``near`` prefers instances on the node nearest to that agent, its own first.
    ``failover`` asks the prepared query that has the service's name while no local instance serves; it may find some in
    another datacenter. ``watches`` bounds the blocking queries, and so the connections; beyond it, services are polled.

    It belongs to one event loop, that of its first use. Leave it, or call :meth:`aclose`, to end its watches. Raises
    InvalidInput for an environment that makes no sense.
    """

    def __init__(
        self,
        consul: ConsulAddress | None = None,
        *,
        near: bool = False,
        failover: bool = False,
        watches: int = WATCHES,
        ejection: EjectionRule = DEFAULT_EJECTION,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._address = consul if consul is not None else _consul_of_the_environment()
        self._near = near
        self._failover = failover
        self._watches = watches
        self._ejection = ejection
        self._clock = clock
        self._views: dict[ServiceName, View] = {}
        self._feed: Feed | None = None
        self._transport: HttpxTransport | None = None
        self._running: asyncio.Task[None] | None = None
        self._closed = False

    async def instances(
        self, service: str, tag: str | None = None, *, timeout_seconds: float = FIRST_ANSWER_SECONDS
    ) -> Instances:
        """Who serves ``service`` now: those that pass or, if none does, those that warn. It may be nobody.

        ``timeout_seconds`` bounds the wait for Consul's first answer about this service; there is none afterwards.
        Raises NoInstance if it does not come, with Consul's reason if there is one.
        """
        view = await self.known_view(ServiceName(service, tag), timeout_seconds)
        view.use()
        return view.instances

    async def choose(
        self, service: str, tag: str | None = None, *, timeout_seconds: float = FIRST_ANSWER_SECONDS
    ) -> Instance:
        """One instance, drawn by weight, of those that were not reported as broken. Raises NoInstance if nobody serves.

        It is chosen for a moment's use, such as opening a connection, whose load is not counted.
        """
        view = await self.known_view(ServiceName(service, tag), timeout_seconds)
        instance = view.acquire()
        if instance is None:
            raise view.nobody()
        view.balancer.release(instance, Outcome.UNKNOWN)
        return instance

    def report_failure(self, instance: Instance) -> None:
        """A connection to ``instance`` failed or broke: leave its address out of choices for a while."""
        for view in self._views.values():
            if view.name.service == instance.service:
                view.balancer.report(instance, Outcome.BROKEN)
                view.use()

    async def watch(self, service: str, tag: str | None = None) -> AsyncGenerator[Instances, None]:
        """Yield who serves ``service``, now and each time that it changes. Never ends by itself.

        Nothing is yielded before Consul's first answer, nor while Consul is away.
        """
        view = self.view(ServiceName(service, tag))
        news = asyncio.Event()
        seen: Instances | None = None
        unsubscribe = view.subscribe(news.set)
        try:
            while True:
                news.clear()
                if view.known and view.instances != seen:
                    seen = view.instances
                    yield seen
                else:
                    await self._wait(news)
        finally:
            unsubscribe()

    @property
    def statistics(self) -> Statistics:
        """What following the services in use has cost so far."""
        return Statistics(
            reconnects={str(name): view.reconnects for name, view in self._views.items()},
            connections=0 if self._transport is None else self._transport.connections_opened,
            watches=sum(view.live for view in self._views.values()),
        )

    def view(self, name: ServiceName) -> View:
        """The view of a service, followed from now on. Has to be called in the resolver's loop."""
        feed = self._running_feed()
        view = self._views.get(name)
        if view is None:
            balancer = Balancer(near=self._near, ejection=self._ejection, clock=self._clock)
            view = self._views[name] = View(name, balancer, self._clock)
            feed.follow(view)
        return view

    async def known_view(self, name: ServiceName, timeout_seconds: float = FIRST_ANSWER_SECONDS) -> View:
        """As :meth:`view`, once Consul has answered about it. Raises NoInstance if it does not in time."""
        view = self.view(name)
        if not view.known:
            await self._until_known(view, timeout_seconds)
        return view

    async def aclose(self) -> None:
        """End all watches and close all connections."""
        self._closed = True
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait({running})
            if not running.cancelled():
                await running  # it ended before, by an error that nobody has seen yet

    async def __aenter__(self) -> Self:
        self._running_feed()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _running_feed(self) -> Feed:
        if self._closed:
            raise RuntimeError("this resolver was closed")
        if self._feed is None or self._running is None:
            transport = self._transport = HttpxTransport(self._address)
            self._feed = self._new_feed(transport)
            # A context of its own: whose request came first must not lend its trace to all watches.
            self._running = asyncio.get_running_loop().create_task(
                self._run(self._feed, transport), name="service discovery", context=Context()
            )
            self._running.add_done_callback(self._wake_all)
        elif self._running.done():
            raise RuntimeError("service discovery has ended") from self._end_of(self._running)
        return self._feed

    def _new_feed(self, transport: HttpxTransport) -> Feed:
        return Feed(
            Endpoint(transport, self._address.token),
            near=self._near,
            failover=self._failover,
            watches=self._watches,
            retire=self._forget,
        )

    async def _run(self, feed: Feed, transport: HttpxTransport) -> None:
        try:
            await feed.run()
        finally:
            await transport.aclose()

    async def _until_known(self, view: View, timeout_seconds: float) -> None:
        news = asyncio.Event()
        unsubscribe = view.subscribe(news.set)
        try:
            async with asyncio.timeout(timeout_seconds):
                while not view.known:
                    await self._wait(news)
                    news.clear()
        except TimeoutError:
            raise view.nobody() from view.trouble
        finally:
            unsubscribe()

    def _forget(self, view: View) -> None:
        del self._views[view.name]

    def _wake_all(self, _: asyncio.Task[None]) -> None:
        for view in self._views.values():
            view.announce()

    async def _wait(self, news: asyncio.Event) -> None:
        """Wait for news, and fail if whoever would bring them is gone."""
        self._running_feed()
        await news.wait()

    @staticmethod
    def _end_of(running: asyncio.Task[None]) -> BaseException | None:
        return None if running.cancelled() else running.exception()


def _consul_of_the_environment() -> ConsulAddress:
    # Imported late: who names a Consul need not wait for the description of every setting (a tenth of a start's time).
    from citadel_consul.discovery.environment import consul_from_environment

    return consul_from_environment()
