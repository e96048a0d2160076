"""The way of a request from a client to its Consul agent and on to the servers, and what can happen to it there.

Requests come in through httpx's transport interface, so everything above it is the real client. What httpx would do in
between (taking a URL apart that was just put together) is left out, because it would be half of a simulation's work.

On the way between agent and servers a request can be lost, its answer can be, and it can take effect twice: an agent
whose connection to a server broke asks another one, and does not know what became of the first time.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx
from clockwork import PROCESS, Process
from simulated_consul import Agent, seconds_of
from simulated_endpoints import Answer, Endpoints

from citadel_consul.consul.transport import HttpxTransport

RPC_HOLD_SECONDS = 7.0
"""How long an agent waits for a leader before it gives a request up (``rpc_hold_timeout``)."""
NO_LEADER: Answer = (500, None, b"No cluster leader")
BROKEN: Answer = (500, None, b"rpc error: EOF")
LOCAL = "/v1/agent/"


class Ask(httpx.Request):
    """A request, as far as the simulated Consul reads it."""

    def __init__(self, method: str, path: str, query: Mapping[str, str], body: bytes, read_seconds: float) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.body = body
        self.read_seconds = read_seconds

    @classmethod
    def of(cls, request: httpx.Request) -> Ask:
        """The same of what httpx made."""
        query = dict(parse_qsl(request.url.query.decode(), keep_blank_values=True))
        path = unquote(request.url.raw_path.decode().split("?")[0])
        return cls(request.method, path, query, request.content, request.extensions["timeout"]["read"])


class Reply(httpx.Response):
    """An answer, as far as the client reads it."""

    def __init__(self, status: int, index: int | None, content: bytes) -> None:
        self.status_code = status
        self.headers = {} if index is None else {"X-Consul-Index": str(index)}  # type: ignore[assignment]
        self._content = content

    async def aread(self) -> bytes:
        return self._content

    async def aclose(self) -> None:
        """Nothing is open."""


class SimulatedTransport(HttpxTransport):
    """The client's own transport, over a :class:`Link`."""

    def _request(
        self,
        method: str,
        path: str,
        query: list[tuple[str, object]],
        data: str | bytes,
        headers: Mapping[str, str] | None,  # noqa: ARG002  # there are no tokens here
        read_seconds: float,
    ) -> httpx.Request:
        body = data.encode() if isinstance(data, str) else data
        return Ask(method, path, {name: str(value) for name, value in query}, body, read_seconds)


class Link(httpx.AsyncBaseTransport):
    """The way of one process to the agent of its node. Each request and each answer takes a little while."""

    def __init__(self, agent: Agent, process: Process | None = None) -> None:
        self.agent = agent
        self.process = process

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        agent, cluster = self.agent, self.agent.cluster
        loop, ask = cluster.loop, request if isinstance(request, Ask) else Ask.of(request)
        exchange = Exchange(agent, ask, PROCESS.get(), loop.time())
        await asyncio.sleep(self._travel())
        if not agent.running:
            raise httpx.ConnectError("connection refused", request=request)
        # The request is carried out by the agent, in nobody's name: its sender may die or be paused meanwhile.
        _NOBODY.run(exchange.begin)
        agent.waiting[exchange] = None
        too_late = loop.call_later(ask.read_seconds, exchange.expire, context=_NOBODY)
        try:
            answer = await exchange.answer
        finally:
            too_late.cancel()
            agent.waiting.pop(exchange, None)
            exchange.leave()
        if answer is None:
            raise httpx.RemoteProtocolError("the connection was closed", request=request)
        if answer is TOO_LATE:
            raise httpx.ReadTimeout("no answer", request=request)
        await asyncio.sleep(self._travel())
        answer = exchange.as_it_arrives(answer)
        if cluster.on_answer is not None:
            cluster.on_answer(exchange, answer)
        return Reply(*answer)

    def _travel(self) -> float:
        draw = self.agent.cluster.draw
        if draw.random() < 0.01:
            return draw.uniform(0.01, 0.2) + self.agent.slow_seconds
        return draw.uniform(0.0001, 0.0012) + self.agent.slow_seconds


TOO_LATE: Answer = (0, None, b"")
_NOBODY = contextvars.Context()
"""What runs in it belongs to no process."""


