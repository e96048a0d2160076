"""The node agent as a whole: its lock, what it watches, and a runner for each instance of its node.

Losing Consul, the leader or the lock stops no service (invariant I7): runners go on watching what runs, and what they
see is said when it can be said again. Which orders are followed, and when, is told in ``orders``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from citadel_consul import __version__
from citadel_consul.agent.chronicle import Chronicle, Entry
from citadel_consul.agent.draining import Drainer
from citadel_consul.agent.gauge import Gauge
from citadel_consul.agent.liveness import Liveness, Place
from citadel_consul.agent.maintenance import Maintenance
from citadel_consul.agent.orders import Orders
from citadel_consul.agent.readiness import Prober
from citadel_consul.agent.registrar import Registrar, Render, mend_for_ever
from citadel_consul.agent.reporter import FEW_NODES, Reporter
from citadel_consul.agent.runner import InstanceRunner
from citadel_consul.agent.specs import Expand, Specs
from citadel_consul.agent.surroundings import Surroundings
from citadel_consul.backends.base import Backend, InstanceExited, Notice
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.lease import Lease, TTLCheck, until_lost
from citadel_consul.consul.patience import patiently
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Instance, ServiceSpec
from citadel_consul.errors import CitadelError, ConsulUnavailable, LeadershipLost, Refused
from citadel_consul.store import documents
from citadel_consul.store.documents import AgentRecord, Event, NodeObserved, UndecodableError
from citadel_consul.store.identifiers import new_id
from citadel_consul.store.keys import Keys
from citadel_consul.telemetry.fields import about
from citadel_consul.telemetry.supervision import Pulse, Supervision

log = logging.getLogger(__name__)

SERVICE_NAME = "citadel-agent"
MEND_SECONDS = 5.0
_PAST = {
    "ready": "is ready",
    "adopted": "was found running",
    "draining": "takes no new clients, and finishes what it has in hand",
    "drain-timed-out": "did not finish what it has in hand in time",
    "stopping": "is being stopped",
    "failed": "could not be started",
    "failing": "does not pass its checks",
    "contradicted": "passes its checks, whatever Consul says",
    "reloaded": "was told to reload",
    "not-reloaded": "could not be reloaded",
    "released": "was let go of as it is",
}
"""How an entry of the history reads as a sentence, where the word alone would not."""
_WRONG = frozenset({"exited", "failed", "failing", "not-reloaded"})


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Which node of which stack this agent answers for.

    ``patience_seconds`` is how long it waits for the lock; ``api`` is the ``host:port`` at which others see what it
    measures, empty if they cannot. In a stack of more than ``few_nodes`` nodes it signals its reports (see
    ``agent.reporter``).
    """

    stack: str
    node: str
    address: str
    api: str = ""
    stop_timeout_seconds: float = 30.0
    check_ttl_seconds: float = 5.0
    session_ttl_seconds: float = 10.0
    patience_seconds: float = 30.0
    home: str = ""
    few_nodes: int = FEW_NODES


