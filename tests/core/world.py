"""A model of everything around ``decide``: the store, the node agents, the services. Pure and deterministic.

Time is a number that only :meth:`World.tick` moves; chance is a ``random.Random`` that the caller seeds. What the
shell does to the KV store, :meth:`World.apply` does here: the head of an operation and its steps are documents of
their own (a reader cuts the steps to the count that the head names), a request to cancel is a third, and the actions
of one decision may be carried out only up to some point, after which another leader looks afresh.

The node agents follow ``core.lifecycle``: they start an instance at most once for a generation, they leave dead what
died, and every change of phase that they make is checked against its table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from random import Random

from citadel_consul.core.actions import (
    Action,
    RecordEvent,
    SetDesired,
    WakeAt,
    WriteIncident,
    WriteOperation,
    WriteStats,
    WriteStep,
)
from citadel_consul.core.decide import decide
from citadel_consul.core.graph import build_graph
from citadel_consul.core.incident import Backoff, Incident
from citadel_consul.core.lifecycle import Desired, Observed, Phase, check_transition
from citadel_consul.core.model import Edge, Instance, ProcessBackend, ServiceSpec
from citadel_consul.core.operation import Kind, Operation, OperationState, Options, Step
from citadel_consul.core.progress import NOT_TAKEN
from citadel_consul.core.snapshot import CheckStatus, Defaults, Hold, Snapshot
from citadel_consul.core.stats import ServiceStats

DEFAULTS = Defaults(
    start_timeout_seconds=10.0,
    stop_timeout_seconds=5.0,
    startup_timeout_seconds=60.0,
    shutdown_timeout_seconds=60.0,
    recovery_enabled=False,  # what an operation leaves behind stays as it is; tests/recovery switches it on
)
BEGIN = 1_000.0


def spec(name: str, *nodes: str, **fields: object) -> ServiceSpec:
    """A service on ``nodes`` (default: ``n1``)."""
    program = ProcessBackend(command=("/bin/true",))
    plain = ServiceSpec(name=name, type="service", nodes=nodes or ("n1",), backend=program)
    return replace(plain, **fields)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Behaviour:
    """How an instance behaves. Times are in seconds from the start, or from the order to stop.

    ``ready_after``: None means that it never becomes ready. ``exits_after``: when it ends by itself, with status 0 if
    ``exits_well``. ``stop_after``: None means that it withstands SIGTERM and has to be killed at the end of the
    grace; ``unkillable`` that not even that helps. ``drained_after``: how long it has requests in hand, from the order
    to drain on; None for ever. ``critical``: it runs, and its checks fail.
    """

    cannot_start: bool = False
    ready_after: float | None = 1.0
    exits_after: float | None = None
    exits_well: bool = False
    stop_after: float | None = 1.0
    drained_after: float | None = 0.5
    unkillable: bool = False
    critical: bool = False


@dataclass
class Process:
    """What runs of an instance, whether its agent has looked or not."""

    started_at: float
    stop_at: float | None = None
    drained_at: float | None = None


Listener = Callable[["World", Action], None]
Judge = Callable[["World", list[Action], bool], None]


@dataclass
class World:
    """One stack, its store, its nodes.

    ``listeners`` are called before an action is carried out, ``judges`` with each decision: before any of it is
    carried out (False), and after all of it was (True).
    """

    specs: dict[str, ServiceSpec]
    edges: list[Edge]
    behaviours: dict[Instance, Behaviour] = field(default_factory=dict)
    defaults: Defaults = DEFAULTS
    now: float = BEGIN
    heads: dict[str, Operation] = field(default_factory=dict)
    steps: dict[tuple[str, int], Step] = field(default_factory=dict)
    cancels: dict[str, str] = field(default_factory=dict)
    desired: dict[Instance, Desired] = field(default_factory=dict)
    observed: dict[Instance, Observed] = field(default_factory=dict)
    processes: dict[Instance, Process] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    executions: Counter[tuple[Instance, int]] = field(default_factory=Counter)
    """How often a process was started, by instance and generation."""
    terminations: Counter[tuple[Instance, int]] = field(default_factory=Counter)
    """How often a running process was told to end, by instance and generation."""
    reloads: Counter[Instance] = field(default_factory=Counter)
    """How often a running process was told to reload."""
    orders: Counter[tuple[str | None, Instance, str]] = field(default_factory=Counter)
    """How often an operation gave an instance an order; see :func:`order_of`."""
    incidents: dict[str, Incident] = field(default_factory=dict)
    stats: dict[str, ServiceStats] = field(default_factory=dict)
    holds: list[Hold] = field(default_factory=list)
    backoffs: Callable[[Snapshot, float], Mapping[str, Backoff]] | None = None
    """Draws the delays between attempts of recovery, as the orchestrator's shell does."""
    events: list[RecordEvent] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    judges: list[Judge] = field(default_factory=list)
    wake_at: float | None = None

    @classmethod
    def of(cls, specs: Iterable[ServiceSpec], edges: Iterable[Edge] = (), **fields: object) -> World:
        """A world in which nothing has happened yet."""
        return cls({s.name: s for s in specs}, list(edges), **fields)  # type: ignore[arg-type]

    def fork(self) -> World:
        """A world of its own that has come to the same point, with the same listeners."""
        twin = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict | list | set):
                setattr(twin, name, copy(value))
        twin.processes = {instance: copy(process) for instance, process in self.processes.items()}
        return twin

    # --- the store ----------------------------------------------------------------------------------------------

    def operation(self, operation_id: str) -> Operation:
        """An operation as a reader puts it together."""
        head = self.heads[operation_id]
        steps = tuple(self.steps[operation_id, position] for position in range(head.step_count))
        return replace(head, steps=steps, cancelled_by=self.cancels.get(operation_id, head.cancelled_by))

    def snapshot(self) -> Snapshot:
        """What a leader that looks now sees."""
        graph, faults = build_graph(self.specs, self.edges)
        critical = {
            instance: CheckStatus.CRITICAL
            for instance in self.processes
            if self.behaviour(instance).critical and self.observed[instance].phase is Phase.READY
        }
        nodes = {node for found in self.specs.values() for node in found.nodes}
        return Snapshot(
            stack="s",
            specs=dict(self.specs),
            graph=graph,
            desired=dict(self.desired),
            observed=dict(self.observed),
            checks=critical,
            agents=frozenset(nodes - self.silent),
            operations=tuple(self.operation(operation_id) for operation_id in self.heads),
            holds=tuple(self.holds),
            graph_faults=faults,
            defaults=self.defaults,
            incidents=dict(self.incidents),
            stats=dict(self.stats),
        )

    def request(self, kind: Kind, *targets: str, **options: object) -> str:
        """Ask for an operation; returns its id."""
        operation_id = f"{len(self.heads):04d}"
        chosen = Options(**options)  # type: ignore[arg-type]
        self.heads[operation_id] = Operation(
            operation_id, kind, targets or ("all",), chosen, requested_by="op", requested_at=self.now
        )
        return operation_id

    def cancel(self, operation_id: str, by: str = "operator") -> None:
        """Ask for the end of an operation."""
        self.cancels[operation_id] = by

    def apply(self, action: Action) -> None:
        """Carry out one action as the shell does."""
        for listener in self.listeners:
            listener(self, action)
        if isinstance(action, SetDesired):
            if not self.is_note(action):
                self.orders[action.desired.operation, action.instance, order_of(action.desired)] += 1
            self.desired[action.instance] = action.desired
        elif isinstance(action, WriteOperation):
            self.heads[action.operation.id] = replace(action.operation, steps=())
        elif isinstance(action, WriteStep):
            self.steps[action.operation, action.position] = action.step
        elif isinstance(action, WriteIncident):
            self.incidents[action.incident.service] = action.incident
        elif isinstance(action, WriteStats):
            self.stats[action.stats.service] = action.stats
        elif isinstance(action, RecordEvent):
            self.events.append(action)
        else:
            self.wake_at = action.at

    def is_note(self, action: SetDesired) -> bool:
        """Whether it gives no order: it says what is wanted, or asks what runs to reload."""
        before, seen = self.desired.get(action.instance), self.observed.get(action.instance)
        known = before.generation if before is not None else seen.generation if seen is not None else 0
        return action.desired.generation == known

    # --- the leader ---------------------------------------------------------------------------------------------

    def decide(self) -> list[Action]:
        """What the leader wants to do now."""
        snapshot = self.snapshot()
        if self.backoffs is not None:
            snapshot = replace(snapshot, backoffs=self.backoffs(snapshot, self.now))
        return decide(snapshot, self.now)

    def lead(self, until: int | None = None) -> list[Action]:
        """Decide and carry out the actions, or only the first ``until`` of them; returns all that was decided."""
        self.wake_at = None
        actions = self.decide()
        for judge in self.judges:
            judge(self, actions, False)
        for action in actions[:until]:
            self.apply(action)
        for judge in self.judges if until is None or until >= len(actions) else ():
            judge(self, actions, True)
        return actions

    def settle(self, *, patience_seconds: float = 1_000.0) -> None:
        """Let leader and agents work, without accidents, until every operation has ended and nothing moves."""
        deadline = self.now + patience_seconds
        while True:
            self.lead()
            if self.agents_have_work():
                self.tick()
                continue
            if all(self.operation(operation_id).ended for operation_id in self.heads):
                return
            moment = self.next_moment()
            if moment is None or moment > deadline:
                unended = [self.operation(i) for i in self.heads if not self.operation(i).ended]
                raise AssertionError(f"nothing will ever end {unended}")
            self.tick(moment - self.now)

    def next_moment(self) -> float | None:
        """When the next thing happens by itself, or the leader wants to look again."""
        moments = [m for m in (self.due(i) for i in self.processes if self.reachable(i)) if m is not None]
        if self.wake_at is not None:
            moments.append(self.wake_at)
        return max(self.now, min(moments)) if moments else None

    # --- the nodes ----------------------------------------------------------------------------------------------

    def behaviour(self, instance: Instance) -> Behaviour:
        return self.behaviours.get(instance, Behaviour())

    def runs(self, instance: Instance) -> bool:
        """Whether a process of ``instance`` runs, in truth and not in anybody's opinion."""
        return instance in self.processes

    def running(self) -> set[str]:
        """The services of which something runs."""
        return {instance.service for instance in self.processes}

    def tick(self, seconds: float = 0.0, only: Sequence[str] | None = None) -> None:
        """Move the clock and let the agents look once; ``only`` those of some nodes."""
        self.now += seconds
        for instance in sorted({*self.desired, *self.processes}):
            if self.reachable(instance) and (only is None or instance.node in only):
                self._look(instance)

    def agents_have_work(self) -> bool:
        """Whether an agent that looks now would find something to do."""
        return any(self._has_work(i) for i in {*self.desired, *self.processes} if self.reachable(i))

    def due(self, instance: Instance) -> float | None:
        """When the phase of a running instance changes by itself."""
        process, behaviour, observed = self.processes[instance], self.behaviour(instance), self.observed[instance]
        moments = [process.stop_at, process.drained_at if observed.phase is Phase.DRAINING else None]
        after = [behaviour.exits_after]
        if observed.phase is Phase.STARTING and not self._is_oneshot(instance):
            after.append(behaviour.ready_after)
        moments += [None if a is None else process.started_at + a for a in after]
        return min((moment for moment in moments if moment is not None), default=None)

    def reachable(self, instance: Instance) -> bool:
        return instance.node not in self.silent

    def _is_oneshot(self, instance: Instance) -> bool:
        found = self.specs.get(instance.service)
        return found is not None and found.oneshot

    def _has_work(self, instance: Instance) -> bool:
        wanted, seen = self.desired.get(instance), self.observed.get(instance)
        fresh = wanted is not None and wanted.generation > (0 if seen is None else seen.generation)
        stopping = seen is not None and seen.phase in (Phase.DRAINING, Phase.STOPPING)
        if fresh and self._ends_drain(seen, wanted):
            return True
        if fresh and (not stopping or self._newly_graced(instance, wanted)):
            return True
        moment = self.due(instance) if instance in self.processes else None
        return self._is_to_reload(instance) or (moment is not None and moment <= self.now)

    def _is_to_reload(self, instance: Instance) -> bool:
        wanted, seen = self.desired.get(instance), self.observed.get(instance)
        return wanted is not None and wanted.run and seen is not None and wanted.reloads > seen.reloads

    def _ends_drain(self, seen: Observed | None, wanted: Desired | None) -> bool:
        """Whether an order wants what drains to serve on, or to stop at once."""
        return seen is not None and seen.phase is Phase.DRAINING and wanted is not None and not wanted.drain_seconds

    def _newly_graced(self, instance: Instance, wanted: Desired | None) -> bool:
        """Whether an order shortens a stop that is under way."""
        process = self.processes.get(instance)
        if wanted is None or wanted.run or process is None or self.observed[instance].phase is Phase.DRAINING:
            return False
        end = self._end_of_stop(instance, wanted)
        return end is not None and (process.stop_at is None or end < process.stop_at)

    def _look(self, instance: Instance) -> None:
        self._follow_process(instance)
        wanted = self.desired.get(instance)
        seen = self.observed.get(instance, Observed(0, Phase.STOPPED, self.now))
        if wanted is not None and self._is_to_reload(instance):
            seen = self.observed[instance] = replace(seen, reloads=wanted.reloads)
            self.reloads[instance] += instance in self.processes
        if wanted is None or wanted.generation <= seen.generation:
            return
        if wanted.run and seen.phase is Phase.DRAINING:
            self.processes[instance].drained_at = None
            self._become(instance, Phase.READY, generation=wanted.generation, drain_until=None)
        elif wanted.run and seen.phase is not Phase.STOPPING:
            self._follow_start(instance, seen, wanted)
        elif not wanted.run:
            self._follow_stop(instance, seen, wanted)

    def _follow_start(self, instance: Instance, seen: Observed, wanted: Desired) -> None:
        if instance in self.processes:
            self.observed[instance] = replace(seen, generation=wanted.generation)
        elif self.behaviour(instance).cannot_start:
            self._become(instance, Phase.FAILED, generation=wanted.generation, detail="cannot be started")
        else:
            self.executions[instance, wanted.generation] += 1
            self.processes[instance] = Process(self.now)
            self._become(instance, Phase.STARTING, generation=wanted.generation, started_at=self.now, detail="")

    def _follow_stop(self, instance: Instance, seen: Observed, wanted: Desired) -> None:
        if instance not in self.processes:
            self._become(instance, Phase.STOPPED, generation=wanted.generation)
        elif seen.phase is Phase.READY and wanted.drain_seconds:
            patience = self.behaviour(instance).drained_after
            until = self.now + wanted.drain_seconds
            self.processes[instance].drained_at = until if patience is None else min(until, self.now + patience)
            self._become(instance, Phase.DRAINING, drain_until=until, in_flight=1)
        elif seen.phase is Phase.DRAINING and wanted.drain_seconds:
            return
        elif seen.phase is not Phase.STOPPING:
            self._terminate(instance, wanted)
        elif self._newly_graced(instance, wanted):
            self.processes[instance].stop_at = self._end_of_stop(instance, wanted)

    def _terminate(self, instance: Instance, wanted: Desired) -> None:
        self.terminations[instance, wanted.generation] += 1
        self.processes[instance].stop_at = self._end_of_stop(instance, wanted)
        self._become(instance, Phase.STOPPING, drain_until=None, in_flight=None)

    def _end_of_stop(self, instance: Instance, wanted: Desired) -> float | None:
        behaviour, found = self.behaviour(instance), self.specs.get(instance.service)
        if behaviour.unkillable:
            return None
        grace = found.stop_timeout_seconds if found is not None else None
        grace = self.defaults.stop_timeout_seconds if grace is None else grace
        grace = grace if wanted.grace_seconds is None else wanted.grace_seconds
        return self.now + (grace if behaviour.stop_after is None else min(grace, behaviour.stop_after))

    def _follow_process(self, instance: Instance) -> None:
        """Say what has become of a running process since the last look: several things may have."""
        while instance in self.processes:
            process, seen, moment = self.processes[instance], self.observed[instance], self.due(instance)
            if moment is None or moment > self.now:
                return
            behaviour = self.behaviour(instance)
            if seen.phase is Phase.STOPPING:
                wanted = self.desired[instance]
                generation = seen.generation if wanted.run else wanted.generation
                self._end(instance, Phase.STOPPED, generation=generation)
            elif seen.phase is Phase.DRAINING and process.drained_at is not None and process.drained_at <= moment:
                self._terminate(instance, self.desired[instance])
            elif behaviour.exits_after is not None and process.started_at + behaviour.exits_after <= moment:
                done = behaviour.exits_well and self._is_oneshot(instance)
                self._end(instance, Phase.COMPLETED if done else Phase.EXITED, detail="" if done else "it exited")
            else:
                self._become(instance, Phase.READY, ready_at=self.now)

    def _end(self, instance: Instance, phase: Phase, **changes: object) -> None:
        del self.processes[instance]
        self._become(instance, phase, **changes)

    def _become(self, instance: Instance, phase: Phase, **changes: object) -> None:
        before = self.observed.get(instance, Observed(0, Phase.STOPPED, self.now))
        check_transition(before.phase, phase)
        self.observed[instance] = replace(before, phase=phase, since=self.now, **changes)  # type: ignore[arg-type]

    # --- what a test asks ---------------------------------------------------------------------------------------

    def kill(self, instance: Instance) -> None:
        """End a running process unasked; its agent sees it at once."""
        stopping = self.observed[instance].phase is Phase.STOPPING
        self._end(instance, Phase.STOPPED if stopping else Phase.EXITED, detail="it was killed")

    def state(self, operation_id: str) -> OperationState:
        return self.heads[operation_id].state

    def step_states(self, operation_id: str) -> Mapping[str, str]:
        """The state of each step by ``action service@node`` (``undo …`` for those of a rollback)."""
        return {
            f"{'undo' if step.undo else step.action} {step.instance}": str(step.state)
            for step in self.operation(operation_id).steps
        }

    def step(self, operation_id: str, action: str, name: str) -> Step:
        """The step that does ``action`` to the instance ``name`` (``service@node``)."""
        steps = self.operation(operation_id).steps
        return next(s for s in steps if s.action == action and str(s.instance) == name and not s.undo)


