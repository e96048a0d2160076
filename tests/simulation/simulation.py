"""One simulated story: a plan, an operator's wishes and faults, all from one seed; and what to say of how it went.

A story has two acts. In the first, for some tens of seconds, an operator asks for operations while processes are killed
and paused (also between two steps of theirs, wherever those are), nodes are cut off, Consul loses its leader and its
agents, and services die or fall ill. In the second all faults are over; after a while everything has to be as wished.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from checker import stops_in_place, unfinished, violations
from clockwork import EPOCH, Process, SimulatedLoop, StuckError
from simulated_site import STACK, Plan, Site, everything_drawn_from

from citadel_consul.agent.chronicle import Entry
from citadel_consul.core.model import (
    Check,
    CheckKind,
    Edge,
    Instance,
    OnRecovery,
    ProcessBackend,
    RecoveryPolicy,
    ServiceSpec,
    Strength,
)
from citadel_consul.core.operation import Kind, Operation, Options
from citadel_consul.core.snapshot import Defaults
from citadel_consul.errors import CitadelError
from citadel_consul.store import documents
from citadel_consul.store.reading import read_state
from citadel_consul.store.requests import submit

TROUBLE_SECONDS = 25.0
CALM_SECONDS = 90.0
"""How long everything may take to be as wished, once the faults are over: Serf, session TTLs and backoff included."""
LOOK_SECONDS = 1.0
LOOKS = 3
"""In a row that have to find all as wished: the catalog can lag behind what is true, also in being well."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that is done to the site: when (seconds from the start), what, to whom, for how long."""

    at: float
    what: str
    target: str = ""
    seconds: float = 0.0
    step: int = 0

    def __str__(self) -> str:
        span = f" for {self.seconds:.2f} s" if self.seconds else ""
        place = f" at its step {self.step}" if self.step else ""
        return f"{self.at:7.2f}  {self.what} {self.target}{place}{span}"


@dataclass(slots=True)
class Story:
    """What a seed came up with: the site and all that happens to it."""

    seed: int
    plan: Plan
    happenings: tuple[Happening, ...]


@dataclass(slots=True)
class Outcome:
    """How a story went. ``violations`` is empty if all is well."""

    story: Story
    violations: list[str] = field(default_factory=list)
    timeline: list[str] = field(default_factory=list)
    steps: int = 0
    starts: int = 0
    seconds: float = 0.0


# --- drawing a story -----------------------------------------------------------------------------------------------


def story_of(seed: int) -> Story:
    """The story of a seed."""
    draw = random.Random(seed)
    nodes = tuple(f"n{i}" for i in range(1, draw.randint(2, 3) + 1))
    plan = _plan(draw, nodes)
    happenings = sorted([*_wishes(draw, plan), *_faults(draw, plan)], key=lambda happening: happening.at)
    return Story(seed, plan, tuple(happenings))


def _plan(draw: random.Random, nodes: tuple[str, ...]) -> Plan:
    names = [f"s{i}" for i in range(draw.randint(2, 6))]
    services, edges = [], []
    for place, name in enumerate(names):
        on = tuple(draw.sample(nodes, draw.choice((1, 1, 1, 2)) if len(nodes) > 1 else 1))
        services.append(_service(draw, name, on))
        edges += [
            Edge(
                name,
                dependency,
                strength=draw.choice((Strength.HARD, Strength.HARD, Strength.HARD, Strength.SOFT)),
                on_recovery=draw.choice((OnRecovery.NOTIFY, OnRecovery.NONE, OnRecovery.RESTART)),
            )
            for dependency in draw.sample(names[:place], min(place, draw.choice((0, 1, 1, 2))))
        ]
    boots = {name: draw.choice((0.0, 0.02, 0.2, 1.0)) for name in names}
    return Plan(nodes, draw.randint(2, len(nodes)), tuple(services), tuple(edges), boots)


def _service(draw: random.Random, name: str, nodes: tuple[str, ...]) -> ServiceSpec:
    return ServiceSpec(
        name=name,
        type="test",
        nodes=nodes,
        backend=ProcessBackend(("true",), reload_signal="SIGHUP"),
        checks=(Check(name="http", kind=CheckKind.HTTP, target=name, interval_seconds=10.0),),
        recovery=RecoveryPolicy(attempts=50, delay_seconds=1.0, max_delay_seconds=4.0, total_seconds=600.0),
        start_timeout_seconds=20.0,
        stop_timeout_seconds=draw.choice((1.0, 5.0)),
    )


