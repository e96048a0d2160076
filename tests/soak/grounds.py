"""The grounds of a soak: a Consul server, three nodes with a Consul agent and citadel's processes, thirty instances.

Half of citadel's processes live through everything (they may be paused, deposed and cut off from Consul, but are never
killed), since only what lives long can leak. The other half, all on one node, is there to be killed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

import yaml
from census import Subject
from cluster import READY_SECONDS, Member
from incidents import OPENED_AT, closed, notice
from moody import Ward
from real_world import Process
from receiver import Receiver
from roles import Crew, PatientWorld, Role, spread

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.ports import LOOPBACK
from citadel_consul.core.model import Edge, ServiceSpec, Stack
from citadel_consul.core.notice import Transition
from citadel_consul.core.operation import ALL, Kind, Options
from citadel_consul.orchestrator.handover import request_handover
from citadel_consul.orchestrator.outbox import KEPT as NOTICES_KEPT
from citadel_consul.store.applying import read_difference, write_difference
from citadel_consul.store.keys import Keys
from citadel_consul.store.postings import POSTING, Delivery, DeliveryState, Posting
from citadel_consul.store.requests import submit, wait_for_end

NODES = ("n1", "n2", "n3")
MORTAL = "n3"
"""The node whose orchestrator and node agent are killed."""
STACK = "soak"
SINGLES = 24
PAIRS = {"p0": ("n1", "n2"), "p1": ("n2", "n3"), "p2": ("n3", "n1")}
CHECK_SECONDS = 2.0
CALLED = 4
RECEIVER = "pager"
REST_SECONDS = 240.0
CALLER = Path(__file__).with_name("caller.py")


class LoneServer(Member):
    """A server that needs no others to lead. Its data is on disk, so that it can be killed and started again."""

    def _server(self) -> dict[str, Any]:
        return {**super()._server(), "bootstrap_expect": 1}


class LastingWorld(PatientWorld):
    """A world whose orchestrators have the same address in each of their lives, as they have on a machine."""

    def orchestrator(self, node: str = "n1", *, consul: str | None = None, **settings: str) -> Process:
        api = f"{LOOPBACK}:{self.port_of(f'API of {node}')}"
        process = self._spawn(
            f"orchestrator-{node}", ["orchestrator", "--node", node, "--api-bind", api], consul, settings
        )
        process.api = api
        return process


class Grounds:
    """Everything that runs. Use it as a context manager, on one thread: a Consul ends with who started it."""

    def __init__(self, binary: ConsulBinary, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.server = LoneServer(binary, folder, "s1", server=True)
        self.clients = {node: Member(binary, folder, node, server=False) for node in NODES}
        for member in self.members:
            member.join = [self.server.ports.serf]
        self._receiver = Receiver()
        (folder / "tmp").mkdir()
        config = folder / "orchestrator.yaml"
        config.write_text(
            yaml.safe_dump({"notification": {"receivers": [{"name": RECEIVER, "webhook": self._receiver.url}]}})
        )
        self.world = LastingWorld(
            self.server.address,
            folder,
            STACK,
            {**environ, "TMPDIR": str(folder / "tmp"), "ORCHESTRATOR_CONFIG_PATH": str(config)},
        )
        self.ward = Ward(self.world)
        self.crew = Crew(self.world)
        self.specs: dict[str, ServiceSpec] = {}
        self.edges: list[Edge] = []
        self._caller: subprocess.Popen[bytes] | None = None
        self._caller_address = ""

    @property
    def members(self) -> list[Member]:
        return [self.server, *self.clients.values()]

    @property
    def singles(self) -> list[str]:
        return [name for name in self.specs if name.startswith("s")]

    @property
    def state_folders(self) -> dict[str, Path]:
        return {node: self.folder / "state" / STACK / node for node in NODES}

    def __enter__(self) -> Self:
        self._receiver.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._caller is not None:
            self._caller.kill()
            self._caller.wait()
        self.crew.__exit__()
        self.world.__exit__()
        for member in self.members:
            member.end()
        self._receiver.__exit__(kind, error, trace)

    # --- setting up ---------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Start everything, and wait until all of the stack is healthy."""
        for member in self.members:
            member.launch()
        self.heal_consul()
        self._fill_outbox()
        for node, client in self.clients.items():
            self.crew.orchestrator(node, client.address)
            self.crew.agent(node, client.address)
        self._draw_stack()
        self.apply()
        self.crew.until_manned()
        self.come_to_rest()
        self._start_caller()

    def _fill_outbox(self) -> None:
        """Have as many notices told as are remembered, so that their number does not grow any more."""

        async def write(client: ConsulClient) -> None:
            for number in range(NOTICES_KEPT):
                about = closed(id=f"20250715T143000{number:06d}-s00", service="s00")
                told = Delivery(DeliveryState.DELIVERED, OPENED_AT + 13.0)
                posting = Posting(notice(Transition.CLOSED, about, stack=STACK), {RECEIVER: told}, number)
                await client.kv_put(Keys(STACK).notice(posting.notice.id), POSTING.encode(posting))

        self.world.ask(write)

    def _draw_stack(self) -> None:
        """Eight services on each node that answer with their mood, and three in pairs; each needs earlier ones."""
        random = Random("soak")
        world, ward = self.world, self.ward
        for name, nodes in PAIRS.items():
            self.specs[name] = spread(world, name, nodes, recovery=ward.spec("policy").recovery)
        for number in range(SINGLES):
            name, node = f"s{number:02d}", NODES[number % len(NODES)]
            fields: dict[str, Any] = {"drain_timeout_seconds": 2.0} if number % 4 == 0 else {}
            self.specs[name] = ward.spec(name, (node,), checks=(ward.check(name, CHECK_SECONDS),), **fields)
            if number < len(PAIRS):
                self.edges.append(Edge(name, f"p{number}", min_instances=1))
            elif number >= SINGLES // 3:
                below = random.sample(range(number - SINGLES // 3, number - 2), k=random.choice((1, 1, 2)))
                self.edges += [Edge(name, f"s{each:02d}") for each in below]

    def _start_caller(self) -> None:
        command = [sys.executable, str(CALLER), self.clients["n1"].address, *self.singles[-CALLED:]]
        with (self.folder / "caller.log").open("wb") as log:
            self._caller = subprocess.Popen(
                command, env=dict(self.world.environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        assert self._caller.stdout is not None
        with self._caller.stdout as said:
            self._caller_address = said.readline().decode().strip()

    # --- what there is ------------------------------------------------------------------------------------------

    def subjects(self) -> list[Subject]:
        """The processes that live through everything."""
        assert self._caller is not None
        lasting = [role for role in self.crew.roles if role.node != MORTAL]
        return [
            *(Subject(f"{role.kind} {role.node}", role.process.popen.pid, self._metrics_of(role)) for role in lasting),
            Subject("caller", self._caller.pid, f"http://{self._caller_address}/metrics"),
        ]

    @property
    def consul_ports(self) -> frozenset[int]:
        """At which the processes reach Consul: citadel's go through a proxy each, which can cut them off."""
        addresses = [role.proxy.address for role in self.crew.roles] + [self.clients["n1"].address]
        return frozenset(int(address.rpartition(":")[2]) for address in addresses)

    def _metrics_of(self, role: Role) -> str:
        api = role.process.api or self.server.request("GET", f"/v1/kv/{Keys(STACK).agent(role.node)}?raw")["api"]
        return f"http://{api}/metrics"

    # --- the stack ----------------------------------------------------------------------------------------------

    def apply(self, *, prune: bool = False) -> None:
        """Write the stack as ``citadel apply`` does, with ``--prune`` if asked to."""
        stack = Stack(STACK, dict(self.specs), tuple(self.edges))

        async def write(client: ConsulClient) -> None:
            await write_difference(client, await read_difference(client, stack, prune=prune))

        self.world.ask(write)

    def fill_history(self, operations: int) -> None:
        """Have as many operations behind it as are remembered, so that their number does not grow any more."""

        async def ask(client: ConsulClient) -> None:
            keys = Keys(STACK)
            for _ in range(operations):
                asked = await submit(client, keys, Kind.STARTUP, (ALL,), Options(), requested_by="soak")
                await wait_for_end(client, keys, asked.id, timeout_seconds=REST_SECONDS)

        self.world.ask(ask)

    def leader(self) -> str | None:
        """The node of the orchestrator that leads, if that can be told at once."""
        record = self.world.glimpse_of_leader()
        return None if record is None else str(record["node"])

    def lead_from_the_first_node(self) -> None:
        """Have the orchestrator of the first node lead: one that leads holds more than one that stands by."""
        first = NODES[0]
        if not self.leads_from_the_first_node():
            self.world.ask(lambda client: request_handover(client, STACK, first, "soak"))
            self.world.until(self.leads_from_the_first_node, REST_SECONDS, f"the orchestrator of {first} to lead")

    def leads_from_the_first_node(self) -> bool:
        return self.leader() == NODES[0]

    # --- rest ---------------------------------------------------------------------------------------------------

    def heal_consul(self) -> None:
        """Start each Consul agent that does not run, resume those that do, and wait until all is well."""
        for member in self.members:
            if member.running:
                member.resume()
            else:
                member.launch()
        for member in self.members:
            member.until_ready(READY_SECONDS)

    def heal(self) -> None:
        """End every fault: of Consul, of citadel's processes, of the services' moods."""
        self.heal_consul()
        self.crew.heal()
        self.ward.mood("well", *self.singles)

    def come_to_rest(self) -> None:
        """Have all of the stack healthy and every operation ended."""
        self.heal()
        deadline = time.monotonic() + REST_SECONDS
        while not self._at_rest():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the stack did not come to rest within {REST_SECONDS:g} s:\n{self.world.logs()}")
            operation = self.world.operate(Kind.STARTUP, within=REST_SECONDS)
            if not operation.ended:
                raise TimeoutError(f"{operation} did not end:\n{self.world.logs()}")
            time.sleep(1.0)

    def _at_rest(self) -> bool:
        snapshot = self.world.snapshot()
        serving = all(
            (seen := snapshot.observed.get(instance)) is not None
            and seen.phase == "ready"
            and instance not in snapshot.checks
            for service in self.specs
            for instance in snapshot.instances(service)
        )
        return serving and all(operation.ended for operation in snapshot.operations)