class NodeAgent:
    """Runs the instances of one node. ``expand`` fills in a spec's templates, ``render`` makes its registration.

    What it measures is shown on ``listener``, which its owner closes; nothing is shown without one. ``make_prober``
    makes what runs the checks of services.
    """

    def __init__(
        self,
        client: ConsulClient,
        config: AgentConfig,
        backend: Backend,
        *,
        expand: Expand,
        render: Render,
        chronicle: Chronicle,
        listener: socket.socket | None = None,
        make_prober: Callable[[], Prober] = Prober,
        wall: Callable[[], float] = time.time,
        supervision: Supervision | None = None,
    ) -> None:
        self.config = config
        self._client = client
        self._backend = backend
        self._chronicle = chronicle
        self._listener = listener
        self._make_prober = make_prober
        self._wall = wall
        self._supervision = supervision or Supervision()
        self._keys = Keys(config.stack)
        self._registrar = Registrar(client, config.stack, config.node, render)
        self._specs = Specs(client, self._keys, expand)
        self._runners: dict[str, InstanceRunner] = {}
        self._orders: Orders | None = None
        self._consul_node = ""
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Take the lock of this node, adopt what runs, and follow orders until cancelled.

        Raises :class:`Refused` if another agent holds the lock of this node for ``patience_seconds``.
        """
        lease = await self._lease()
        async with lease:
            await self._take_lock(lease)
            last = await self._last_report()
            reporter = Reporter(self._client, self._keys, self.config.node, last)
            await self._specs.read()
            async with self._make_prober() as prober, asyncio.TaskGroup() as group:
                around = self._surroundings(reporter, prober)
                self._backend.set_exit_sink(self._take_exit)
                self._backend.set_notice_sink(lambda notice: self._pass_on(reporter, notice))
                for service in await self._known_services(last):
                    self._start_runner(group, around, service, reporter.document)
                orders = self._orders_under(lease, reporter, group, around)
                group.create_task(self._hold(lease, reporter, orders))
                group.create_task(reporter.mind())
                group.create_task(self._specs.run())
                group.create_task(self._liveness(prober).run())
                group.create_task(self._maintenance().run())
                group.create_task(self._mend())
                group.create_task(self._dismiss_for_ever(orders))
                if self._listener is not None:
                    group.create_task(self._gauge(prober).run(self._listener))
                await orders.run(self._become_ready)

    def _become_ready(self) -> None:
        """Take note that the orders were looked at; the first look is what a start of this process waits for."""
        if not self.ready.is_set():
            self.ready.set()
            self._supervision.ready(self._answers)

    @property
    def _answers(self) -> str:
        return f"answers for node {self.config.node} of stack {self.config.stack}"

    # --- the lock -----------------------------------------------------------------------------------------------

    async def _lease(self) -> Lease:
        me = await patiently(self._client.agent_self)
        self._consul_node = me.node
        record = AgentRecord(
            id=f"{self.config.node}-{new_id(self._wall())}",
            node=self.config.node,
            consul_node=me.node,
            address=self.config.address,
            since=self._wall(),
            version=__version__,
            api=self.config.api,
            home=self.config.home,
            lets_go=True,
            signals=True,
        )
        check = TTLCheck(
            service_name=SERVICE_NAME,
            service_id=f"{SERVICE_NAME}.{self.config.stack}.{self.config.node}",
            ttl_seconds=self.config.check_ttl_seconds,
            address=self.config.address,
            tags=(self.config.stack,),
            meta={"citadel-role": "agent", "citadel-stack-name": self.config.stack},
            supersede=await self._predecessor_is_dead(),
        )
        value = documents.AGENT.encode(record)
        key = self._keys.agent(self.config.node)
        return Lease(self._client, key, lambda: value, check, self.config.session_ttl_seconds)

    async def _predecessor_is_dead(self) -> bool:
        """Whether no other agent can be alive under the lock of this node: nobody has it, or somebody of our home had.

        There is one agent for a home, since we could lock its folder. Its successor need not wait for its time-outs.
        """
        entry = await patiently(lambda: self._client.kv_get(self._keys.agent(self.config.node)))
        if entry is None or entry.session is None:
            return True
        try:
            return documents.AGENT.decode(entry.value).home == self.config.home
        except UndecodableError:
            return False

    async def _take_lock(self, lease: Lease) -> None:
        """Wait for the lock of this node. Raises Refused only if another agent is seen to hold it all the while.

        The absence of Consul, however long, is no reason to give up: services run, and somebody has to watch them.
        """
        self._supervision.say(f"waits for the lock of node {self.config.node} of stack {self.config.stack}")
        while True:
            try:
                async with asyncio.timeout(self.config.patience_seconds):
                    await lease.acquire()
            except TimeoutError:
                if await self._another_holds_the_lock():
                    raise Refused(
                        f"another node agent answers for node {self.config.node!r} of stack {self.config.stack!r}: "
                        f"there is one for a node (see the key {self._keys.agent(self.config.node)})"
                    ) from None
            else:
                return

    async def _another_holds_the_lock(self) -> bool:
        try:
            entry = await self._client.kv_get(self._keys.agent(self.config.node))
        except ConsulUnavailable:
            return False
        return entry is not None and entry.session is not None

    async def _hold(self, lease: Lease, reporter: Reporter, orders: Orders) -> None:
        """Keep the lock, and write reports under it; take it again after it was lost to an outage."""
        while True:
            lost = await until_lost(self._keep(lease, reporter, orders))
            log.warning("the lock of this node is lost, taking it again: %s", lost)
            self._client.drop_connections()  # orders that are waited for on a dead one would come a minute late
            await self._take_lock(lease)
            self._supervision.say(self._answers)
            orders.look_again()
            now, node = self._wall(), self.config.node
            message = f"node agent {node} lost its lock and has it again; what runs there went on"
            reporter.record(Event(new_id(now), now, "agent-returned", message, f"agent {node}", node=node))

    async def _keep(self, lease: Lease, reporter: Reporter, orders: Orders) -> None:
        with self._supervision.watching("the loop of the node agent") as pulse:
            async with asyncio.TaskGroup() as group:
                group.create_task(lease.keep())
                group.create_task(
                    reporter.run(
                        lease.session,
                        lock_value=lease.value,
                        signals=lambda: self._specs.node_count > self.config.few_nodes,
                        on_new_log=orders.begin_anew,
                    )
                )
                group.create_task(_beat_for_ever(lease, orders.look_again, pulse))

    # --- what is known at the start -----------------------------------------------------------------------------

    async def _last_report(self) -> NodeObserved | None:
        entry = await patiently(lambda: self._client.kv_get(self._keys.observed_of(self.config.node)))
        if entry is None:
            return None
        try:
            return documents.OBSERVED.decode(entry.value)
        except UndecodableError as error:
            log.warning("the last report of this node cannot be read, starting a new one: %s", error)
            return None

    async def _known_services(self, last: NodeObserved | None) -> list[str]:
        """What may run here: what was reported, and what an earlier agent started without a word."""
        survivors = [i.service for i in await self._backend.survivors() if i.node == self.config.node]
        return list(dict.fromkeys([*(last.instances if last is not None else ()), *survivors]))

    # --- runners ------------------------------------------------------------------------------------------------

    def _surroundings(self, reporter: Reporter, prober: Prober) -> Surroundings:
        return Surroundings(
            stack=self.config.stack,
            backend=self._backend,
            catalog=self._registrar,
            readiness=prober,
            drainer=Drainer(self._client, self._registrar, prober),
            spec_of=self._specs.known,
            fresh_spec_of=self._specs.fresh,
            stop_timeout_of=self._stop_timeout_of,
            report=reporter.report,
            forget=reporter.forget,
            note=lambda what, instance, seen: self._note(reporter, what, instance, seen),
            wall=self._wall,
        )

    def _liveness(self, prober: Prober) -> Liveness:
        place = Place(self.config.stack, self.config.node, self._consul_node)
        return Liveness(self._client, place, prober, self._runners, self._specs.known, self._wall)

    def _gauge(self, prober: Prober) -> Gauge:
        return Gauge(self.config.node, prober, self._runners, self._specs.known, self._wall)

    def _maintenance(self) -> Maintenance:
        def phases() -> list[tuple[str, Phase]]:
            return [(service, runner.observed.phase) for service, runner in self._runners.items()]

        return Maintenance(self._client, self._keys, self.config.node, phases, self._wall)

    def _note(self, reporter: Reporter, what: str, instance: Instance, seen: Observed) -> None:
        """Put what happened to an instance into the node's own history and into that of the stack."""
        now = self._wall()
        epoch = self._orders.epoch if self._orders is not None else reporter.document.epoch
        self._chronicle.write(
            Entry(now, what, instance.node, instance.service, seen.generation, epoch, seen.pid, seen.detail)
        )
        detail = seen.detail or seen.failure
        message = f"{instance} {_PAST.get(what, what)}" + (f": {detail}" if detail else "")
        reporter.record(
            Event(
                id=new_id(now),
                at=now,
                kind=f"instance-{what}",
                message=message,
                by=f"agent {self.config.node}",
                epoch=epoch,
                service=instance.service,
                node=instance.node,
            )
        )
        level = logging.WARNING if what in _WRONG else logging.INFO
        log.log(level, "%s", message, extra=about(service=instance.service, generation=seen.generation, event=what))

    def _orders_under(self, lease: Lease, reporter: Reporter, group: asyncio.TaskGroup, around: Surroundings) -> Orders:
        def follow(service: str, desired: Desired) -> None:
            runner = self._runners.get(service) or self._start_runner(group, around, service, reporter.document)
            runner.want(desired)

        self._orders = Orders(
            self._client, self._keys, self.config.node, lease, reporter, self._chronicle, follow, self._wall
        )
        return self._orders

    def _start_runner(
        self, group: asyncio.TaskGroup, around: Surroundings, service: str, report: NodeObserved
    ) -> InstanceRunner:
        last: Observed | None = report.instances.get(service)
        runner = InstanceRunner(Instance(service, self.config.node), around, last)
        self._runners[service] = runner
        group.create_task(self._mind(runner))
        return runner

    async def _mind(self, runner: InstanceRunner) -> None:
        await runner.run()
        del self._runners[runner.instance.service]

    async def _dismiss_for_ever(self, orders: Orders) -> None:
        """Let go of what the stack does not have here any more, once the leader has forgotten it; until cancelled."""
        while True:
            await asyncio.sleep(MEND_SECONDS)
            for service, runner in self._runners.items():
                stays = self._specs.places(service, self.config.node) or orders.name(service)
                if not stays and runner.at_rest:
                    runner.dismiss()

    def _take_exit(self, event: InstanceExited) -> None:
        runner = self._runners.get(event.instance.service)
        if runner is not None and event.instance.node == self.config.node:
            runner.exited(event)

    def _pass_on(self, reporter: Reporter, notice: Notice) -> None:
        """Tell the stack's history what a backend thinks that people should know."""
        log.warning("%s: %s", notice.instance, notice.message)
        runner = self._runners.get(notice.instance.service)
        if runner is not None and notice.handle is not None:
            runner.runs_as(notice.handle)
        now, (service, node) = self._wall(), notice.instance
        message = f"{notice.instance}: {notice.message}"
        reporter.record(Event(new_id(now), now, "backend-notice", message, f"agent {node}", service=service, node=node))

    def _stop_timeout_of(self, spec: ServiceSpec | None) -> float:
        own = spec.stop_timeout_seconds if spec is not None else None
        return self.config.stop_timeout_seconds if own is None else own

    async def _mend(self) -> None:
        """Mend the catalog, but not before it is known what runs here: until then everything looks like a ghost."""
        await self.ready.wait()
        for runner in list(self._runners.values()):
            await runner.adopted.wait()
        await mend_for_ever(self._registrar, self._consul_node, MEND_SECONDS)


async def _beat_for_ever(lease: Lease, on_beat: Callable[[], None], pulse: Pulse) -> None:
    """Give the signs of life that the lock hangs on. Consul's absence is not ours to solve: the lock runs out."""
    while True:
        pulse.beat()
        try:
            await lease.beat()
        except LeadershipLost:
            raise
        except CitadelError as error:
            log.warning("no sign of life could be given: %s", error)
        else:
            on_beat()
        await asyncio.sleep(lease.check.ttl_seconds / 3)
