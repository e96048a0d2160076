"""Churn: what happens to a stack in its life, faults included, one thing after the other, drawn from a seed.

Each happening is a method. Some end what they begin, some leave it to others (a hold is lifted later, a service that
was added is removed later); :meth:`Churn.wind_up` ends all that is under way.
"""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from grounds import MORTAL, NODES, PAIRS, STACK, Grounds
from real_world import runs
from roles import Role

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import Edge
from citadel_consul.core.operation import Kind
from citadel_consul.errors import CitadelError
from citadel_consul.orchestrator.handover import request_handover
from citadel_consul.store.keys import Keys

OPERATION_SECONDS = 45.0
MOST_EXTRAS = 4
WEIGHTS = {
    "kill_services": 5,
    "make_ill": 3,
    "restart": 3,
    "roll": 3,
    "drain": 2,
    "hold": 2,
    "lift": 2,
    "add_service": 4,
    "remove_service": 4,
    "change_edges": 2,
    "spoil_a_key": 1,
    "cancel": 2,
    "step_down": 3,
    "kill_leader": 3,
    "pause_leader": 2,
    "pause_standby": 1,
    "kill_agent": 3,
    "pause_agent": 2,
    "cut_off": 3,
    "slow_down": 1,
    "restart_consul_agent": 3,
    "restart_consul_server": 1,
    "ask_the_api": 3,
}


