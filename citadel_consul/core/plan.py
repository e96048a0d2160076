"""Planning: from a request to the steps that fulfil it.

A plan says *what* is to be done to which instance, and which steps need others to have succeeded (``Step.after``).
*When* a step may begin is not planned: it follows from the graph and from what is observed at that time, so an edge
that is added while an operation runs is honoured too.

- A **startup** takes in everything that its targets need to start (hard and milestone edges, transitively).
- A **shutdown** takes down what hard-depends on its targets, but only if asked to (``cascade``); otherwise running
  dependents are a reason to refuse.
- A **restart** without ``cascade`` happens in place: dependents stay up, and those whose edge says so are restarted or
  told afterwards. With ``cascade`` the running dependents are stopped before and started after it.
- A **rolling** restart takes one running instance after the other (:mod:`rolling`); it is refused where a running
  dependent could not spare one, unless it is forced.
- A **drain** stops its targets when they have nothing more in hand, in place; it is refused where running dependents
  need them, unless it is forced.
- A **recover** is a restart of what is broken in a service, or of all of it if nothing is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from citadel_consul.core.model import Condition, Instance, OnRecovery
from citadel_consul.core.operation import ALL, Kind, Operation, Options, Step, StepAction, touched
from citadel_consul.core.rolling import obstacles, pairs, rolled, warnings
from citadel_consul.core.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of an operation, or the reason why there are none. ``warnings`` say what they will do to others."""

    steps: tuple[Step, ...] = ()
    refusal: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def scope(self) -> frozenset[str]:
        return touched(self.steps)


def plan(snapshot: Snapshot, operation: Operation) -> Plan:
    """The steps of ``operation`` as things stand in ``snapshot``."""
    targets, refusal = resolve_targets(snapshot, operation.targets)
    if refusal is not None:
        return Plan(refusal=refusal)
    if operation.kind is Kind.STARTUP:
        return _plan_startup(snapshot, targets)
    if operation.kind is Kind.SHUTDOWN:
        return _plan_shutdown(snapshot, targets, cascade=operation.options.cascade)
    if operation.kind is Kind.DRAIN:
        return _plan_drain(snapshot, targets, operation.options)
    if operation.kind is Kind.RESTART and operation.options.rolling:
        return _plan_roll(snapshot, targets, operation.options)
    if operation.kind is Kind.RECOVER and not operation.automatic:  # citadel names what it found broken, and no more
        targets = _broken_or_all(snapshot, targets)
    return _plan_restart(snapshot, targets, cascade=operation.options.cascade)


def resolve_targets(snapshot: Snapshot, targets: Iterable[str]) -> tuple[tuple[Instance, ...], str | None]:
    """The instances that ``targets`` name, in start order, or why they name none."""
    chosen: set[Instance] = set()
    for target in targets:
        service, _, node = target.partition("@")
        if target == ALL:
            chosen.update(instance for spec in snapshot.specs.values() for instance in spec.instances)
        elif service not in snapshot.specs:
            return (), f"unknown service {service!r}"
        elif node and node not in snapshot.specs[service].nodes:
            return (), f"service {service!r} has no instance on node {node!r}"
        else:
            chosen.update(i for i in snapshot.instances(service) if not node or i.node == node)
    return tuple(_in_start_order(snapshot, chosen)), None


def running_dependents(snapshot: Snapshot, targets: Iterable[Instance]) -> tuple[str, ...]:
    """The services, in stop order, that a shutdown of ``targets`` would take down besides them."""
    going = set(targets)
    broken = {i.service for i in going}
    order = list(reversed(snapshot.graph.in_start_order(snapshot.graph.services)))
    affected: set[str] = set()
    looked_at: set[str] = set()  # each service once: there can be exponentially many paths to it
    todo = [edge for service in broken for edge in snapshot.graph.dependents(service)]
    for edge in todo:  # grows while it is walked
        if edge.service in looked_at or not edge.needed_to_run or snapshot.survives(edge, going):
            continue
        looked_at.add(edge.service)
        own = snapshot.instances(edge.service)
        if any(not snapshot.is_down(instance) for instance in own if instance not in going):
            affected.add(edge.service)
        going.update(own)
        todo.extend(snapshot.graph.dependents(edge.service))
    return tuple(service for service in order if service in affected)


def _plan_startup(snapshot: Snapshot, targets: tuple[Instance, ...]) -> Plan:
    asked = {i.service for i in targets}
    direct = {e.dependency for s in asked for e in snapshot.graph.dependencies(s) if e.needed_to_start}
    needed = snapshot.graph.with_dependencies(direct, lambda edge: edge.needed_to_start)
    below = [i for service in needed for i in snapshot.instances(service)]
    return Plan(tuple(_step(i, StepAction.START) for i in _in_start_order(snapshot, [*targets, *below])))


