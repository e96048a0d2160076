"""Why a service does not run, and when it will: an explanation from a snapshot, without any I/O.

What keeps it is looked for from the outside in: nobody leads, nobody asked for it, an operation has not begun, its
dependencies do not hold, its node has no agent, it ended. The first of these that applies is the answer, because
nothing further in can matter before it is mended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from citadel_consul.cli.ailments import Outputs, is_frozen, reason_of, treatment_of
from citadel_consul.cli.spans import clock, span
from citadel_consul.core.answers.dependencies import start_seconds
from citadel_consul.core.health import SERVING, Status, hold_on, instance_status, service_status
from citadel_consul.core.model import Edge
from citadel_consul.core.operation import Operation, Step, StepAction, StepState
from citadel_consul.core.progress import timeout_of
from citadel_consul.core.rules import unmet_edges
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.core.turn import Turn


@dataclass(frozen=True, slots=True)
class Need:
    """One edge of the service: what it asks for, whether that holds now, and how the dependency is."""

    dependency: str
    condition: str
    strength: str
    met: bool
    status: Status


@dataclass(frozen=True, slots=True)
class Explanation:
    """``why`` is one sentence. ``chain`` follows what is waited for down to where it is stuck. ``when`` says when it
    will run, and ``do`` what to do about it; both are empty if there is nothing to say."""

    service: str
    status: Status
    why: str
    needs: tuple[Need, ...]
    chain: tuple[str, ...]
    operation: str | None
    when: str
    do: str


@dataclass(frozen=True, slots=True)
class Case:
    """What an explanation is made from. ``ended`` are recent operations with steps, newest last; ``took`` is how many
    seconds services took to start when last it was measured."""

    snapshot: Snapshot
    service: str
    now: float
    led: bool
    outputs: Outputs
    ended: tuple[Operation, ...] = ()

    @property
    def took(self) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for step in (step for operation in self.ended for step in operation.steps):
            done = step.action is StepAction.START and step.state is StepState.SUCCEEDED
            if done and step.generation is not None:  # without one it ran already
                found[step.service] = (step.ended_at or 0.0) - (step.began_at or 0.0)
        known = {s: start_seconds(self.snapshot, s) for s in self.snapshot.specs}
        return {**found, **{s: seconds for s, seconds in known.items() if seconds is not None}}


def explain_service(case: Case) -> Explanation:
    """The explanation for ``case.service``, which has to be one of the stack."""
    snapshot, service = case.snapshot, case.service
    operation, step = _open_step(snapshot, service)
    why, when, do = _verdict(case, operation, step)
    status = service_status(snapshot, service, case.now)
    chain = tuple(_chain(case, service)) if status not in SERVING else ()
    root = chain[-1].dependency if chain else None
    if root is not None and operation is None and case.led:
        do = f"mend {root} first: citadel explain {root}"
    return Explanation(
        service=service,
        status=status,
        why=why,
        needs=tuple(_need(case, edge) for edge in snapshot.graph.dependencies(service)),
        chain=tuple(link.text for link in chain),
        operation=operation.id if operation is not None else None,
        when=when,
        do=do,
    )


def _verdict(case: Case, operation: Operation | None, step: Step | None) -> tuple[str, str, str]:
    """Why, when, and what to do."""
    status = service_status(case.snapshot, case.service, case.now)
    if status is Status.HEALTHY:
        return "it runs, and nothing says otherwise", "", ""
    if not case.led:
        return (
            "no orchestrator leads, so nothing is started or stopped",
            "as soon as one leads, if it was asked for",
            "start one: citadel orchestrator",
        )
    if operation is not None:
        return _in_operation(case, operation, step)
    missing = [i.node for i in case.snapshot.instances(case.service) if i.node not in case.snapshot.agents]
    if missing and status not in SERVING:
        return (
            f"no node agent runs on {', '.join(missing)}, so nobody can start it or see it",
            "",
            f"citadel agent --node {missing[0]}, on that node",
        )
    return _at_rest(case, status)


# --- while an operation works on it -----------------------------------------------------------------------------


def _in_operation(case: Case, operation: Operation, step: Step | None) -> tuple[str, str, str]:
    name = f"{operation.kind} {operation.id}"
    if operation.waits_for is not None:
        why = f"{name} has not begun: it waits for operation {operation.waits_for}"
        return why, "after that one", f"citadel ops show {operation.waits_for}"
    if step is None:
        return f"{name} has not begun yet", "as soon as the leader takes it", ""
    follow = f"citadel ops show {operation.id} --follow"
    if step.action is StepAction.STOP:
        return f"{name} {'stops' if step.state is StepState.RUNNING else 'is going to stop'} it", "", follow
    if step.state is StepState.RUNNING:
        took = span(case.now - (step.began_at or case.now))
        limit = span(case.snapshot.start_timeout(case.service))
        return f"it has been starting for {took}, and may take {limit}", _when(case, operation), follow
    return f"{name}: {step.detail or 'its turn has not come yet'}", _when(case, operation), follow


def _when(case: Case, operation: Operation) -> str:
    """An estimate from how long the starts ahead took the last time, and the moment when the operation gives up."""
    timeout = timeout_of(Turn(case.snapshot, case.now), operation)
    left = (operation.started_at or case.now) + timeout - case.now
    bound = f"given up in {span(left)} at the latest"
    seconds, unknown = _remaining(case, case.service, case.took)
    if unknown is not None:
        return f"{bound}; no estimate, since {unknown} has not been started before"
    if seconds <= 0.0:
        return f"it takes longer than the last time; {bound}"
    return f"in about {span(seconds)}, going by the last starts; {bound}"


def _remaining(case: Case, service: str, took: Mapping[str, float]) -> tuple[float, str | None]:
    """The seconds until a service is ready if all goes as the last time, or a service of which that is not known."""
    if service_status(case.snapshot, service, case.now) is Status.HEALTHY:
        return 0.0, None
    before = [_remaining(case, edge.dependency, took) for edge in _unmet(case.snapshot, service)]
    unknown = next((name for _, name in before if name is not None), None)
    if unknown is None and service not in took:
        unknown = service
    if unknown is not None:
        return 0.0, unknown
    _, step = _open_step(case.snapshot, service)
    spent = case.now - step.began_at if step is not None and step.began_at is not None else 0.0
    return max((seconds for seconds, _ in before), default=0.0) + max(0.0, took[service] - spent), None


# --- while nothing works on it ----------------------------------------------------------------------------------


def _at_rest(case: Case, status: Status) -> tuple[str, str, str]:
    snapshot, service = case.snapshot, case.service
    unwell = [i for i in snapshot.instances(service) if instance_status(snapshot, i, case.now) is not Status.HEALTHY]
    hold = next((h for i in unwell if (h := hold_on(snapshot, i, case.now)) is not None), None)
    reasons = [text for i in unwell if (text := reason_of(snapshot, i, case.now, case.outputs))]
    if status is Status.HELD and hold is not None:
        why = "; ".join(reasons) or f"held by {hold.by or 'somebody'}"
        place = hold.name if hold.scope == "service" else f"{hold.scope} {hold.name}".rstrip()
        end = "when the hold is taken back" if hold.until is None else f"when the hold ends, at {clock(hold.until)}"
        return f"{why}: {hold.reason}" if hold.reason else why, end, f"citadel unhold {place}"
    if any((d := snapshot.desired.get(i)) is not None and d.run for i in unwell):
        what = "; ".join(reasons) or f"it is {status}"
        if status is Status.STARTING:
            return f"it was told to start and is not ready yet ({what})", "", f"citadel logs {service}"
        do = f"citadel logs {service}; citadel recover {service}"
        if is_frozen(snapshot):
            when = "recovery is frozen, since too much failed at once: see citadel status"
            return what, when, f"{do}; citadel recover all goes on with everything"
        return what, treatment_of(snapshot, service, case.now), do
    why = _history(case) or "nobody has asked for it"
    wanted = any((d := snapshot.desired.get(i)) is not None and d.wanted for i in unwell)
    return why, "as soon as what it needs is back: it is still wanted" if wanted else "", f"citadel up {service}"


def _history(case: Case) -> str | None:
    """How the last operation on it ended, if that is why it does not run."""
    for operation in reversed(case.ended):
        steps = [s for s in operation.steps if s.service == case.service and s.action is not StepAction.NOTIFY]
        if not steps:
            continue
        last = next((s for s in steps if s.state in (StepState.FAILED, StepState.SKIPPED)), steps[-1])
        what = f"{operation.kind} {operation.id}"
        if last.action is StepAction.STOP and last.state is StepState.SUCCEEDED:
            return f"{what} stopped it ({operation.requested_by or 'somebody'} asked for it)"
        if last.action is StepAction.START and last.state is not StepState.SUCCEEDED:
            verb = "skipped its start" if last.state is StepState.SKIPPED else "could not start it"
            return f"{what} {verb}: {last.detail or operation.detail}"
    return None


# --- parts ------------------------------------------------------------------------------------------------------


def _open_step(snapshot: Snapshot, service: str) -> tuple[Operation | None, Step | None]:
    """The oldest unfinished operation that touches the service, with its step on it that is furthest."""
    for operation in snapshot.operations:
        if operation.ended:
            continue
        steps = [step for step in operation.steps if step.service == service and not step.ended]
        if steps:
            return operation, next((s for s in steps if s.state is StepState.RUNNING), steps[0])
        targets = {target.partition("@")[0] for target in operation.targets}
        if not operation.steps and targets & {service, "all"}:
            return operation, None
    return None, None


def _need(case: Case, edge: Edge) -> Need:
    return Need(
        dependency=edge.dependency,
        condition=str(edge.condition),
        strength=str(edge.strength),
        met=case.snapshot.edge_met(edge),
        status=service_status(case.snapshot, edge.dependency, case.now),
    )


def _unmet(snapshot: Snapshot, service: str) -> tuple[Edge, ...]:
    return unmet_edges(snapshot, service, {})


@dataclass(frozen=True, slots=True)
class _Link:
    dependency: str
    text: str


def _chain(case: Case, service: str) -> Iterator[_Link]:
    """Down the unmet edges, along those whose end is stuck in its own right."""
    unmet = _unmet(case.snapshot, service)
    if not unmet:
        return
    edge = next((e for e in unmet if not _unmet(case.snapshot, e.dependency)), unmet[0])
    status = service_status(case.snapshot, edge.dependency, case.now)
    reasons = [reason_of(case.snapshot, i, case.now, case.outputs) for i in case.snapshot.instances(edge.dependency)]
    why = next((reason for reason in reasons if reason), "")
    text = f"{service} needs {edge.dependency} to be {edge.condition}, and it is {status}"
    yield _Link(edge.dependency, f"{text} ({why})" if why else text)
    yield from _chain(case, edge.dependency)