def _wishes(draw: random.Random, plan: Plan) -> Iterable[Happening]:
    """An operator starts the stack, changes parts of it, and in the end wants all of it up (or all of it down)."""
    yield Happening(draw.uniform(0.5, 3.0), "startup", "all")
    for _ in range(draw.randint(0, 3)):
        kind = draw.choice(("restart", "restart", "shutdown", "startup", "recover"))
        cascade = kind == "restart" and draw.random() < 0.4
        yield Happening(
            draw.uniform(3.0, TROUBLE_SECONDS),
            kind + ("+cascade" if cascade or kind == "shutdown" else ""),
            draw.choice([service.name for service in plan.services]),
        )
    yield Happening(TROUBLE_SECONDS + 0.1, draw.choice(("startup", "startup", "startup", "shutdown")), "all")


def _faults(draw: random.Random, plan: Plan) -> Iterable[Happening]:
    roles = [f"agent-{node}" for node in plan.nodes]
    roles += [f"orchestrator-{node}" for node in plan.nodes[: plan.orchestrators]] * 2
    faults = (
        "kill",
        "pause",
        "kill-at",
        "pause-at",
        "cut",
        "no-leader",
        "restart-consul",
        "forget",
        "slow",
        "die",
        "ill",
    )
    for _ in range(draw.randint(1, 6)):
        what = draw.choice(faults)
        at = draw.uniform(0.5, TROUBLE_SECONDS - 4)
        node = draw.choice(plan.nodes)
        service = draw.choice(plan.services)
        instance = f"{service.name}@{draw.choice(service.nodes)}"
        role = draw.choice((*roles, "leader", "leader"))
        if what in ("kill", "pause"):
            yield Happening(at, what, role, draw.uniform(0.05, 8.0) if what == "pause" else 0.0)
        elif what in ("kill-at", "pause-at"):
            seconds = draw.uniform(0.05, 8.0) if what == "pause-at" else 0.0
            yield Happening(at, what, role, seconds, draw.randint(1, 150))
        elif what == "cut":
            yield Happening(at, what, node, draw.uniform(0.5, 14.0))
        elif what == "no-leader":
            yield Happening(at, what, "", draw.uniform(0.2, 12.0))
        elif what in ("restart-consul", "forget"):
            yield Happening(at, what, node, draw.uniform(0.1, 4.0))
        elif what == "slow":
            yield Happening(at, what, node, draw.uniform(0.5, 6.0))
        elif what == "die":
            yield Happening(at, what, instance)
        else:
            yield Happening(at, what, instance, draw.uniform(5.0, 15.0))


# --- telling it ----------------------------------------------------------------------------------------------------


