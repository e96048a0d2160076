"""Consul as a client of it sees it: a cluster of servers, an agent on each node, and what can go wrong between them.

The servers are one store, with or without a leader. An agent owns what is registered with it and tells the servers of
it a moment later (anti-entropy), counts the TTLs of its checks, and can be cut off from the servers, stopped, or slow.
Requests come in through httpx's transport interface, so everything above it is the real client.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx
import orjson
from clockwork import PROCESS, Process
from simulated_store import CRITICAL, Store, decoded, encoded

PASSING = "passing"
RPC_HOLD_SECONDS = 7.0
"""How long an agent waits for a leader before it gives a request up (``rpc_hold_timeout``)."""
SERF_SECONDS = (3.0, 10.0)
"""How long it takes until a silent node is given up: measured as 7 to 10 s, with suspicions that began earlier."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_CLAUSE = re.compile(r'(?:Meta\["(?P<meta>[^"]+)"\]|(?P<field>\w+)) == "(?P<value>[^"]*)"')


def seconds_of(text: str) -> float:
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


class Cluster:
    """The servers. ``healthy`` asks the simulated machines how an instance is, by the id of its registration."""

    def __init__(self, loop: asyncio.AbstractEventLoop, draw: random.Random, healthy: Callable[[str], bool]) -> None:
        self.loop = loop
        self.draw = draw
        self.healthy = healthy
        self.store = Store(self._ids())
        self.agents: dict[str, Agent] = {}
        self.leader = asyncio.Event()
        self.leader.set()

    def _ids(self) -> Iterator[str]:
        while True:
            yield f"{self.draw.getrandbits(128):032x}"

    def lose_leader(self, seconds: float) -> None:
        """No leader for that long; the next one starts every session's TTL anew, as Consul does."""
        if not self.leader.is_set():
            return
        self.leader.clear()
        self.loop.call_later(seconds, self._elect)

    def _elect(self) -> None:
        self.leader.set()
        for session in self.store.sessions.values():
            session.expires_at = self.loop.time() + session.ttl_seconds * self.draw.uniform(1, 2)
        for agent in self.agents.values():
            agent.sync_soon()

    def renew(self, session_id: str) -> bool:
        session = self.store.sessions.get(session_id)
        if session is None:
            return False
        if session.ttl_seconds:
            session.expires_at = self.loop.time() + session.ttl_seconds * self.draw.uniform(1, 2)
            self.loop.call_at(session.expires_at, self._expire, session_id)
        return True

    def _expire(self, session_id: str) -> None:
        session = self.store.sessions.get(session_id)
        if session is None or session.expires_at > self.loop.time():
            return
        if not self.leader.is_set():
            self.loop.call_later(1.0, self._expire, session_id)
            return
        self.store.end_session(session_id)

    def see(self, agent: Agent) -> None:
        """Give a silent node up after a while, and take it back sooner."""
        silent = agent.silent
        wait = self.draw.uniform(*SERF_SECONDS) if silent else self.draw.uniform(0.1, 1.5)

        def judge() -> None:
            if agent.silent is silent:
                status = CRITICAL if silent else PASSING
                self.store.put_check(
                    agent.node, "serfHealth", {"Name": "Serf Health Status", "Status": status, "ServiceID": ""}
                )

        self.loop.call_later(wait, judge)


