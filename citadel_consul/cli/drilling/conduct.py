"""The course of a drill: from the stack as it is found, through the phases, back to how it was found."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from citadel_consul.cli.drilling.data import DataHook, Kept
from citadel_consul.cli.drilling.discovery import discover, judge_discovery
from citadel_consul.cli.drilling.monitoring import judge_monitoring, monitor, take_away_leftovers
from citadel_consul.cli.drilling.recovery import Recovered, judge_recovery, recover
from citadel_consul.cli.drilling.shutdown import Stopped, judge_shutdown, stop_all
from citadel_consul.cli.drilling.site import Site, Timed, check_ready
from citadel_consul.cli.drilling.startup import Started, judge_startup, start_all
from citadel_consul.cli.drilling.verdict import Line, Phase, Report, Result
from citadel_consul.core.healing.treatment import CALM_SECONDS
from citadel_consul.core.model import Instance
from citadel_consul.core.operation import Kind, Operation, OperationState
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.errors import CitadelError, OperationFailed

SLACK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be drilled, and how. ``target_seconds`` is what a startup may take.

    ``hook`` puts in data and finds it; without one, ``why_no_data`` says why.
    """

    phases: tuple[int, ...]
    target_seconds: float
    victim: str | None = None
    hook: DataHook | None = None
    why_no_data: str = ""


@dataclass
class Drill:
    """One drill of one stack. ``show`` is called with each phase when it is over."""

    site: Site
    wish: Wish
    show: Callable[[Phase], None]
    started: Started | None = None
    """The startup that this drill made of a stack that it found down: phase 2 need not make another one."""
    kept: Kept = field(default_factory=Kept)

    async def run(self) -> Report:
        """All phases that are wished for. Raises Refused, NoLeader or ConsulUnavailable if it cannot begin."""
        await check_ready(self.site)
        found = await self.site.snapshot()
        began_at = time.time()
        await take_away_leftovers(self.site)
        phases = []
        await self._bring_up(found)
        if 5 in self.wish.phases:
            await self._put_in()
        for number in self.wish.phases:
            phase = await self._phase(number)
            phases.append(phase)
            self.show(phase)
        trouble = await self._leave_as_found(found)
        return Report(self.site.stack, began_at, tuple(phases), trouble)

    # --- the phases ---------------------------------------------------------------------------------------------

    async def _phase(self, number: int) -> Phase:
        began = time.monotonic()
        run: Mapping[int, Callable[[], Awaitable[tuple[Line, ...]]]] = {
            1: self._discovery,
            2: self._startup,
            3: self._monitoring,
            4: self._recovery,
            5: self._shutdown,
        }
        try:
            lines = await run[number]()
        except CitadelError as error:
            lines = (Line("This phase could not be carried through", Result.FAILED, reason=str(error)),)
        return Phase(number, lines, time.monotonic() - began)

    async def _discovery(self) -> tuple[Line, ...]:
        return judge_discovery(await discover(self.site))

    async def _startup(self) -> tuple[Line, ...]:
        started = self.started
        if started is None:
            down = await self.site.operate(Kind.SHUTDOWN)
            trouble = _trouble(down.operation, "it could not be brought down first")
            started = await start_all(self.site, trouble)
        return judge_startup(started, self.wish.target_seconds)

    async def _monitoring(self) -> tuple[Line, ...]:
        return judge_monitoring(await monitor(self.site))

    async def _recovery(self) -> tuple[Line, ...]:
        seen = await recover(self.site, self.wish.victim)
        if seen is not None:
            await self._mend(seen)
        return judge_recovery(seen)

    async def _shutdown(self) -> tuple[Line, ...]:
        await self._put_in()
        stopped = await stop_all(self.site)
        if self.wish.hook is None:
            return judge_shutdown(replace(stopped, why_no_data=self.wish.why_no_data))
        return judge_shutdown(await self._look_for_data(stopped, self.wish.hook))

    async def _look_for_data(self, stopped: Stopped, hook: DataHook) -> Stopped:
        """Start again, which is what it takes to see whether anything was lost."""
        again = await self.site.operate(Kind.STARTUP)
        self.site.say("looking for the data that was put in …")
        found = await hook.read()
        trouble = _trouble(again.operation, "it could not be started again")
        return replace(
            stopped,
            kept=Kept(found.written, (*self.kept.problems, *found.problems)),
            trouble=(trouble,) if trouble else (),
        )

    # --- between the phases ---------------------------------------------------------------------------------------

    async def _bring_up(self, found: Snapshot) -> None:
        """See that everything runs. From nothing, that is already the startup which phase 2 is about."""
        wanted = [i for spec in found.specs.values() for i in spec.instances]
        if all(found.is_down(instance) for instance in wanted):
            self.started = await start_all(self.site)
        elif not all(found.is_alive(instance) for instance in wanted):
            await self.site.operate(Kind.STARTUP)

    async def _put_in(self) -> None:
        if self.wish.hook is not None:
            self.site.say("putting data in …")
            written = await self.wish.hook.write()
            self.kept = Kept(written.written, (*self.kept.problems, *written.problems))

    async def _mend(self, seen: Recovered) -> None:
        """Bring back by hand what did not come back by itself, and see the incident to its end."""
        if seen.killed and seen.restored_seconds is None:
            await self.site.operate(Kind.RECOVER, seen.victim.service)
        elif seen.restored_seconds is not None:  # so that whoever was told of the incident is told of its good end
            await self.site.until(lambda: self._is_over(seen.victim.service), CALM_SECONDS + SLACK_SECONDS)

    async def _is_over(self, service: str) -> bool:
        incident = (await self.site.snapshot()).incidents.get(service)
        return incident is None or incident.over

    async def _leave_as_found(self, found: Snapshot) -> str:
        """Have run what ran, and nothing else; returns what is wrong if that does not succeed."""
        running = _running(found)
        try:
            now = _running(await self.site.snapshot())
            if not running:
                done = await self.site.operate(Kind.SHUTDOWN) if now else None
            elif now >= running and len(now) == len(running):
                done = None
            else:
                done = await self._restore(found, running)
        except CitadelError as error:
            return str(error)
        return "" if done is None else _trouble(done.operation, "")

    async def _restore(self, found: Snapshot, running: Collection[Instance]) -> Timed | None:
        everything = {i for spec in found.specs.values() for i in spec.instances}
        if set(running) == everything:
            return await self.site.operate(Kind.STARTUP)
        started = await self.site.operate(Kind.STARTUP, *(str(i) for i in sorted(running)))
        _raise_unless_succeeded(started.operation)
        extra = _running(await self.site.snapshot()) - set(running)
        return await self.site.operate(Kind.SHUTDOWN, *(str(i) for i in sorted(extra))) if extra else started


def _running(snapshot: Snapshot) -> set[Instance]:
    return {i for spec in snapshot.specs.values() for i in spec.instances if not snapshot.is_down(i)}


def _trouble(operation: Operation, what: str) -> str:
    if operation.state is OperationState.SUCCEEDED:
        return ""
    lead = f"{what}: " if what else ""
    return f"{lead}{operation.kind} {operation.state}: {operation.detail}"


def _raise_unless_succeeded(operation: Operation) -> None:
    if operation.state is not OperationState.SUCCEEDED:
        raise OperationFailed(_trouble(operation, ""))
