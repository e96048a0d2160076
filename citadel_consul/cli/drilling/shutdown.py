"""Phase 5: everything is stopped in order, leaves nothing behind, and has lost nothing when it is back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from signal import SIGKILL

from citadel_consul.backends.family import Identity
from citadel_consul.cli.drilling import processes
from citadel_consul.cli.drilling.data import Kept
from citadel_consul.cli.drilling.sequence import STOPPING, Happening, Layout, judged_edges, stop_violations
from citadel_consul.cli.drilling.site import Site, consul_id, layout_of
from citadel_consul.cli.drilling.verdict import Line, line, unchecked
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Instance
from citadel_consul.core.operation import Kind, Operation, OperationState, StepState
from citadel_consul.core.snapshot import Snapshot

SETTLE_SECONDS = 5.0
"""How long the last processes and registrations may take to be gone, after the shutdown says that it is done."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A shutdown of everything. ``up`` is what ran before it, ``forced`` what had to be killed.

    ``left`` are processes that live on, in words; ``registered`` what Consul still shows. ``watched`` says of how many
    instances the processes could be looked at from here. ``kept`` is what became of the data, None if none was put in.
    """

    operation: Operation
    seconds: float
    history: tuple[Happening, ...]
    layout: Layout
    up: frozenset[Instance]
    forced: tuple[Instance, ...] = ()
    alive: tuple[Instance, ...] = ()
    left: tuple[str, ...] = ()
    registered: tuple[str, ...] = ()
    watched: int = 0
    kept: Kept | None = None
    why_no_data: str = ""
    trouble: tuple[str, ...] = field(default_factory=tuple)


async def stop_all(site: Site) -> Stopped:
    """Stop the stack and gather the evidence, but for that of the data: it takes a start to see that."""
    before = await site.snapshot()
    up = frozenset(i for spec in before.specs.values() for i in spec.instances if before.is_alive(i))
    family = _family(site, before, up)
    since = await site.mark()
    timed = await site.operate(Kind.SHUTDOWN)
    after = await site.snapshot()
    await site.until(lambda: _is_clean(site, after, family), SETTLE_SECONDS)
    return Stopped(
        operation=timed.operation,
        seconds=timed.seconds,
        history=await site.history(since),
        layout=layout_of(before),
        up=up,
        forced=tuple(sorted(i for i in up if _was_forced(after, i))),
        alive=tuple(sorted(i for spec in after.specs.values() for i in spec.instances if after.is_alive(i))),
        left=_left(site, family),
        registered=await _registered(site, after),
        watched=len(family),
    )


def judge_shutdown(seen: Stopped) -> tuple[Line, ...]:
    """The lines of phase 5."""
    stops = sum(happening.what == STOPPING for happening in seen.history)
    return (
        line("Graceful shutdown initiated", _initiated(seen), f"{len(seen.up)} instances"),
        line(
            "Services stopped in reverse dependency order",
            stop_violations(seen.history, seen.layout, seen.up),
            f"{stops} stops, {judged_edges(seen.layout)} edges",
        ),
        _data_line(seen),
        line("Clean shutdown completed", _unclean(seen), _clean_figure(seen)),
    )


def _initiated(seen: Stopped) -> Iterator[str]:
    operation = seen.operation
    if operation.started_at is None:
        yield f"the shutdown was not begun: {operation.detail or operation.state}"
    elif not operation.options.graceful:
        yield "it was not asked to be graceful"
    if not seen.up:
        yield "nothing was running"


def _data_line(seen: Stopped) -> Line:
    text = "No data loss detected"
    if seen.kept is None:
        return unchecked(text, seen.why_no_data or "no data was put in")
    found = seen.kept.written - len(seen.kept.problems)
    problems = list(seen.kept.problems)
    if not seen.kept.written and not problems:
        problems.append("nothing was put in")
    return line(text, problems, f"{max(0, found)} of {seen.kept.written} found again" if seen.kept.written else "")


def _unclean(seen: Stopped) -> Iterator[str]:
    for instance in seen.forced:
        spec = seen.layout.specs.get(instance.service)
        name = getattr(spec.backend, "stop_signal", "its stop signal") if spec is not None else "its stop signal"
        yield f"{instance} did not end on {name} and was killed"
    for instance in seen.alive:
        yield f"{instance} still runs"
    yield from (f"{words} is left" for words in seen.left)
    yield from (f"{service_id} is still registered" for service_id in seen.registered)
    for step in seen.operation.steps:
        if step.state is not StepState.SUCCEEDED:
            yield f"stop of {step.instance} {step.state}: {step.detail or 'no reason given'}"
    if seen.operation.state is not OperationState.SUCCEEDED:
        yield f"the shutdown {seen.operation.state}: {seen.operation.detail}"
    yield from seen.trouble


def _clean_figure(seen: Stopped) -> str:
    where = "no process left, nothing registered" if not (seen.left or seen.registered or seen.alive) else ""
    if seen.watched < len(seen.up):
        where = f"{where}; {len(seen.up) - seen.watched} not seen from here, by their agents' word".lstrip("; ")
    return f"{seen.seconds:.1f} s{', ' if where else ''}{where}"


# --- what is left -----------------------------------------------------------------------------------------------


def _family(site: Site, before: Snapshot, up: frozenset[Instance]) -> Mapping[Instance, frozenset[Identity]]:
    """The processes of each running instance that are on this machine, with their descendants."""
    found = {}
    for instance in up:
        identity = processes.likely(site.stack, instance, before.observed.get(instance))
        if identity is not None:
            found[instance] = processes.with_descendants([identity])
    return found


def _left(site: Site, family: Mapping[Instance, frozenset[Identity]]) -> tuple[str, ...]:
    """What lives on: of the processes that were there, and of all that bear the mark of the stack."""
    alive = {identity: f"{i}: {words}" for i, all_ in family.items() for identity, words in _living(all_).items()}
    return tuple(sorted({**processes.of_stack(site.stack), **alive}.values()))


def _living(identities: frozenset[Identity]) -> Mapping[Identity, str]:
    return processes.living(identities)


async def _registered(site: Site, snapshot: Snapshot) -> tuple[str, ...]:
    catalog = await site.catalog(tuple(snapshot.specs))
    return tuple(sorted(consul_id(site.stack, instance) for instance in catalog))


async def _is_clean(site: Site, snapshot: Snapshot, family: Mapping[Instance, frozenset[Identity]]) -> bool:
    return not _left(site, family) and not await _registered(site, snapshot)


def _was_forced(after: Snapshot, instance: Instance) -> bool:
    """Whether an instance that was stopped by order ended by SIGKILL: then its stop signal was not enough."""
    observed = after.observed.get(instance)
    return observed is not None and observed.phase is Phase.STOPPED and observed.exit_signal == SIGKILL