def _plan_shutdown(snapshot: Snapshot, targets: tuple[Instance, ...], *, cascade: bool) -> Plan:
    dependents = running_dependents(snapshot, targets)
    if dependents and not cascade:
        names = ", ".join(sorted({i.service for i in targets}))
        return Plan(refusal=f"stopping {names} would take down {', '.join(dependents)}; ask for it with --cascade")
    above = [i for service in dependents for i in snapshot.instances(service)]
    everything = _in_start_order(snapshot, {*targets, *above})
    return Plan(tuple(_step(i, StepAction.STOP) for i in reversed(everything)))


def _plan_drain(snapshot: Snapshot, targets: tuple[Instance, ...], options: Options) -> Plan:
    dependents = running_dependents(snapshot, targets)
    names = ", ".join(sorted({i.service for i in targets}))
    if dependents and not options.force:
        return Plan(refusal=f"draining {names} would leave {', '.join(dependents)} without what they need; force it")
    warning = (f"{', '.join(dependents)} stay up without what they need of {names}",) if dependents else ()
    return Plan(tuple(_step(i, StepAction.STOP) for i in reversed(targets)), warnings=warning)


def _plan_roll(snapshot: Snapshot, targets: tuple[Instance, ...], options: Options) -> Plan:
    chosen = set(targets)
    if options.subtree:
        above = snapshot.graph.with_dependents({i.service for i in targets}, lambda edge: edge.needed_to_run)
        chosen.update(i for service in above - {t.service for t in targets} for i in snapshot.instances(service))
    running = rolled(snapshot, _in_start_order(snapshot, chosen))
    if not running:
        return Plan(refusal="nothing of it runs, and a rolling restart starts only what it has stopped")
    found = obstacles(snapshot, running)
    if found and not options.force:
        return Plan(refusal=f"one instance at a time is too many: {'; '.join(found)}; lower min_instances, or force it")
    return Plan(pairs(running), warnings=warnings(snapshot, running))


def _plan_restart(snapshot: Snapshot, targets: tuple[Instance, ...], *, cascade: bool) -> Plan:
    chosen = set(targets)
    if cascade:
        above = running_dependents(snapshot, targets)
        chosen.update(i for s in above for i in snapshot.instances(s) if not snapshot.is_down(i))
    ordered = _in_start_order(snapshot, chosen)
    steps = [_step(i, StepAction.STOP) for i in reversed(ordered)]
    stops = {step.instance: position for position, step in enumerate(steps)}
    steps += [replace(_step(i, StepAction.START), after=(stops[i],)) for i in ordered]
    _add_followers(snapshot, steps, {i.service for i in chosen})
    return Plan(tuple(steps))


def _add_followers(snapshot: Snapshot, steps: list[Step], handled: set[str]) -> None:
    """Append what dependents do after their dependency has come back, each by the word of its own edge."""
    todo = snapshot.graph.in_start_order(handled)
    places: dict[str, list[int]] = {}  # of the starts, by service: looking for them again costs their square
    for position, step in enumerate(steps):
        if step.action is StepAction.START:
            places.setdefault(step.service, []).append(position)
    for dependency in todo:  # grows while it is walked
        starts = tuple(places.get(dependency, ()))
        for edge in snapshot.graph.dependents(dependency):
            running = [i for i in snapshot.instances(edge.service) if snapshot.is_alive(i)]
            if edge.service in handled or not running or edge.on_recovery is OnRecovery.NONE:
                continue
            handled.add(edge.service)
            if edge.on_recovery is not OnRecovery.RESTART:
                action = StepAction.RELOAD if edge.on_recovery is OnRecovery.RELOAD else StepAction.NOTIFY
                steps += [replace(_step(i, action), after=starts) for i in running]
                continue
            for instance in running:
                steps.append(replace(_step(instance, StepAction.STOP), after=starts))
                places.setdefault(edge.service, []).append(len(steps))
                steps.append(replace(_step(instance, StepAction.START), after=(len(steps) - 1,)))
            todo.append(edge.service)


def _broken_or_all(snapshot: Snapshot, targets: tuple[Instance, ...]) -> tuple[Instance, ...]:
    broken = tuple(i for i in targets if not snapshot.meets(i, Condition.HEALTHY))
    return broken or targets


def _in_start_order(snapshot: Snapshot, instances: Iterable[Instance]) -> list[Instance]:
    chosen = set(instances)
    names = {i.service for i in chosen}
    services = snapshot.graph.in_start_order(s for s in snapshot.graph.services if s in names)
    return [i for service in services for i in snapshot.instances(service) if i in chosen]


def _step(instance: Instance, action: StepAction) -> Step:
    return Step(service=instance.service, node=instance.node, action=action)
