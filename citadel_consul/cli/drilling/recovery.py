"""Phase 4: a real service is killed, and comes back by itself; those who depend on it are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from citadel_consul.cli.drilling import processes
from citadel_consul.cli.drilling.discovery import is_passing
from citadel_consul.cli.drilling.site import LOOK_SECONDS, Site
from citadel_consul.cli.drilling.verdict import Line, line, unchecked
from citadel_consul.core.health import hold_on
from citadel_consul.core.incident import Incident
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import Edge, Instance, OnRecovery
from citadel_consul.core.operation import Kind, Operation, StepAction, StepState
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.store.reading import read_operation

DEATH_SECONDS = 10.0
"""How long it may take until a killed process is reported."""
TRIGGER_SECONDS = 10.0
"""How long after that an attempt of recovery may be awaited, beyond the delay that its policy has drawn."""
PUT_OFF_SECONDS = 4.0
"""How long the incident may give the same reason for waiting, until that is taken for an answer."""
_ACTION = {
    OnRecovery.NOTIFY: StepAction.NOTIFY,
    OnRecovery.RELOAD: StepAction.RELOAD,
    OnRecovery.RESTART: StepAction.START,
}


@dataclass(frozen=True, slots=True)
class Recovered:
    """What happened when ``victim`` was killed. Seconds count from the kill; None: it did not happen in time.

    They are taken from what its own node agent wrote, whose clock is that of the machine on which it was killed.
    ``triggered_seconds`` is when the new process was executed. ``edges`` are those of its running dependents,
    ``renewed`` the instances that have a new process since.
    ``why_not`` says why it was not, or could not be, recovered.
    """

    victim: Instance
    pid: int | None = None
    killed: bool = False
    seen_dead_seconds: float | None = None
    operation: Operation | None = None
    triggered_seconds: float | None = None
    restored_seconds: float | None = None
    edges: tuple[Edge, ...] = ()
    dependents: tuple[Instance, ...] = ()
    renewed: frozenset[Instance] = field(default_factory=frozenset)
    why_not: str = ""


def choose_victim(snapshot: Snapshot, killable: Iterable[Instance], wanted: str | None) -> Instance | None:
    """The instance to kill: of the service ``wanted``, or else of the first critical database.

    The first is the one on which the longest chain of services rests, then goes the start order. Without a database it
    is the critical service that most others need; without a critical one, any.
    """
    chain = snapshot.graph.critical_path()
    order = {service: n for n, service in enumerate(snapshot.graph.in_start_order(snapshot.graph.services))}
    fit = [instance for instance in killable if wanted in (None, instance.service)]

    def rank(instance: Instance) -> tuple[bool, bool, bool, int, int, str]:
        spec = snapshot.specs[instance.service]
        needed_by = len(snapshot.graph.with_dependents([spec.name], lambda edge: edge.needed_to_run))
        database = spec.critical and spec.type == "database"
        return (
            not database,
            spec.name not in chain,
            not spec.critical,
            0 if database else -needed_by,
            order[spec.name],
            instance.node,
        )

    return min(fit, key=rank, default=None)


async def recover(site: Site, wanted: str | None) -> Recovered | None:
    """Kill something, see what becomes of it, and gather the evidence; None if nothing here can be killed."""
    before = await site.snapshot()
    victim = choose_victim(before, _killable(site, before), wanted)
    if victim is None:
        return None
    observed = before.observed[victim]
    identity = processes.proven(site.stack, victim, observed.pid)
    if identity is None:  # it ended while it was being chosen
        return Recovered(victim, observed.pid, why_not="its process ended by itself")
    watch = Watch(site, victim, time.time(), await site.mark(), frozenset(op.id for op in before.operations))
    site.say(f"SIGKILL for {victim} (process {observed.pid}) …")
    killed = processes.kill(identity)
    died_at = await watch.death() if killed else None
    edges, dependents = _told(before, victim)
    seen = Recovered(victim, observed.pid, killed, watch.seconds_to(died_at), edges=edges, dependents=dependents)
    return seen if died_at is None else await _see_through(watch, before, seen)


def judge_recovery(seen: Recovered | None) -> tuple[Line, ...]:
    """The lines of phase 4."""
    texts = ("Automatic recovery triggered", "Service restored successfully", "Dependent services notified")
    if seen is None:
        reason = "no process of this stack on this machine can be proven to be one"
        return tuple(unchecked(text, reason) for text in ("Simulated service failure", *texts))
    return (
        line(f"Simulated service failure ({seen.victim.service})", _failure_problems(seen), _failure_figure(seen)),
        line(texts[0], _trigger_problems(seen), _since_kill("new process after", seen.triggered_seconds)),
        line(texts[1], _restore_problems(seen), _since_kill("serving again after", seen.restored_seconds)),
        _dependents_line(texts[2], seen),
    )


def _failure_problems(seen: Recovered) -> Iterator[str]:
    if not seen.killed:
        yield seen.why_not or f"process {seen.pid} may not be killed by this user"
    elif seen.seen_dead_seconds is None:
        yield f"the end of process {seen.pid} was not reported within {DEATH_SECONDS:g} s"


def _failure_figure(seen: Recovered) -> str:
    if seen.seen_dead_seconds is None:
        return ""
    return f"SIGKILL for process {seen.pid}, reported after {1000 * seen.seen_dead_seconds:.0f} ms"


def _trigger_problems(seen: Recovered) -> Iterator[str]:
    if seen.operation is None:
        yield seen.why_not or "no recovery was begun"


def _restore_problems(seen: Recovered) -> Iterator[str]:
    operation = seen.operation
    if operation is not None and not operation.ended:
        yield f"operation {operation.id} has not ended"
    for step in operation.steps if operation is not None else ():
        if step.instance == seen.victim and step.state is StepState.FAILED:
            yield f"{step.action} of {step.instance} failed: {step.detail}"
    if seen.restored_seconds is None:
        yield f"{seen.victim} does not serve again"


def _dependents_line(text: str, seen: Recovered) -> Line:
    edges = [edge for edge in seen.edges if edge.on_recovery is not OnRecovery.NONE]
    if not edges:
        return unchecked(text, f"nobody is to be told when {seen.victim.service} comes back")
    missing = list(_untold(seen, edges))
    told = len({edge.service for edge in edges}) - len({name for name, _ in missing})
    return line(text, [problem for _, problem in missing], f"{told} of {len({edge.service for edge in edges})}")


def _untold(seen: Recovered, edges: list[Edge]) -> Iterator[tuple[str, str]]:
    """The dependents that did not do, or hear, what their edge says; those that were started anew since have."""
    done = {
        (step.instance, step.action)
        for step in (seen.operation.steps if seen.operation is not None else ())
        if step.state is StepState.SUCCEEDED
    }
    for edge in edges:
        action = _ACTION[edge.on_recovery]
        for instance in seen.dependents:
            if instance.service == edge.service and instance not in seen.renewed and (instance, action) not in done:
                verb = {StepAction.NOTIFY: "told", StepAction.RELOAD: "reloaded"}.get(action, "restarted")
                yield edge.service, f"{instance} was not {verb}"


def _since_kill(word: str, seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{word} {1000 * seconds:.0f} ms" if seconds < 1 else f"{word} {seconds:.1f} s"


# --- what is seen -----------------------------------------------------------------------------------------------


def _killable(site: Site, snapshot: Snapshot) -> list[Instance]:
    """The serving instances whose process is proven to be on this machine."""
    return [
        instance
        for instance, observed in snapshot.observed.items()
        if observed.phase is Phase.READY
        and instance.service in snapshot.specs
        and processes.proven(site.stack, instance, observed.pid) is not None
    ]


def _told(snapshot: Snapshot, victim: Instance) -> tuple[tuple[Edge, ...], tuple[Instance, ...]]:
    """The edges of the dependents that run, and their instances."""
    edges = snapshot.graph.dependents(victim.service)
    running = [i for edge in edges for i in snapshot.instances(edge.service) if snapshot.is_alive(i)]
    return tuple(e for e in edges if any(i.service == e.service for i in running)), tuple(running)


async def _see_through(watch: Watch, before: Snapshot, seen: Recovered) -> Recovered:
    site, victim = watch.site, seen.victim
    operation, why_not = await watch.attempt()
    if operation is None:
        return replace(seen, why_not=why_not)
    patience = before.start_timeout(victim.service) + before.stop_timeout(victim.service)
    restored = await site.until(lambda: _serves_anew(site, victim, seen.pid), patience)
    await site.until(lambda: _has_ended(site, operation.id), patience)
    ended = await read_operation(site.client, site.keys, operation.id) or operation
    after = await site.snapshot()
    now = after.observed[victim]
    return replace(
        seen,
        operation=ended,
        triggered_seconds=watch.seconds_to(now.started_at),
        restored_seconds=None if restored is None else watch.seconds_to(now.ready_at),
        renewed=frozenset(i for i, o in after.observed.items() if _is_renewed(before.observed.get(i), o)),
    )


@dataclass(frozen=True, slots=True)
class Watch:
    """What happens to ``victim`` after ``since`` (unix seconds), the raft index ``mark`` and ``known`` operations."""

    site: Site
    victim: Instance
    since: float
    mark: int
    known: frozenset[str]

    def seconds_to(self, at: float | None) -> float | None:
        """How long after the kill ``at`` was; None if it was before, and so is about something else."""
        return None if at is None or at < self.since else at - self.since

    async def death(self) -> float | None:
        """When its node agent saw the end of the process; None if that is not reported in time."""
        await self.site.until(self._deaths, DEATH_SECONDS)
        return next(iter(await self._deaths()), None)

    async def _deaths(self) -> list[float]:
        history = await self.site.history(self.mark)
        return [each.at for each in history if each.instance == self.victim and each.what == "exited"]

    async def attempt(self) -> tuple[Operation | None, str]:
        """The first automatic recovery, or why there is none."""
        deadline = time.monotonic() + TRIGGER_SECONDS
        reason, since = "", time.monotonic()
        while True:
            snapshot = await self.site.snapshot()
            found = next((operation for operation in snapshot.operations if self._is_answer(operation)), None)
            if found is not None:
                return found, ""
            incident = snapshot.incidents.get(self.victim.service)
            due_at = incident.next_attempt_at if incident is not None and not incident.over else None
            if due_at is not None:  # an earlier bout goes on: its policy makes it wait
                deadline = max(deadline, time.monotonic() + due_at - time.time() + TRIGGER_SECONDS)
            waits_for = incident.waits_for if incident is not None and due_at is None else ""
            if waits_for != reason:
                reason, since = waits_for, time.monotonic()
            if time.monotonic() > deadline or (reason and time.monotonic() > since + PUT_OFF_SECONDS):
                return None, _why_not(snapshot, self.victim, incident)
            await asyncio.sleep(LOOK_SECONDS)

    def _is_answer(self, operation: Operation) -> bool:
        named = operation.names(self.victim.service) and operation.kind is Kind.RECOVER
        return named and operation.automatic and operation.id not in self.known


def _why_not(snapshot: Snapshot, victim: Instance, incident: Incident | None) -> str:
    hold = hold_on(snapshot, victim, time.time())
    if hold is not None:
        return f"a hold stands on it, by {hold.by or 'somebody'}"
    if incident is not None and not incident.over:
        return f"its incident is {incident.state}: {incident.waits_for or incident.detail}"
    return f"no recovery was begun within {TRIGGER_SECONDS:g} s"


async def _serves_anew(site: Site, victim: Instance, pid: int | None) -> bool:
    observed = (await site.snapshot()).observed.get(victim)
    if observed is None or observed.phase is not Phase.READY or observed.pid in (None, pid):
        return False
    catalog = await site.catalog((victim.service,))
    return is_passing(catalog.get(victim))


async def _has_ended(site: Site, operation_id: str) -> bool:
    operation = await read_operation(site.client, site.keys, operation_id)
    return operation is None or operation.ended


def _is_renewed(before: Observed | None, after: Observed) -> bool:
    """Whether an instance has another process than it had."""
    return before is not None and after.pid is not None and after.pid != before.pid
