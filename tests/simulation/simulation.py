"""One simulated story, told from its beginning to its verdict.

A story has two acts. In the first, for some tens of seconds, an operator asks for operations while processes are killed
and paused (also between two steps of theirs, wherever those are), nodes are cut off, Consul loses its leader and its
agents, and services die or fall ill. In the second all faults are over; after a while everything has to be as wished.
The judge looks at each thing that happens; its first verdict ends the story.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from chance import everything_drawn_from
from clockwork import SimulatedLoop, StuckError
from faults import Faults
from judge import Judge
from simulated_link import Exchange
from simulated_site import STACK, Site
from simulated_store import decoded
from story import Happening, Layout, Story
from wishing import Operator

from citadel_consul.agent.chronicle import Entry
from citadel_consul.core.incident import STACK as ALL_OF_IT
from citadel_consul.core.operation import Kind, Operation
from citadel_consul.core.snapshot import Defaults
from citadel_consul.errors import CitadelError
from citadel_consul.store import documents
from citadel_consul.store.reading import read_state
from citadel_consul.store.state import StackState

CALM_SECONDS = 90.0
"""How long everything may take to be as wished, once the faults are over: Serf, session TTLs and backoff included."""
LOOK_SECONDS = 1.0
LOOKS = 3
"""In a row that have to find all as wished: the catalog can lag behind what is true, also in being well."""


@dataclass(slots=True)
class Outcome:
    """How a story went. ``violations`` is empty if all is well; ``marks`` are the steps that were to be noted."""

    story: Story
    violations: list[str] = field(default_factory=list)
    timeline: list[str] = field(default_factory=list)
    steps: int = 0
    starts: int = 0
    seconds: float = 0.0
    marks: list[int] = field(default_factory=list)


class Telling:
    """One run of a story."""

    def __init__(self, loop: SimulatedLoop, story: Story) -> None:
        self.loop = loop
        self.story = story
        self.outcome = Outcome(story)
        self._began = loop.time()
        self._broken: asyncio.Future[None] = loop.create_future()
        self.site = Site(loop, random.Random(story.seed + 1), story.plan, self._hear, self._accuse)
        self._judge = Judge(loop, self.site.keys, story.plan.defaults, self._accuse)
        self._operator = Operator(self.site)
        self._released: set[str] = set()
        self.faults = Faults(loop, self.site, self.say)
        for machine in self.site.machines.values():
            machine.on_stop, machine.on_second = self._judge.stopped, self._judge.started_twice
        self.site.cluster.store.on_write.append(self._wrote)
        self.site.cluster.on_answer = self._answered

    async def run(self) -> Outcome:
        """Tell it. The site is closed down in the end, so that nothing is left for the next one."""
        telling = self.loop.create_task(self._tell())
        await asyncio.wait((telling, self._broken), return_when=asyncio.FIRST_COMPLETED)
        ended = telling.done()
        telling.cancel()
        await asyncio.wait({telling})
        self.outcome.steps = self.loop.steps
        self.outcome.marks = self.faults.marks
        self.outcome.seconds = self.loop.time() - self._began
        self.site.cluster.store.on_write.clear()
        await self.site.close()
        if ended:
            self.outcome.violations += telling.result()
        return self.outcome

    async def _tell(self) -> list[str]:
        """Both acts; returns what is not as wished in the end."""
        await self._apply(self.story.plan.layouts[0])
        self.site.start()
        self.loop.spawn(self.site.operator, self._operator.run()).add_done_callback(self._operator_ended)
        for happening in self.story.happenings:
            await asyncio.sleep(max(0.0, self._began + happening.at - self.loop.time()))
            self.say(f"*** {happening}")
            if self._operator.does(happening.what):
                self._operator.wish(happening)
            else:
                self.faults.strike(happening)
        self.faults.disarm()
        return await self._until_as_wished()

    async def _apply(self, layout: Layout) -> None:
        """What stands in Consul before the first process is there."""
        client = self.site.client(self.site.operator.host, self.site.operator)
        keys = self.site.keys
        for spec in layout.services:
            await client.kv_put(keys.spec(spec.name), documents.SPEC.encode(spec))
        for edge in layout.edges:
            await client.kv_put(keys.edge(edge.service, edge.dependency), documents.EDGE.encode(edge))

    def _operator_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._accuse(f"the operator ended by {task.exception()!r}")

    # --- what comes by ---------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Put a line into the timeline."""
        self.outcome.timeline.append(f"{self.loop.time() - self._began:8.3f}  {text}")

    def _accuse(self, violation: str) -> None:
        """Something that must not be: the story ends here."""
        if not self.site.reviving:
            return  # it is over, and what was paused for long is being cleared away
        self.outcome.violations.append(f"{violation} (at {self.loop.time() - self._began:.3f} s)")
        if not self._broken.done():
            self._broken.set_result(None)

    def _hear(self, entry: Entry) -> None:
        self.say(
            f"{entry.node}: {entry.what} {entry.service} g{entry.generation} e{entry.epoch} {entry.detail}".rstrip()
        )
        self.outcome.starts += entry.what == "started"
        self._judge.heard(entry)

    def _wrote(self, who: object, operations: list[dict[str, Any]]) -> None:
        if isinstance(who, Exchange):
            try:
                self._judge.wrote(who.process, who.sent_at, operations)
            except Exception as error:  # inside of a request it would pass for one of Consul's
                self._accuse(f"the judge fails: {error!r}")
                raise
        for operation in operations:
            key = operation["Key"]
            if key.startswith(self.site.keys.events) and operation["Verb"] == "set":
                event = orjson.loads(decoded(operation["Value"]))
                if not event["kind"].startswith("instance-"):
                    self.say(f"{event['by']}: {event['message']}")

    def _answered(self, exchange: Exchange, answer: tuple[int, int | None, bytes]) -> None:
        """A leader learns of holds by reading them."""
        ask, status = exchange.ask, answer[0]
        wanted = ask.path == f"/v1/kv/{self.site.keys.holds}" and "recurse" in ask.query and ask.method == "GET"
        if exchange.process is None or not wanted or status not in (200, 404):
            return
        entries = orjson.loads(answer[2] or b"[]")
        held = {entry["Key"]: orjson.loads(decoded(entry["Value"] or "") or b"{}") for entry in entries}
        self._judge.listed_holds(exchange.process, held)

    # --- the end ---------------------------------------------------------------------------------------------------

    async def _until_as_wished(self) -> list[str]:
        """Wait until the last fault is over and all is, and stays, as wished; returns what is not, at the end."""
        over = self._began + max((h.at + h.seconds for h in self.story.happenings), default=0.0)
        await asyncio.sleep(max(0.0, over - self.loop.time()))
        self._lift_holds()
        deadline, good = self.loop.time() + CALM_SECONDS, 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            differences = await self._differences()
            good = 0 if differences else good + 1
            if good == LOOKS or self.loop.time() > deadline:
                return differences

    def _lift_holds(self) -> None:
        """Those that do not end by themselves."""
        keys = self.site.keys
        for key, entry in self.site.cluster.store.kv.items():
            if key.startswith(keys.holds) and key != keys.holds and "until" not in orjson.loads(decoded(entry.value)):
                self._operator.wish(Happening(0.0, "lift", key.removeprefix(keys.holds)))

    async def _differences(self) -> list[str]:
        """What is not as it should be when all faults are over."""
        if not self._operator.idle:
            return ["liveness: the operator waits"]
        client = self.site.client(self.site.operator.host, self.site.operator)
        try:
            state = await read_state(client, STACK, Defaults())
        except CitadelError as error:
            return [f"liveness: Consul cannot be read: {error}"]
        operations = state.all_operations()
        wishes = [op for op in operations if op.targets == ("all",) and op.kind is not Kind.RECOVER]
        last = max(wishes, key=lambda op: op.id, default=None)
        if last is None:
            return [*self._unfinished(operations), "liveness: nobody's wish is known"]
        up = last.kind is Kind.STARTUP
        if up:
            self._go_on(state)
        return [*self._unfinished(operations), *self._misplaced(state, up), *(self._unfound(state) if up else ())]

    def _go_on(self, state: StackState) -> None:
        """What the operator does once who is told that nothing is recovered any more, since too much failed at once."""
        brake = state.snapshot().incidents.get(ALL_OF_IT)
        if brake is not None and not brake.over and brake.id not in self._released:
            self._released.add(brake.id)
            self._operator.wish(Happening(0.0, str(Kind.RECOVER), "all"))

    def _unfinished(self, operations: tuple[Operation, ...]) -> Iterator[str]:
        """I4: every operation ends, and none is lost."""
        known = {operation.id for operation in operations}
        yield from (f"I4: operation {one} is lost" for one in self._operator.requested if one not in known)
        yield from (f"I4: {op.kind} {op.id} has not ended: {op.state}" for op in operations if not op.ended)

    def _misplaced(self, state: StackState, up: bool) -> Iterator[str]:
        for spec in state.snapshot().specs.values():
            for instance in spec.instances:
                runs = instance in self.site.machines[instance.node].running()
                if runs is not up:
                    wish = "startup" if up else "shutdown"
                    yield f"liveness: {instance} {'runs' if runs else 'does not run'} after {wish} all"

    def _unfound(self, state: StackState) -> Iterator[str]:
        store = self.site.cluster.store
        for spec in state.snapshot().specs.values():
            passing = {
                entry["Service"]["ID"]
                for entry in store.health_of(spec.name)
                if all(check["Status"] == "passing" for check in entry["Checks"])
            }
            for instance in spec.instances:
                if f"{STACK}.{instance.service}.{instance.node}" not in passing:
                    yield f"liveness: {instance} is not passing in the catalog"


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
    """The story with as few happenings as it takes to fail. The last wish stays: it says how all has to be."""
    happenings = list(story.happenings)
    last = max((h for h in happenings if h.target == "all"), key=lambda h: h.at)
    for happening in [h for h in happenings if h is not last]:
        without = [h for h in happenings if h is not happening]
        if fails(replace(story, happenings=tuple(without))):
            happenings = without
    return replace(story, happenings=tuple(happenings))


__all__ = ["Outcome", "Telling", "shrink", "tell"]