class Telling:
    """One run of a story."""

    def __init__(self, loop: SimulatedLoop, story: Story) -> None:
        self.loop = loop
        self.story = story
        self.site = Site(loop, random.Random(story.seed + 1), story.plan)
        self.outcome = Outcome(story)
        self.requested: list[str] = []
        self._wishes: asyncio.Queue[Happening] = asyncio.Queue()
        self._armed: dict[Process, tuple[int, Happening]] = {}
        self._unfenced: list[str] = []
        self._began = loop.time()
        loop.before_step = self._before_step
        self.site.cluster.store.on_write.append(self._heard)

    async def run(self) -> Outcome:
        site = self.site
        await self._apply()
        site.start()
        self.loop.spawn(site.operator, self._operate())
        for happening in self.story.happenings:
            await asyncio.sleep(max(0.0, self._began + happening.at - self.loop.time()))
            await self._let_happen(happening)
        self._armed.clear()
        self.outcome.violations += await self._until_as_wished()
        await self._judge()
        self.outcome.steps = self.loop.steps
        self.outcome.seconds = self.loop.time() - self._began
        await site.close()
        return self.outcome

    def say(self, text: str) -> None:
        self.outcome.timeline.append(f"{self.loop.time() - self._began:8.3f}  {text}")

    async def _apply(self) -> None:
        client = self.site.client(self.site.plan.nodes[0], self.site.operator)
        keys = self.site.keys
        for spec in self.site.plan.services:
            await client.kv_put(keys.spec(spec.name), documents.SPEC.encode(spec))
        for edge in self.site.plan.edges:
            await client.kv_put(keys.edge(edge.service, edge.dependency), documents.EDGE.encode(edge))

    # --- happenings ------------------------------------------------------------------------------------------------

    async def _let_happen(self, happening: Happening) -> None:
        self.say(
            f"*** {happening.what} {happening.target}" + (f" {happening.seconds:.2f} s" if happening.seconds else "")
        )
        kind = happening.what.partition("+")[0]
        if kind in ("startup", "shutdown", "restart", "recover"):
            self._wishes.put_nowait(happening)
            return
        getattr(self, "_" + happening.what.replace("-", "_"))(happening)

    async def _operate(self) -> None:
        """Ask for one thing after the other, each again until it is written, as an operator does."""
        client = self.site.client(self.site.plan.nodes[0], self.site.operator)
        while True:
            wish = await self._wishes.get()
            kind, _, options = wish.what.partition("+")
            wanted = Options(cascade=options == "cascade")
            while True:
                try:
                    operation = await submit(
                        client, self.site.keys, Kind(kind), [wish.target], wanted, requested_by="operator"
                    )
                except CitadelError:
                    await asyncio.sleep(0.5)
                else:
                    self.requested.append(operation.id)
                    break

    def _process(self, happening: Happening) -> Process | None:
        name = happening.target
        if name == "leader":
            entry = self.site.cluster.store.kv.get(self.site.keys.leader)
            if entry is None:
                return None
            from simulated_store import decoded

            name = f"orchestrator-{documents.LEADER.decode(decoded(entry.value)).node}"
        process = self.site.processes.get(name)
        return process if process is not None and process.alive else None

    def _kill(self, happening: Happening) -> None:
        process = self._process(happening)
        if process is not None:
            self.loop.kill(process)

    def _pause(self, happening: Happening) -> None:
        process = self._process(happening)
        if process is not None:
            self.loop.pause(process, happening.seconds)

    def _kill_at(self, happening: Happening) -> None:
        process = self._process(happening)
        if process is not None:
            self._armed[process] = (process.steps + happening.step, happening)

    _pause_at = _kill_at

    def _before_step(self, process: Process) -> None:
        armed = self._armed.get(process)
        if armed is not None and process.steps >= armed[0]:
            del self._armed[process]
            happening = armed[1]
            self.say(f"*** now {happening.what} {process} at its step {process.steps}")
            if happening.what == "kill-at":
                self.loop.kill(process)
            else:
                self.loop.pause(process, happening.seconds)

    def _cut(self, happening: Happening) -> None:
        self.site.consul[happening.target].cut(happening.seconds)

    def _no_leader(self, happening: Happening) -> None:
        self.site.cluster.lose_leader(happening.seconds)

    def _restart_consul(self, happening: Happening) -> None:
        self.site.consul[happening.target].restart(happening.seconds, forget=False)

    def _forget(self, happening: Happening) -> None:
        self.site.consul[happening.target].restart(happening.seconds, forget=True)

    def _slow(self, happening: Happening) -> None:
        agent = self.site.consul[happening.target]
        agent.slow_seconds = 0.15

        def recover() -> None:
            agent.slow_seconds = 0.0

        self.loop.call_later(happening.seconds, recover)

    def _die(self, happening: Happening) -> None:
        service, _, node = happening.target.partition("@")
        self.site.machines[node].end(Instance(service, node))

    def _ill(self, happening: Happening) -> None:
        service, _, node = happening.target.partition("@")
        machine, instance = self.site.machines[node], Instance(service, node)
        machine.ill.add(instance)
        self.loop.call_later(happening.seconds, machine.ill.discard, instance)

    # --- judging ---------------------------------------------------------------------------------------------------

    def _heard(self, who: object, operations: list[dict[str, object]]) -> None:
        """I3, in Consul: what only the leader writes, it writes under its fence."""
        keys = self.site.keys
        mine = (keys.desired, keys.incidents, keys.stats, keys.steps)
        touched = [str(op["Key"]) for op in operations if str(op["Verb"]).startswith(("set", "cas", "delete"))]
        if any(key.startswith(mine) for key in touched):
            first = operations[0]
            if first["Verb"] != "check-session" or first["Key"] != keys.leader:
                self._unfenced.append(f"I3: {who} wrote {', '.join(touched)} without its fence")

    async def _until_as_wished(self) -> list[str]:
        """Wait until the last fault is over and all is, and stays, as wished; returns what is not, at the end."""
        over = self._began + max((h.at + h.seconds for h in self.story.happenings), default=0.0)
        await asyncio.sleep(max(0.0, over - self.loop.time()))
        deadline, good = self.loop.time() + CALM_SECONDS, 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            differences = await self._differences()
            good = 0 if differences else good + 1
            if good == LOOKS or self.loop.time() > deadline:
                return differences

    async def _differences(self) -> list[str]:
        """What is not as it should be when all faults are over."""
        site = self.site
        client = site.client(site.plan.nodes[0], site.operator)
        try:
            state = await read_state(client, STACK, Defaults())
        except CitadelError as error:
            return [f"Consul cannot be read: {error}"]
        operations = state.all_operations()
        found = unfinished(operations, self.requested)
        last = max((op for op in operations if op.targets == ("all",)), key=lambda op: op.id, default=None)
        if last is None:
            return [*found, "nobody's wish is known"]
        up = last.kind is Kind.STARTUP
        for spec in site.plan.services:
            for instance in spec.instances:
                runs = instance in site.machines[instance.node].running()
                if runs is not up:
                    found.append(f"liveness: {instance} {'runs' if runs else 'does not run'} after {last.kind} all")
        if up:
            passing = {
                entry["Service"]["ID"]
                for spec in site.plan.services
                for entry in site.cluster.store.health_of(spec.name)
                if all(check["Status"] == "passing" for check in entry["Checks"])
            }
            for spec in site.plan.services:
                found += [
                    f"liveness: {i} is not passing in the catalog"
                    for i in spec.instances
                    if f"{STACK}.{i.service}.{i.node}" not in passing
                ]
        return found

    async def _judge(self) -> None:
        site, outcome = self.site, self.outcome
        client = site.client(site.plan.nodes[0], site.operator)
        operations = (await read_state(client, STACK, Defaults())).all_operations()
        full = [await _with_steps(client, site, operation) for operation in operations]
        entries = [entry for history in site.histories.values() for entry in history]
        instances = {spec.name: len(spec.nodes) for spec in site.plan.services}
        outcome.violations += violations(entries, site.plan.edges, instances=instances, in_place=stops_in_place(full))
        outcome.violations += self._unfenced
        outcome.violations += [text for machine in site.machines.values() for text in machine.twice]
        outcome.violations += site.crashes
        outcome.violations += self._stopped_unasked(entries)
        outcome.starts = sum(entry.what == "started" for entry in entries)
        for node, history in site.histories.items():
            for entry in history:
                at = entry.at - EPOCH - self._began
                text = (
                    f"{at:8.3f}  {node}: {entry.what} {entry.service} g{entry.generation} e{entry.epoch} {entry.detail}"
                )
                outcome.timeline.append(text)
        outcome.timeline.sort(key=lambda line: float(line.split(maxsplit=1)[0]))

    def _stopped_unasked(self, entries: list[Entry]) -> list[str]:
        """I7: each stop on a machine has its order, which the node agent wrote down before it acted."""
        stops = Counter(i for m in self.site.machines.values() for what, i, _ in m.history if what == "stop")
        orders = Counter(Instance(entry.service, entry.node) for entry in entries if entry.what == "stopping")
        return [
            f"I7: {instance} was stopped {count} times, by {orders[instance]} orders"
            for instance, count in stops.items()
            if count > orders[instance]
        ]


