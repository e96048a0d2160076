"""What goes wrong in a simulated site, by name: each fault is a method, with ``_`` for ``-``."""

from __future__ import annotations

from collections.abc import Callable

from clockwork import Process, SimulatedLoop
from simulated_site import Site
from simulated_store import decoded
from story import Happening

from citadel_consul.backends.fake import Behaviour
from citadel_consul.core.model import Instance
from citadel_consul.store import documents

SLOW_SECONDS = 0.15
UNRELIABLE_SHARE = 0.3


class Faults:
    """See the module. ``say`` tells the timeline of a fault that was armed when it strikes."""

    def __init__(self, loop: SimulatedLoop, site: Site, say: Callable[[str], None]) -> None:
        self._loop = loop
        self._site = site
        self._say = say
        self._armed: dict[Process, tuple[int, Happening]] = {}
        self.marks: list[int] = []

    def strike(self, happening: Happening) -> None:
        """Let it happen, or, if it is to come at a step of a process, wait for that."""
        if happening.step:
            process = self._process(happening.target)
            if process is not None:
                self._armed[process] = (process.steps + happening.step, happening)
                self._loop.before_step = self._before_step
            return
        getattr(self, happening.what.replace("-", "_"))(happening)

    def disarm(self) -> None:
        """Nothing more is to come."""
        self._armed.clear()
        self._loop.before_step = None

    def leader(self) -> Process | None:
        """The process that leads, as far as Consul says."""
        entry = self._site.cluster.store.kv.get(self._site.keys.leader)
        if entry is None:
            return None
        name = f"orchestrator-{documents.LEADER.decode(decoded(entry.value)).node}"
        process = self._site.processes.get(name)
        return process if process is not None and process.alive else None

    def _process(self, name: str) -> Process | None:
        leader = self.leader()
        if name == "leader":
            return leader
        if name == "standby":
            others = (p for n, p in self._site.processes.items() if n.startswith("orchestrator-") and p is not leader)
            return next(others, None)
        process = self._site.processes.get(name)
        return process if process is not None and process.alive else None

    def _before_step(self, process: Process) -> None:
        armed = self._armed.get(process)
        if armed is None or process.steps < armed[0]:
            return
        del self._armed[process]
        happening = armed[1]
        self._say(f"*** now {happening.what} {process} at its step {process.steps}")
        if happening.what == "kill-at":
            self._loop.kill(process)
        elif happening.what == "pause-at":
            self._loop.pause(process, happening.seconds)
        elif happening.what == "cut-at":
            self._site.consul[process.host].cut(happening.seconds)
        else:
            self._site.cluster.lose_leader(happening.seconds)

    def mark(self, happening: Happening) -> None:
        """Nothing goes wrong: it is noted how many steps a process has taken."""
        process = self._process(happening.target)
        self.marks.append(process.steps if process is not None else 0)

    # --- processes -------------------------------------------------------------------------------------------------

    def kill(self, happening: Happening) -> None:
        process = self._process(happening.target)
        if process is not None:
            self._loop.kill(process)

    def pause(self, happening: Happening) -> None:
        process = self._process(happening.target)
        if process is not None:
            self._loop.pause(process, happening.seconds)

    # --- Consul and the network ------------------------------------------------------------------------------------

    def cut(self, happening: Happening) -> None:
        self._site.consul[happening.target].cut(happening.seconds)

    def partition(self, happening: Happening) -> None:
        for node in happening.target.split(","):
            self._site.consul[node].cut(happening.seconds)

    def no_leader(self, happening: Happening) -> None:
        self._site.cluster.lose_leader(happening.seconds)

    def lossy(self, happening: Happening) -> None:
        agent = self._site.consul[happening.target]
        agent.unreliable = UNRELIABLE_SHARE
        self._later(happening, lambda: setattr(agent, "unreliable", 0.0))

    def slow(self, happening: Happening) -> None:
        agent = self._site.consul[happening.target]
        agent.slow_seconds = SLOW_SECONDS
        self._later(happening, lambda: setattr(agent, "slow_seconds", 0.0))

    def restart_consul(self, happening: Happening) -> None:
        self._site.consul[happening.target].restart(happening.seconds, forget=False)

    def forget(self, happening: Happening) -> None:
        self._site.consul[happening.target].restart(happening.seconds, forget=True)

    # --- machines --------------------------------------------------------------------------------------------------

    def reboot(self, happening: Happening) -> None:
        """A machine goes down with all that runs on it, and comes back."""
        node = happening.target
        for role in ("agent", "orchestrator"):
            process = self._process(f"{role}-{node}")
            if process is not None:
                self._loop.kill(process)
        machine = self._site.machines[node]
        for instance in machine.running():
            machine.end(instance)
        self._site.consul[node].restart(happening.seconds, forget=False)

    def clock(self, happening: Happening) -> None:
        """Somebody sets the clock of a machine."""
        self._loop.clock_offsets[happening.target] = happening.amount

    def die(self, happening: Happening) -> None:
        service, _, node = happening.target.partition("@")
        self._site.machines[node].end(Instance(service, node))

    def ill(self, happening: Happening) -> None:
        service, _, node = happening.target.partition("@")
        machine, instance = self._site.machines[node], Instance(service, node)
        machine.ill.add(instance)
        self._later(happening, lambda: machine.ill.discard(instance))

    def broken(self, happening: Happening) -> None:
        """A service dies, and ends at once whenever it is started."""
        service = happening.target
        sound = self._site.plan.behaviours.get(service, Behaviour())
        for machine in self._site.machines.values():
            machine.behaviours[service] = Behaviour(exits_with=1)
            for instance in machine.running():
                if instance.service == service:
                    machine.end(instance)
            self._later(happening, lambda m=machine: m.behaviours.update({service: sound}))  # type: ignore[misc]

    def _later(self, happening: Happening, work: Callable[[], object]) -> None:
        self._loop.call_later(happening.seconds, work)