class Agent:
    """The Consul agent of one node."""

    def __init__(self, cluster: Cluster, node: str, address: str) -> None:
        self.cluster = cluster
        self.node = node
        self.address = address
        self.services: dict[str, dict[str, Any]] = {}
        self.checks: dict[str, dict[str, Any]] = {}
        self.linked = asyncio.Event()
        self.linked.set()
        self.running = True
        self.slow_seconds = 0.0
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._syncing = False
        self._broken: set[asyncio.Future[None]] = set()
        cluster.agents[node] = self
        cluster.store.put_node(node, address)
        cluster.loop.call_later(cluster.draw.uniform(20, 60), self._sync_now_and_then)

    # --- what goes wrong -------------------------------------------------------------------------------------------

    @property
    def silent(self) -> bool:
        return not (self.linked.is_set() and self.running)

    def cut(self, seconds: float) -> None:
        """Cut it off from the servers; its clients still reach it."""
        if self.linked.is_set():
            self.linked.clear()
            self.cluster.see(self)
            self.cluster.loop.call_later(seconds, self._heal)

    def _heal(self) -> None:
        self.linked.set()
        self.cluster.see(self)
        self.sync_soon()

    def restart(self, seconds: float, *, forget: bool) -> None:
        """Stop it for a while. With its data gone it knows no registration afterwards."""
        if not self.running:
            return
        self.running = False
        self.break_connections()
        for timer in self._deadlines.values():
            timer.cancel()
        self._deadlines.clear()
        if forget:
            self.services.clear()
            self.checks.clear()
        self.cluster.see(self)
        self.cluster.loop.call_later(seconds, self._come_back)

    def _come_back(self) -> None:
        self.running = True
        for check_id, check in self.checks.items():
            if check["TTL"]:
                self._arm(check_id)
            elif check["Interval"]:
                self._begin_checking(check_id)
        self.cluster.see(self)
        self.sync_soon()

    def break_connections(self) -> None:
        """Every connection ends; whoever waits for an answer learns that it does not come."""
        for waiting in list(self._broken):
            if not waiting.done():
                waiting.set_result(None)

    # --- anti-entropy ----------------------------------------------------------------------------------------------

    def sync_soon(self) -> None:
        if not self._syncing:
            self._syncing = True
            self.cluster.loop.call_later(self.cluster.draw.uniform(0.0005, 0.004), self._sync)

    def _sync_now_and_then(self) -> None:
        self.sync_soon()
        self.cluster.loop.call_later(self.cluster.draw.uniform(50, 70), self._sync_now_and_then)

    def _sync(self) -> None:
        self._syncing = False
        if self.silent or not self.cluster.leader.is_set():
            if self.running:
                self._syncing = True
                self.cluster.loop.call_later(self.cluster.draw.uniform(0.5, 2.0), self._sync)
            return
        store, known = self.cluster.store, self.cluster.store.nodes[self.node]
        for service_id in [i for i in known.services if i not in self.services]:
            store.drop_service(self.node, service_id)
        for service in self.services.values():
            store.put_service(self.node, dict(service))
        for check_id in [i for i in known.checks if i not in self.checks and i != "serfHealth"]:
            store.drop_check(self.node, check_id)
        for check_id, check in self.checks.items():
            fields = ("Name", "Status", "ServiceID", "Notes", "Output")
            store.put_check(self.node, check_id, {name: check[name] for name in fields})

    # --- services and checks ---------------------------------------------------------------------------------------

    def register(self, body: Mapping[str, Any], replace_checks: bool) -> None:
        service_id = body.get("ID") or body["Name"]
        self.services[service_id] = {
            "ID": service_id,
            "Service": body["Name"],
            "Address": body.get("Address") or "",
            "Port": body.get("Port") or 0,
            "Tags": list(body.get("Tags") or ()),
            "Meta": dict(body.get("Meta") or {}),
            "Weights": body.get("Weights") or {"Passing": 1, "Warning": 1},
        }
        named = set()
        given = [*(body.get("Checks") or ()), *([body["Check"]] if body.get("Check") else [])]
        for number, check in enumerate(given, 1):
            check_id = check.get("CheckID") or f"service:{service_id}" + (f":{number}" if len(given) > 1 else "")
            named.add(check_id)
            self._add_check(check_id, {**check, "ServiceID": service_id})
        if replace_checks:
            for check_id in [i for i, c in self.checks.items() if c["ServiceID"] == service_id and i not in named]:
                self.drop_check(check_id)
        self.sync_soon()

    def _add_check(self, check_id: str, check: Mapping[str, Any]) -> None:
        self.checks[check_id] = {
            "Node": self.node,
            "CheckID": check_id,
            "Name": check.get("Name") or check_id,
            "Status": check.get("Status") or CRITICAL,
            "Notes": check.get("Notes") or "",
            "Output": "",
            "ServiceID": check["ServiceID"],
            "ServiceName": self.services[check["ServiceID"]]["Service"],
            "ServiceTags": [],
            "TTL": check.get("TTL") or "",
            "Interval": check.get("Interval") or "",
        }
        if check.get("TTL"):
            self._arm(check_id)
        elif check.get("Interval"):
            self._begin_checking(check_id)

    def _begin_checking(self, check_id: str) -> None:
        """The first run comes at any time of the interval, so that not all checks run at once."""
        interval = seconds_of(self.checks[check_id]["Interval"])
        self._schedule(check_id, self.cluster.draw.uniform(0, interval), interval)

    def _schedule(self, check_id: str, wait: float, interval: float) -> None:
        old = self._deadlines.pop(check_id, None)
        if old is not None:
            old.cancel()
        self._deadlines[check_id] = self.cluster.loop.call_later(wait, self._run_check, check_id, interval)

    def _run_check(self, check_id: str, interval: float) -> None:
        check = self.checks.get(check_id)
        if check is None or not self.running:
            return
        self._set(check_id, PASSING if self.cluster.healthy(check["ServiceID"]) else CRITICAL)
        self._schedule(check_id, interval, interval)

    def _arm(self, check_id: str) -> None:
        old = self._deadlines.pop(check_id, None)
        if old is not None:
            old.cancel()
        ttl = seconds_of(self.checks[check_id]["TTL"])
        self._deadlines[check_id] = self.cluster.loop.call_later(ttl, self._set, check_id, CRITICAL)

    def _set(self, check_id: str, status: str) -> None:
        check = self.checks.get(check_id)
        if check is not None and check["Status"] != status:
            check["Status"] = status
            self.sync_soon()

    def update(self, check_id: str, status: str) -> bool:
        if check_id not in self.checks:
            return False
        self._arm(check_id)
        self._set(check_id, status)
        return True

    def deregister(self, service_id: str) -> bool:
        if self.services.pop(service_id, None) is None:
            return False
        for check_id in [i for i, c in self.checks.items() if c["ServiceID"] == service_id]:
            self.drop_check(check_id)
        self.sync_soon()
        return True

    def drop_check(self, check_id: str) -> bool:
        timer = self._deadlines.pop(check_id, None)
        if timer is not None:
            timer.cancel()
        if self.checks.pop(check_id, None) is None:
            return False
        self.sync_soon()
        return True

    def maintain(self, service_id: str, enable: bool, reason: str) -> bool:
        if service_id not in self.services:
            return False
        check_id = f"_service_maintenance:{service_id}"
        if not enable:
            self.drop_check(check_id)
        elif check_id not in self.checks:
            mark = {"Name": "Service Maintenance Mode", "Status": CRITICAL, "Notes": reason, "ServiceID": service_id}
            self._add_check(check_id, mark)
            self.sync_soon()
        return True