class Exchange:
    """One request on its way. ``answer`` becomes None if the connection to the agent breaks."""

    def __init__(self, agent: Agent, ask: Ask, process: Process | None, sent_at: float) -> None:
        self.agent = agent
        self.ask = ask
        self.process = process
        self.sent_at = sent_at
        self.answer: asyncio.Future[Answer | None] = agent.cluster.loop.create_future()
        self._endpoints = Endpoints(agent, self, ask.method, ask.path, ask.query)
        self._timers: list[asyncio.TimerHandle] = []
        self._unwatch: Callable[[], None] | None = None
        self._done_at = 0.0

    def __repr__(self) -> str:
        return str(self.process)

    def begin(self) -> None:
        """The request has reached the agent."""
        if self.ask.path.startswith(LOCAL):
            self._answer(self._endpoints.local(self.ask.body))
            return
        fate = self.agent.fate() if self.ask.method != "GET" else ""
        if fate == "lost":
            self._later(self.agent.cluster.draw.uniform(0.001, 0.5), self._answer, BROKEN)
        elif not self.agent.served:
            self._later(RPC_HOLD_SECONDS, self._give_up)
            self.agent.when_served(self._serve)
        else:
            self._serve(fate)

    def fail(self) -> None:
        """The connection to the agent breaks."""
        self._answer(None)

    def expire(self) -> None:
        """The sender waits no longer."""
        self._answer(TOO_LATE)

    def leave(self) -> None:
        """The sender has its answer or has gone; a write goes on without it."""
        if self.ask.method == "GET" or self.answer.done():
            self._end()

    def as_it_arrives(self, answer: Answer) -> Answer:
        """The answer of servers that lost their leader while it was on its way can have become another one."""
        cluster = self.agent.cluster
        overtaken = cluster.lost_leader_at > self._done_at > 0 and not self.ask.path.startswith(LOCAL)
        return BROKEN if overtaken and cluster.draw.random() < 0.5 else answer

    def _answer(self, answer: Answer | None) -> None:
        if not self.answer.done():
            self._done_at = self.agent.cluster.loop.time()
            self.answer.set_result(answer)
        if self.ask.method == "GET" or answer is not TOO_LATE:
            self._end()

    def _end(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None

    def _later(self, seconds: float, what: Callable[..., object], *arguments: Any) -> None:
        self._timers.append(self.agent.cluster.loop.call_later(seconds, what, *arguments, context=_NOBODY))

    # --- at the servers --------------------------------------------------------------------------------------------

    def _give_up(self) -> None:
        self.agent.when_served(self._serve, forget=True)
        self._answer(NO_LEADER)

    def _serve(self, fate: str = "") -> None:
        if self.ask.method == "GET":
            self._read()
            return
        draw = self.agent.cluster.draw
        answer = self._endpoints.write(self.ask.body)
        if fate == "unanswered":
            self._later(draw.uniform(0.001, 0.5), self._answer, BROKEN)
        elif fate == "twice":
            self._later(draw.uniform(0.0, 0.3), self._serve_again, answer, draw.random() < 0.5)
        else:
            self._answer(answer)

    def _serve_again(self, first: Answer, first_arrives: bool) -> None:
        """The same a second time, as an agent does that did not hear of the first; which answer arrives is chance."""
        second = self._endpoints.write(self.ask.body) if self.agent.served else BROKEN
        self._answer(first if first_arrives else second)

    def _read(self) -> None:
        look, topic = self._endpoints.look()
        index, value = look()
        wanted = int(self.ask.query.get("index", "0"))
        if not (topic and wanted and index <= wanted):
            self._answer(Endpoints.told(index, value))
            return
        cluster = self.agent.cluster
        wait = seconds_of(self.ask.query.get("wait", "300s"))

        def moved() -> None:
            if look()[0] > wanted:
                if self.agent.linked:
                    self._answer(Endpoints.told(*look()))
                else:
                    self.agent.when_served(moved)

        def over() -> None:
            self._answer(Endpoints.told(*look()))

        leave = cluster.store.watch(topic, moved)
        forget = cluster.when_leader_is_lost(lambda: self._answer(BROKEN) if cluster.draw.random() < 0.5 else None)

        def unwatch() -> None:
            leave()
            forget()
            self.agent.when_served(moved, forget=True)

        self._unwatch = unwatch
        self._later(wait + cluster.draw.uniform(0, wait / 16), over)