class Churn:
    """What happens to ``grounds``. ``done`` counts what was, ``refused`` what Consul or citadel did not let happen."""

    def __init__(self, grounds: Grounds, random: Random) -> None:
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._grounds = grounds
        self._random = random
        self._extras: list[str] = []
        self._added = 0
        self._held: set[tuple[str, str]] = set()

    def happen(self) -> str:
        """Have one thing happen; returns what."""
        name = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        happening: Callable[[], None] = getattr(self, name)
        try:
            happening()
        except (CitadelError, OSError) as error:  # refused by rights, or Consul is away by a fault of our own
            self.refused[name] += 1
            return f"{name}: {error}"
        self.done[name] += 1
        return name

    def wind_up(self) -> None:
        """End what is under way: faults, holds, services that were added."""
        self._grounds.heal()
        for scope, name in sorted(self._held):
            self._grounds.ward.unhold(scope, name)
        self._held.clear()
        self._grounds.come_to_rest()
        while self._extras:
            self.remove_service()

    # --- services -----------------------------------------------------------------------------------------------

    def kill_services(self) -> None:
        """SIGKILL to some processes of services."""
        world = self._grounds.world
        for ledger, pids in self._random.sample(sorted(world.running_pids().items()), k=self._random.choice((1, 1, 2))):
            for pid in pids:
                if runs(pid, world.folder / f"{ledger}.lives"):
                    os.kill(pid, signal.SIGKILL)
        self._pause(0.5, 2.0)

    def make_ill(self) -> None:
        """A service that hangs, fails its check or warns for some seconds."""
        name = self._single()
        self._grounds.ward.mood(self._random.choice(("ill", "hang", "warning", "slow 1")), name)
        self._pause(3.0, 7.0)
        self._grounds.ward.mood("well", name)

    def restart(self) -> None:
        """A restart by hand, sometimes with all that depends on it."""
        self._operate(Kind.RESTART, self._single(), subtree=self._random.random() < 0.5)

    def roll(self) -> None:
        """A rolling restart of a pair."""
        self._operate(Kind.RESTART, self._random.choice(list(PAIRS)), rolling=True, drain_seconds=1.0)

    def drain(self) -> None:
        """A drain of one instance, which is started again."""
        name = self._single()
        self._operate(Kind.DRAIN, name, force=True, drain_seconds=1.0)
        self._operate(Kind.STARTUP, name)

    def cancel(self) -> None:
        """An operation that is cancelled on its way."""
        operation_id = self._grounds.world.request(Kind.RESTART, self._single(), cascade=True, subtree=True)
        self._pause(0.05, 0.5)
        self._grounds.world.cancel(operation_id)

    def hold(self) -> None:
        """A hold on a service, a node or all, and a death under it."""
        scope = self._random.choice(("service", "service", "node", "stack"))
        name = {"service": self._single(), "node": self._random.choice(NODES), "stack": ""}[scope]
        self._grounds.ward.hold(scope, name, maintenance=scope != "stack" and self._random.random() < 0.5)
        self._held.add((scope, name))
        self.kill_services()

    def lift(self) -> None:
        """Lift a hold."""
        if self._held:
            scope, name = self._random.choice(sorted(self._held))
            self._grounds.ward.unhold(scope, name)
            self._held.discard((scope, name))

    # --- the stack ----------------------------------------------------------------------------------------------

    def add_service(self) -> None:
        """A service of a new name in the stack file, which is applied and started."""
        if len(self._extras) >= MOST_EXTRAS:
            self.remove_service()
        name = f"x{self._added:04d}"
        self._added += 1
        self._grounds.specs[name] = self._grounds.world.tiny(name, (self._random.choice(NODES[:2]),))
        self._grounds.edges.append(Edge(name, self._single()))
        self._extras.append(name)
        self._grounds.apply()
        self._operate(Kind.STARTUP, name)

    def remove_service(self) -> None:
        """A service that was added is shut down, taken out of the stack file, and pruned."""
        if not self._extras:
            return
        name = self._extras[0]
        self._operate(Kind.SHUTDOWN, name)
        spec = self._grounds.specs.pop(name)
        edges, self._grounds.edges = self._grounds.edges, [e for e in self._grounds.edges if e.service != name]
        try:
            self._grounds.apply(prune=True)
        except CitadelError:  # it still runs: another time
            self._grounds.specs[name], self._grounds.edges = spec, edges
            raise
        self._extras.remove(name)

    def change_edges(self) -> None:
        """An edge more, and then without it."""
        later, earlier = sorted(self._random.sample(self._grounds.singles, k=2), reverse=True)
        edge = Edge(later, earlier)
        if any((e.service, e.dependency) == (later, earlier) for e in self._grounds.edges):
            return
        self._grounds.edges.append(edge)
        self._grounds.apply()
        self._pause(0.2, 1.0)
        self._grounds.edges.remove(edge)
        self._grounds.apply(prune=True)

    def spoil_a_key(self) -> None:
        """An edge edited by hand that cannot be read, and put right."""
        key = Keys(STACK).edge("s23", "s00")

        async def put(client: ConsulClient) -> None:
            await client.kv_put(key, b"{ no JSON")

        self._grounds.world.ask(put)
        self._pause(0.3, 1.0)
        self._grounds.world.ask(lambda client: client.kv_delete(key))

    # --- citadel ------------------------------------------------------------------------------------------------

    def step_down(self) -> None:
        """The leader hands over."""
        self._hand_over_to("")
        self._pause(0.2, 1.0)

    def kill_leader(self) -> None:
        """SIGKILL to the leader, which is made one that may be killed."""
        if self._grounds.leader() != MORTAL:
            self._hand_over_to(MORTAL)
            self._pause(0.3, 1.0)
        role = self._role("orchestrator", MORTAL)
        role.kill()
        self._pause(0.5, 2.0)
        role.start()

    def pause_leader(self) -> None:
        """SIGSTOP to the leader, for longer than its check lasts."""
        self._pause_role("orchestrator", self._grounds.leader() or MORTAL, 2.5, 5.0)

    def pause_standby(self) -> None:
        """SIGSTOP to an orchestrator that does not lead."""
        leader = self._grounds.leader()
        self._pause_role("orchestrator", self._random.choice([node for node in NODES if node != leader]), 1.0, 15.0)

    def kill_agent(self) -> None:
        """SIGKILL to a node agent, which is started again."""
        role = self._role("agent", MORTAL)
        role.kill()
        self._pause(0.5, 3.0)
        role.start()

    def pause_agent(self) -> None:
        """SIGSTOP to a node agent, sometimes for longer than its lock lasts."""
        self._pause_role("agent", self._random.choice(NODES), 1.0, 8.0)

    def cut_off(self) -> None:
        """Connections of an orchestrator or a node agent to Consul that end at once, or fall silent for a while."""
        role = self._random.choice(self._grounds.crew.roles)
        if self._random.random() < 0.5:
            role.proxy.cut()
            self._pause(0.5, 2.0)
            return
        role.proxy.silence()
        try:
            self._pause(1.0, 12.0)
        finally:
            role.proxy.speak()

    def slow_down(self) -> None:
        """A slow way to Consul."""
        role = self._random.choice(self._grounds.crew.roles)
        role.proxy.delay_seconds = 0.2
        try:
            self._pause(3.0, 6.0)
        finally:
            role.proxy.delay_seconds = 0.0

    def ask_the_api(self) -> None:
        """Questions to the API, some of them nonsense, and one whose answer nobody waits for."""
        paths = ("status", "health", "metrics", "dependencies", "operations", "no-such-thing", "recover/nobody")
        for role in self._grounds.crew.orchestrators:
            for path in paths:
                self._ask(f"http://{role.process.api}/api/v1/orchestrator/{path}", 5.0)
            self._ask(f"http://{role.process.api}/api/v1/orchestrator/health", 0.002)

    # --- Consul -------------------------------------------------------------------------------------------------

    def restart_consul_agent(self) -> None:
        """The Consul agent of a node dies and is started again, sometimes without what it had on disk."""
        member = self._grounds.clients[self._random.choice(NODES)]
        member.kill()
        if self._random.random() < 0.3:
            member.wipe()
        self._pause(0.5, 4.0)
        self._grounds.heal_consul()

    def restart_consul_server(self) -> None:
        """All of Consul is away for some seconds."""
        self._grounds.server.kill()
        self._pause(0.5, 4.0)
        self._grounds.heal_consul()

    # --- means --------------------------------------------------------------------------------------------------

    def _single(self) -> str:
        return self._random.choice(self._grounds.singles)

    def _pause(self, least: float, most: float) -> None:
        time.sleep(self._random.uniform(least, most))

    def _operate(self, kind: Kind, *targets: str, **options: object) -> None:
        """Ask for an operation, and do not wait for longer than for one that a hold keeps from ending."""
        world = self._grounds.world
        operation_id = world.request(kind, *targets, **options)
        deadline = time.monotonic() + OPERATION_SECONDS
        while (operation := world.operation(operation_id)) is not None and not operation.ended:
            if time.monotonic() > deadline:
                world.cancel(operation_id)
                return
            time.sleep(0.2)

    def _hand_over_to(self, node: str) -> None:
        self._grounds.world.ask(lambda client: request_handover(client, STACK, node, "soak"))

    def _role(self, kind: str, node: str) -> Role:
        return next(role for role in self._grounds.crew.roles if (role.kind, role.node) == (kind, node))

    def _pause_role(self, kind: str, node: str, least: float, most: float) -> None:
        with _paused(self._role(kind, node)):
            self._pause(least, most)

    def _ask(self, url: str, timeout: float) -> None:
        try:
            with _direct.open(url, timeout=timeout) as response:
                response.read()
        except (urllib.error.URLError, OSError):
            return


@contextmanager
def _paused(role: Role) -> Iterator[None]:
    process = role.process
    process.pause()
    try:
        yield
    finally:
        process.resume()


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
