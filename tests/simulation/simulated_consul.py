"""Consul as a client of it sees it: a cluster of servers, an agent on each node, and what can go wrong between them.

The servers are one store, with or without a leader. An agent owns what is registered with it and tells the servers of
it a moment later (anti-entropy), counts the TTLs of its checks, and can be cut off from the servers, stopped, or slow.
Requests come in through httpx's transport interface, so everything above it is the real client.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from simulated_store import CRITICAL, Store

if TYPE_CHECKING:
    from simulated_link import Exchange

PASSING = "passing"
SERF_SECONDS = (3.0, 10.0)
"""How long it takes until a silent node is given up: measured as 7 to 10 s, with suspicions that began earlier."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


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
        self.led = True
        self.lost_leader_at = float("-inf")
        self.on_answer: Callable[[Exchange, tuple[int, int | None, bytes]], None] | None = None
        self._mourners: dict[Callable[[], object], None] = {}

    def _ids(self) -> Iterator[str]:
        while True:
            yield f"{self.draw.getrandbits(128):032x}"

    def lose_leader(self, seconds: float) -> None:
        """No leader for that long; the next one starts every session's TTL anew, as Consul does."""
        if not self.led:
            return
        self.led = False
        self.lost_leader_at = self.loop.time()
        for mourn in list(self._mourners):
            mourn()
        self.loop.call_later(seconds, self._elect)

    def when_leader_is_lost(self, mourn: Callable[[], object]) -> Callable[[], None]:
        """Have ``mourn`` called whenever the servers lose their leader; returns how to end that."""
        self._mourners[mourn] = None
        return lambda: self._mourners.pop(mourn, None)

    def _elect(self) -> None:
        self.led = True
        for session_id in self.store.sessions:
            self.renew(session_id)
        for agent in self.agents.values():
            agent.sync_soon()
            agent.serve_again()

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
        if not self.led:
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
        self.linked = True
        self.running = True
        self.slow_seconds = 0.0
        self.unreliable = 0.0
        """The share of writes that do not get to the servers and back once and whole."""
        self.waiting: dict[Exchange, None] = {}
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._syncing = False
        self._unserved: dict[Callable[[], object], None] = {}
        cluster.agents[node] = self
        cluster.store.put_node(node, address)
        cluster.loop.call_later(cluster.draw.uniform(20, 60), self._sync_now_and_then)

    # --- what goes wrong -------------------------------------------------------------------------------------------

    @property
    def silent(self) -> bool:
        return not (self.linked and self.running)

    @property
    def served(self) -> bool:
        """Whether it reaches servers that have a leader."""
        return self.linked and self.cluster.led

    def cut(self, seconds: float) -> None:
        """Cut it off from the servers; its clients still reach it."""
        if self.linked:
            self.linked = False
            self.cluster.see(self)
            self.cluster.loop.call_later(seconds, self._heal)

    def _heal(self) -> None:
        self.linked = True
        self.cluster.see(self)
        self.sync_soon()
        self.serve_again()

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
        self._unserved.clear()
        for exchange in list(self.waiting):
            exchange.fail()

    def when_served(self, work: Callable[[], object], *, forget: bool = False) -> None:
        """Have ``work`` done when the servers can be reached again (or not, after all)."""
        if forget:
            self._unserved.pop(work, None)
        else:
            self._unserved[work] = None

    def serve_again(self) -> None:
        """Do what waited for the servers, if they can be reached."""
        while self._unserved and self.served:
            work = next(iter(self._unserved))
            del self._unserved[work]
            work()

    def fate(self) -> str:
        """What happens to a write on its way to the servers and back: nothing, mostly."""
        draw = self.cluster.draw
        if not self.unreliable or draw.random() >= self.unreliable:
            return ""
        return draw.choice(("lost", "unanswered", "twice"))

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
        if self.silent or not self.cluster.led:
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