@dataclass
class Accidents:
    """A leader that may die in the middle of a write, and agents that look when they please."""

    rng: Random
    crash_share: float = 0.3
    idle_share: float = 0.3

    def settle(self, world: World, *, patience_seconds: float) -> None:
        """Let ``world`` go on with accidents until every operation has ended, within ``patience_seconds``."""
        deadline = world.now + patience_seconds
        while not all(world.operation(operation_id).ended for operation_id in world.heads):
            if world.now > deadline:
                raise AssertionError(f"not ended after {patience_seconds:g} s: {world.snapshot().operations}")
            self.turn(world)

    def turn(self, world: World) -> None:
        """One look of the leader, perhaps its last, and some looks of some agents."""
        crashed = self.rng.random() < self.crash_share
        if self.rng.random() >= self.idle_share:
            planned = world.decide() if crashed else ()
            world.lead(until=self.rng.randint(0, len(planned)) if crashed else None)
        nodes = sorted({i.node for i in world.desired} | {i.node for i in world.processes})
        looking = [node for node in nodes if self.rng.random() >= self.idle_share]
        moment = world.next_moment()
        if world.agents_have_work() or crashed or moment is None:
            world.tick(float(self.rng.random() < 0.5), only=looking)
        else:
            world.tick(moment - world.now, only=looking)


def order_of(desired: Desired) -> str:
    """What an order is: to start, to stop, or that a start that no agent took is not to be any more."""
    if desired.reason == NOT_TAKEN:
        return "take back"
    return "start" if desired.run else "stop"


def is_wake(action: Action) -> bool:
    return isinstance(action, WakeAt)