class Link(httpx.AsyncBaseTransport):
    """The way of one process to the agent of its node. Each request and each answer takes a little while."""

    def __init__(self, agent: Agent, process: Process | None = None) -> None:
        self.agent = agent
        self.process = process

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        agent, cluster = self.agent, self.agent.cluster
        process = PROCESS.get()
        await asyncio.sleep(self._travel())
        if not agent.running:
            raise httpx.ConnectError("connection refused", request=request)
        # The request is carried out by the agent, in nobody's name: its sender may die or be paused meanwhile.
        answer: asyncio.Future[Answer] = cluster.loop.create_future()
        broken: asyncio.Future[None] = cluster.loop.create_future()
        agent._broken.add(broken)
        timeout = request.extensions["timeout"]["read"]
        query = dict(parse_qsl(request.url.query.decode(), keep_blank_values=True))
        exchange = Exchange(agent, process, request.method, unquote(request.url.raw_path.decode().split("?")[0]), query)
        work = cluster.loop.create_task(exchange.carry_out(request.content, answer), context=_nobody())
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wait((answer, broken), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise httpx.ReadTimeout("no answer", request=request) from None
        finally:
            agent._broken.discard(broken)
            if not exchange.writes:
                work.cancel()
        if not answer.done():
            raise httpx.RemoteProtocolError("the connection was closed", request=request)
        status, index, content = answer.result()
        await asyncio.sleep(self._travel())
        headers = {"X-Consul-Index": str(index)} if index is not None else {}
        return httpx.Response(status, headers=headers, content=content)

    def _travel(self) -> float:
        draw = self.agent.cluster.draw
        if draw.random() < 0.01:
            return draw.uniform(0.01, 0.2) + self.agent.slow_seconds
        return draw.uniform(0.0001, 0.0012) + self.agent.slow_seconds


Answer = tuple[int, int | None, bytes]
LOCAL = ("/v1/agent/",)


class Exchange:
    """One request, as the agent carries it out."""

    def __init__(self, agent: Agent, process: Process | None, method: str, path: str, query: Mapping[str, str]) -> None:
        self.agent = agent
        self.process = process
        self.method = method
        self.path = path
        self.query = query
        self.writes = method != "GET"

    async def carry_out(self, body: bytes, answer: asyncio.Future[Answer]) -> None:
        result = await self._answer(body)
        if not answer.done():
            answer.set_result(result)

    async def _answer(self, body: bytes) -> Answer:
        if self.path.startswith(LOCAL):
            return self._local(body)
        try:
            async with asyncio.timeout(RPC_HOLD_SECONDS):
                await self._until_served()
        except TimeoutError:
            return 500, None, b"No cluster leader"
        if self.method == "GET":
            return await self._read()
        return self._write(body)

    async def _until_served(self) -> None:
        while not (self.agent.linked.is_set() and self.agent.cluster.leader.is_set()):
            await self.agent.linked.wait()
            await self.agent.cluster.leader.wait()

    # --- the agent itself ------------------------------------------------------------------------------------------

    def _local(self, body: bytes) -> Answer:
        agent, path = self.agent, self.path.removeprefix("/v1/agent/")
        if path == "self":
            config = {"NodeName": agent.node, "Datacenter": "dc1", "Version": "1.8.7", "Server": False}
            return 200, None, orjson.dumps({"Config": config, "Member": {"Addr": agent.address}})
        if path == "services":
            return 200, None, orjson.dumps(self._filtered(agent.services))
        if path == "checks":
            return 200, None, orjson.dumps(self._filtered(agent.checks))
        action, _, name = path.rpartition("/")
        if path == "service/register":
            agent.register(orjson.loads(body), "replace-existing-checks" in self.query)
            return 200, None, b""
        if action == "service/maintenance":
            done = agent.maintain(name, self.query["enable"] == "true", self.query.get("reason", ""))
        elif action == "check/update":
            done = agent.update(name, orjson.loads(body)["Status"])
        elif action == "service/deregister":
            done = agent.deregister(name)
        elif action == "check/deregister":
            done = agent.drop_check(name)
        else:
            return 404, None, b"no such endpoint"
        return (200, None, b"") if done else (404, None, b"unknown " + name.encode())

    def _filtered(self, found: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        clauses = list(_CLAUSE.finditer(self.query.get("filter", "")))

        def matches(item: dict[str, Any]) -> bool:
            return all(
                (item.get("Meta", {}).get(c["meta"]) if c["meta"] else item.get(c["field"])) == c["value"]
                for c in clauses
            )

        return {name: item for name, item in found.items() if matches(item)}

    # --- the servers -----------------------------------------------------------------------------------------------

    async def _read(self) -> Answer:
        look, topic = self._look()
        index, value = look()
        wanted = int(self.query.get("index", "0"))
        if topic and wanted and index <= wanted:
            index, value = await self._blocked(look, topic, wanted)
        if value is None:
            return 404, max(index, 1), b""
        return 200, max(index, 1), orjson.dumps(value)

    async def _blocked(self, look: Callable[[], tuple[int, Any]], topic: str, wanted: int) -> tuple[int, Any]:
        cluster = self.agent.cluster
        wait = seconds_of(self.query.get("wait", "300s"))
        moved = asyncio.Event()
        leave = cluster.store.watch(topic, moved.set)
        try:
            async with asyncio.timeout(wait + cluster.draw.uniform(0, wait / 16)):
                while True:
                    if look()[0] > wanted:
                        break
                    await moved.wait()
                    moved.clear()
                    if not self.agent.linked.is_set():
                        await self.agent.linked.wait()
        except TimeoutError:
            pass
        finally:
            leave()
        return look()

    def _look(self) -> tuple[Callable[[], tuple[int, Any]], str]:
        """How to find the answer now, with its index; and what has to change for another."""
        store = self.agent.cluster.store
        path = self.path.removeprefix("/v1/")
        first, _, rest = path.partition("/")
        if first == "kv":
            return self._look_at_keys(rest), "kv"
        if path.startswith("health/state/"):
            state = path.rpartition("/")[2]
            return lambda: (store.checks_index, store.checks_in(state)), "health"
        if path.startswith("health/service/"):
            return self._look_at_service(path.rpartition("/")[2]), "health"
        if path.startswith("health/node/"):
            node = path.rpartition("/")[2]
            return lambda: (store.catalog_index, list(store.nodes[node].checks.values())), "health"
        if path == "session/list":
            return lambda: (store.index, [session.document() for session in store.sessions.values()]), ""
        if path.startswith("session/info/"):
            session = store.sessions.get(path.rpartition("/")[2])
            return lambda: (store.index, [session.document()] if session else []), ""
        if path == "status/leader":
            return lambda: (store.index, "127.0.0.1:8300"), ""
        return lambda: (store.index, None), ""

    def _look_at_keys(self, key: str) -> Callable[[], tuple[int, Any]]:
        store = self.agent.cluster.store
        if "keys" in self.query:
            return lambda: (store.index_below(key), [entry.key for entry in store.below(key)] or None)
        if "recurse" in self.query:
            return lambda: (store.index_below(key), [entry.document() for entry in store.below(key)] or None)
        return lambda: (store.index_of_key(key), [store.kv[key].document()] if key in store.kv else None)

    def _look_at_service(self, name: str) -> Callable[[], tuple[int, Any]]:
        store, passing = self.agent.cluster.store, "passing" in self.query

        def look() -> tuple[int, Any]:
            found = store.health_of(name)
            if passing:
                found = [entry for entry in found if all(c["Status"] == PASSING for c in entry["Checks"])]
            return store.service_index.get(name, store.catalog_index), found

        return look

    def _write(self, body: bytes) -> Answer:
        cluster = self.agent.cluster
        store = cluster.store
        path = self.path.removeprefix("/v1/")
        if path == "txn":
            return self._transact([operation["KV"] for operation in orjson.loads(body)])
        if path.startswith("kv/"):
            return self._put_key(path.removeprefix("kv/"), body)
        if path == "session/create":
            wanted = orjson.loads(body)
            delay = round(seconds_of(wanted.get("LockDelay") or "") * 1e9)
            session = store.create_session(self.agent.node, wanted, seconds_of(wanted.get("TTL") or ""), delay)
            if isinstance(session, str):
                return 500, None, session.encode()
            cluster.renew(session.id)
            return 200, None, orjson.dumps({"ID": session.id})
        session_id = path.rpartition("/")[2]
        if path.startswith("session/renew/"):
            if not cluster.renew(session_id):
                return 404, None, b"Session id '" + session_id.encode() + b"' not found"
            return 200, None, orjson.dumps([store.sessions[session_id].document()])
        if path.startswith("session/destroy/"):
            store.end_session(session_id)
            return 200, None, b"true"
        if path.startswith("event/fire/"):
            return 200, None, orjson.dumps({"ID": "e"})
        return 404, None, b"no such endpoint"

    def _transact(self, operations: list[dict[str, Any]]) -> Answer:
        results, errors = self.agent.cluster.store.transact(self.process, operations)
        if errors:
            failures = [{"OpIndex": place, "What": error} for place, error in enumerate(errors) if error]
            return 409, None, orjson.dumps({"Results": None, "Errors": failures})
        return 200, None, orjson.dumps({"Results": results, "Errors": None})

    def _put_key(self, key: str, body: bytes) -> Answer:
        store = self.agent.cluster.store
        if self.method == "DELETE":
            operation: dict[str, Any] = {"Verb": "delete-tree" if "recurse" in self.query else "delete", "Key": key}
            if "cas" in self.query:
                operation |= {"Verb": "delete-cas", "Index": int(self.query["cas"])}
        else:
            operation = {"Verb": "set", "Key": key, "Value": encoded(body)}
            if "cas" in self.query:
                operation |= {"Verb": "cas", "Index": int(self.query["cas"])}
        _, errors = store.transact(self.process, [operation])
        return 200, None, b"false" if errors else b"true"


def _nobody() -> contextvars.Context:
    """What runs in it belongs to no process."""
    return contextvars.Context()


__all__ = ["Agent", "Cluster", "Link", "decoded", "encoded"]