async def _with_steps(client: object, site: Site, operation: Operation) -> Operation:
    from citadel_consul.store.reading import read_steps

    return replace(operation, steps=await read_steps(client, site.keys, operation.id))  # type: ignore[arg-type]


def tell(story: Story) -> Outcome:
    """Run a story from its beginning to its verdict."""
    logging.getLogger("citadel_consul").setLevel(logging.CRITICAL)
    loop = SimulatedLoop()
    with everything_drawn_from(story.seed, loop):
        asyncio.set_event_loop(loop)
        telling: list[Telling] = []

        async def told() -> Outcome:
            telling.append(Telling(loop, story))
            return await telling[0].run()

        try:
            return loop.run_until_complete(told())
        except StuckError as error:
            outcome = telling[0].outcome if telling else Outcome(story)
            outcome.violations.append(f"stuck: {error}")
            return outcome
        finally:
            asyncio.set_event_loop(None)


def shrink(story: Story, fails: Callable[[Story], bool]) -> Story:
    """The story with as few happenings as it takes to fail."""
    happenings = list(story.happenings)
    for happening in list(happenings):
        without = [h for h in happenings if h is not happening]
        if fails(replace(story, happenings=tuple(without))):
            happenings = without
    return replace(story, happenings=tuple(happenings))


__all__ = ["Happening", "Outcome", "Story", "shrink", "story_of", "tell"]
