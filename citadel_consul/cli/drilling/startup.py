"""Phase 2: the whole stack is started from nothing, in order, in time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from citadel_consul.cli.drilling.discovery import is_passing
from citadel_consul.cli.drilling.sequence import READY, STARTED, Happening, Layout, start_violations
from citadel_consul.cli.drilling.site import Site, layout_of
from citadel_consul.cli.drilling.verdict import Line, line
from citadel_consul.core.health import Status, service_statuses
from citadel_consul.core.model import Instance
from citadel_consul.core.operation import Kind, Operation, OperationState, StepState


@dataclass(frozen=True, slots=True)
class Started:
    """A startup of everything, from nothing. ``seconds`` is from the request to its end, as its requester saw it.

    ``statuses`` are the services' words after it, ``unfit`` the instances that Consul does not show as passing then.
    """

    operation: Operation
    seconds: float
    history: tuple[Happening, ...]
    layout: Layout
    statuses: Mapping[str, Status] = field(default_factory=dict)
    unfit: frozenset[Instance] = frozenset()
    trouble: str = ""


SETTLE_SECONDS = 10.0
"""How long the first words of services after a start may say that they are not quite there yet."""


async def start_all(site: Site, trouble: str = "") -> Started:
    """Start the stack, all of which is down, and gather the evidence."""
    since = await site.mark()
    timed = await site.operate(Kind.STARTUP)
    await site.until(lambda: _is_well(site), SETTLE_SECONDS)
    snapshot = await site.snapshot()
    catalog = await site.catalog(tuple(snapshot.specs))
    return Started(
        operation=timed.operation,
        seconds=timed.seconds,
        history=await site.history(since),
        layout=layout_of(snapshot),
        statuses=service_statuses(snapshot, time.time()),
        unfit=frozenset(
            instance
            for spec in snapshot.specs.values()
            for instance in spec.instances
            if not spec.oneshot and not is_passing(catalog.get(instance))
        ),
        trouble=trouble,
    )


async def _is_well(site: Site) -> bool:
    snapshot = await site.snapshot()
    words = service_statuses(snapshot, time.time())
    return all(words[service] is Status.HEALTHY for service, spec in snapshot.specs.items() if spec.critical)


def judge_startup(seen: Started, target_seconds: float) -> tuple[Line, ...]:
    """The lines of phase 2."""
    return (
        line("Services started in correct order", _order_problems(seen), _order_figure(seen)),
        line("Dependency resolution working", _operation_problems(seen.operation), _delay_figure(seen)),
        _time(seen, target_seconds),
        line("All critical services healthy", _unhealthy(seen), _critical_figure(seen)),
    )


def _order_problems(seen: Started) -> Iterator[str]:
    if seen.trouble:
        yield seen.trouble
    yield from start_violations(seen.history, seen.layout)


def _order_figure(seen: Started) -> str:
    starts = sum(happening.what == STARTED for happening in seen.history)
    return f"{starts} starts, {len(seen.layout.edges)} edges"


def _operation_problems(operation: Operation) -> Iterator[str]:
    for step in operation.steps:
        if step.state is StepState.FAILED:
            yield f"{step.instance} failed: {step.detail or 'no reason given'}"
    for step in operation.steps:
        if step.state is not StepState.FAILED and step.state is not StepState.SUCCEEDED:
            yield f"{step.instance} was {step.state}: {step.detail or 'no reason given'}"
    if operation.state is not OperationState.SUCCEEDED:
        yield f"the startup {operation.state}: {operation.detail}"


def _delay_figure(seen: Started) -> str:
    """How long a start waited at most after the last of what it had to wait for, by the node agents' clocks."""
    ready = {h.instance: h.at for h in seen.history if h.what == READY}
    delays = []
    for happening in seen.history:
        if happening.what != STARTED:
            continue
        below = [
            ready[instance]
            for edge in seen.layout.edges
            if edge.service == happening.instance.service
            for instance in seen.layout.instances(edge.dependency)
            if ready.get(instance, happening.at) < happening.at
        ]
        if below:
            delays.append(happening.at - max(below))
    return f"started at most {1000 * max(delays):.0f} ms after the last dependency" if delays else ""


def _time(seen: Started, target_seconds: float) -> Line:
    text = (
        f"Total startup time: {seen.seconds:.{0 if seen.seconds >= 10 else 1}f} seconds (target: <{target_seconds:g}s)"
    )
    if seen.operation.state is not OperationState.SUCCEEDED:
        return line(text, ["it did not succeed"])
    return line(text, [f"{seen.seconds - target_seconds:.1f} s too long"] if seen.seconds >= target_seconds else ())


def _unhealthy(seen: Started) -> Iterator[str]:
    for service, status in seen.statuses.items():
        spec = seen.layout.specs.get(service)
        if spec is None or not spec.critical:
            continue
        unfit = [str(instance) for instance in spec.instances if instance in seen.unfit]
        if status is not Status.HEALTHY:
            yield f"{service} is {status}"
        elif unfit:
            yield f"Consul does not show {', '.join(unfit)} as passing"


def _critical_figure(seen: Started) -> str:
    critical = [service for service, spec in seen.layout.specs.items() if spec.critical]
    good = sum(seen.statuses.get(service) is Status.HEALTHY for service in critical)
    return f"{good} of {len(critical)}"
