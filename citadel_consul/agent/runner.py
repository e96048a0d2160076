"""One instance on this node: from what is wanted to what is.

A runner works in one task, so that a start and a stop of the same instance can never overlap. Orders arrive as
``Desired``; a newer generation replaces an older one that has not been taken up. What the runner does and sees, it
says as ``Observed``, always of the generation it speaks of.

The rules of ``core.lifecycle`` hold here: an instance is started at most once for a generation, and one that died
unasked is left dead until a new generation orders a start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import replace

from citadel_consul.agent.adoption import found_gone, found_running
from citadel_consul.agent.examination import Diagnosis
from citadel_consul.agent.surroundings import Surroundings
from citadel_consul.agent.vitals import unexamined, with_diagnosis
from citadel_consul.backends.base import Adopted, Exit, Gone, Handle, InstanceExited, Launch, Running
from citadel_consul.core.lifecycle import Desired, Observed, Phase, check_transition
from citadel_consul.core.model import Instance, ServiceSpec
from citadel_consul.errors import BackendError, BackendUnavailable, CitadelError, ConsulUnavailable

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""How long to wait before asking an absent backend or an absent Consul again."""


class InstanceRunner:
    """Makes one instance what it is wanted to be. Run :meth:`run` in a task; it ends by cancellation or dismissal."""

    def __init__(self, instance: Instance, around: Surroundings, last_seen: Observed | None) -> None:
        self.instance = instance
        self._around = around
        self._wanted: Desired | None = None
        self._news = asyncio.Event()
        self._children: asyncio.TaskGroup | None = None
        self._readying: asyncio.Task[None] | None = None
        self._exit: Exit | None = None
        self._let_go = False
        self._dismissed = False
        self.adopted = asyncio.Event()
        self.observed = last_seen or Observed(generation=0, phase=Phase.STOPPED, since=around.wall())

    # --- what others tell it ------------------------------------------------------------------------------------

    def want(self, desired: Desired) -> None:
        """Take a new order; the newest generation counts. The same again is nothing to wake up for."""
        if self._wanted is None or (desired.generation >= self._wanted.generation and desired != self._wanted):
            self._wanted = desired
            self._news.set()

    def dismiss(self) -> None:
        """Have :meth:`run` come to its end, unless something of the instance runs or is wanted: then say it again."""
        self._dismissed = True
        self._news.set()

    def exited(self, event: InstanceExited) -> None:
        """Take note that what ran has ended. An end that was asked for is told by the stop itself."""
        if not event.requested:
            self._exit = event.exit
            self._news.set()

    def runs_as(self, handle: Handle) -> None:
        """Take note that its manager has started it again by itself: it is another process, and no end was told."""
        if self.observed.alive:
            self._say(replace(self.observed, pid=handle.pid, unit=handle.unit))

    def diagnose(self, diagnosis: Diagnosis) -> None:
        """Take what an examination concluded; it says nothing of an instance that is not up."""
        if self.observed.phase not in (Phase.STARTING, Phase.READY):
            return
        before, starting = self.observed, self.observed.phase is Phase.STARTING
        self._say(with_diagnosis(before, replace(diagnosis, lapsed_at=None) if starting else diagnosis))
        if diagnosis.contradicted_since is not None and before.contradicted_since is None and not starting:
            self._note("contradicted")
        elif diagnosis.failing_since is not None and before.failing_since is None:
            self._note("failing")

    # --- the task -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Adopt what an earlier agent left, then follow orders and exits; when dismissed, leave nothing behind."""
        async with asyncio.TaskGroup() as self._children:
            if self._around.spec_of(self.instance.service) is None:  # a first order can come before the spec
                await self._around.fresh_spec_of(self.instance.service)
            await self._adopt()
            self.adopted.set()
            while not await self._takes_its_leave():
                await self._news.wait()
                self._news.clear()
                await self._take_exit()
                await self._follow_order()
        self._around.backend.forget(self.instance)
        self._around.forget(self.instance)

    async def _takes_its_leave(self) -> bool:
        """Whether it was dismissed and can go. An order that came meanwhile is not lost: nothing waits after this."""
        dismissed, self._dismissed = self._dismissed, False
        if not dismissed or not self.at_rest:
            return False
        await self._end_readying()
        await self._quietly(self._around.catalog.withdraw(self.instance))
        return self.at_rest

    @property
    def at_rest(self) -> bool:
        """Whether nothing of it runs, and no order waits to be followed."""
        ordered = self._wanted is not None and self._wanted.generation > self.observed.generation
        return not self.observed.alive and not ordered and self._exit is None

    async def _take_exit(self) -> None:
        ended, self._exit = self._exit, None
        if ended is None or not self.observed.alive:
            return
        await self._end_readying()
        spec = self._around.spec_of(self.instance.service)
        completed = ended.succeeded and spec is not None and spec.oneshot
        self._become(
            Phase.COMPLETED if completed else Phase.EXITED,
            pid=None,
            unit=None,
            exit_code=ended.code,
            exit_signal=ended.signal,
            detail=ended.detail,
        )
        self._note("completed" if completed else "exited")
        await asyncio.sleep(0)  # the report goes out first: rendering a registration takes 2 ms, and somebody waits
        if completed or spec is None:
            await self._quietly(self._around.catalog.withdraw(self.instance))
        elif self.observed.ready_at is not None:
            await self._quietly(self._around.catalog.mark_down(spec, self.instance))

    async def _follow_order(self) -> None:
        wanted = self._wanted
        if wanted is None:
            return
        if wanted.run and self.observed.phase is Phase.DRAINING:
            self._serve_again(wanted)
            return
        if wanted.generation <= self.observed.generation:
            if wanted.run and wanted.reloads > self.observed.reloads:
                await self._reload(wanted.reloads)
            return
        if wanted.released:
            await self._release(wanted)
            return
        if self._let_go:  # it may run still, and is taken up as it is
            await self._around.fresh_spec_of(self.instance.service)
            await self._adopt()
            self._let_go = False
        if not wanted.run:
            await self._stop(wanted)
        elif self.observed.alive:
            self._say(replace(self.observed, generation=wanted.generation))
        else:
            await self._start(wanted)

    # --- starting -----------------------------------------------------------------------------------------------

    async def _start(self, wanted: Desired) -> None:
        spec = await self._around.fresh_spec_of(self.instance.service)
        if self._wanted is not None and self._wanted.generation > wanted.generation:
            return  # a newer order came meanwhile
        if spec is None:
            self._fail(wanted, "its spec is not in the KV store")
            return
        now = self._around.wall()
        try:
            handle = await self._around.backend.start(self._launch(spec, wanted.generation))
        except BackendUnavailable as error:
            self._say(replace(self.observed, detail=f"cannot be started now: {error}"))
            await self._again_later()
            return
        except CitadelError as error:
            self._fail(wanted, str(error))
            return
        self._become(
            Phase.STARTING,
            generation=wanted.generation,
            started_at=now,
            ready_at=None,
            pid=handle.pid,
            unit=handle.unit,
            exit_code=None,
            exit_signal=None,
            starts=self.observed.starts + 1,
            detail="",
            unwatched=False,
            reloads=wanted.reloads,
            reload_error="",
        )
        self._note("started")
        self._watch_readiness(spec)

    def _launch(self, spec: ServiceSpec, generation: int) -> Launch:
        return Launch(
            stack=self._around.stack,
            instance=self.instance,
            generation=generation,
            backend=spec.backend,
            stop_timeout_seconds=self._around.stop_timeout_of(spec),
        )

    def _watch_readiness(self, spec: ServiceSpec) -> None:
        if self._children is not None:
            self._readying = self._children.create_task(self._become_ready(spec))

    async def _become_ready(self, spec: ServiceSpec) -> None:
        """Probe, register, and say 'ready' when the catalog shows it: only then does a DNS client find it."""
        if spec.oneshot:
            return
        await self._around.readiness.until_ready(spec)
        while True:
            try:
                await self._around.catalog.announce(spec, self.instance)
            except ConsulUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
            except CitadelError as error:
                self._say(replace(self.observed, detail=f"cannot be registered: {error}"))
                return
            else:
                break
        if self._exit is not None:
            return
        if self.observed.phase is Phase.STARTING:
            self._become(Phase.READY, ready_at=self._around.wall(), detail="")
            self._note("ready")
        elif self.observed.phase is Phase.DRAINING:
            self._become(Phase.READY)
            self._note("ready")

    async def _end_readying(self) -> None:
        task, self._readying = self._readying, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _reload(self, number: int) -> None:
        """Carry out an order to reload; what does not run reads its configuration when it starts."""
        error = ""
        if self.observed.alive:
            try:
                await self._around.backend.reload(self.instance)
            except CitadelError as refusal:
                error = str(refusal)
            self._note("reloaded" if not error else "not-reloaded")
        self._say(replace(self.observed, reloads=number, reload_error=error))

    # --- draining -----------------------------------------------------------------------------------------------

    async def _drain(self, wanted: Desired, spec: ServiceSpec) -> bool:
        """Let it finish what it has in hand; returns whether it is to be stopped then.

        It is not if another order has come meanwhile, unless that is one to stop after a drain as well.
        """
        now = self._around.wall()
        until = self.observed.drain_until or now + (wanted.drain_seconds or 0.0)
        if self.observed.phase is Phase.DRAINING:
            self._say(replace(self.observed, drain_until=until))
        else:
            self._become(Phase.DRAINING, drain_until=until, detail="")
            self._note("draining")
        async with asyncio.TaskGroup() as group:
            draining = group.create_task(self._until_drained(spec, until - now))
            while not draining.done() and self._exit is None and self._goes_on_draining():
                news = group.create_task(self._news.wait())
                await asyncio.wait({draining, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                self._news.clear()
            draining.cancel()
        self._news.set()
        return self._goes_on_draining()

    async def _until_drained(self, spec: ServiceSpec, seconds: float) -> None:
        def tell(count: int | None) -> None:
            self._say(replace(self.observed, in_flight=count))

        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._around.drainer.drain(spec, self.instance, self.observed.pid, tell)
        except TimeoutError:
            self._note("drain-timed-out")

    def _goes_on_draining(self) -> bool:
        newest = self._wanted
        return newest is not None and not newest.run and bool(newest.drain_seconds)

    def _serve_again(self, wanted: Desired) -> None:
        """What was to be stopped is wanted after all: have it found again."""
        generation = max(wanted.generation, self.observed.generation)
        self._say(replace(self.observed, generation=generation, drain_until=None, in_flight=None))
        spec = self._around.spec_of(self.instance.service)
        if spec is not None and (self._readying is None or self._readying.done()):
            self._watch_readiness(spec)

    # --- stopping -----------------------------------------------------------------------------------------------

    async def _stop(self, wanted: Desired) -> None:
        await self._end_readying()
        spec = self._around.spec_of(self.instance.service)
        if wanted.drain_seconds and spec is not None and self.observed.phase in (Phase.READY, Phase.DRAINING):
            if not await self._drain(wanted, spec):
                return
            wanted = self._wanted or wanted
        await self._quietly(self._around.catalog.withdraw(self.instance))
        if self.observed.alive:
            self._become(Phase.STOPPING, detail="")
            self._note("stopping")
            try:
                exit_ = await self._stop_by_order(wanted) or self._exit
            except (BackendUnavailable, BackendError) as error:
                self._say(replace(self.observed, detail=f"cannot be stopped: {error}"))
                await self._again_later()
                return
            code, signal = (None, None) if exit_ is None else (exit_.code, exit_.signal)
            detail = "" if exit_ is None else exit_.detail
            self._exit = None
            self._become(Phase.STOPPED, pid=None, unit=None, exit_code=code, exit_signal=signal, detail=detail)
            self._note("stopped")
        newest = self._wanted if self._wanted is not None and not self._wanted.run else wanted
        generation = max(wanted.generation, newest.generation)
        if self.observed.phase is not Phase.STOPPED:
            self._become(Phase.STOPPED, generation=generation, detail="")
        else:
            self._say(replace(self.observed, generation=generation))

    async def _stop_by_order(self, wanted: Desired) -> Exit | None:
        """Stop, and let a newer order shorten the grace of the stop that is under way."""
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(self._outcome_of_stop(wanted))
            while not stopping.done():
                news = group.create_task(self._news.wait())
                await asyncio.wait({stopping, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                if stopping.done():
                    break
                self._news.clear()
                newest = self._wanted
                if newest is not None and not newest.run and newest.generation > wanted.generation:
                    wanted = newest
                    group.create_task(self._outcome_of_stop(newest))
        self._news.set()
        outcome = stopping.result()
        if isinstance(outcome, CitadelError):
            raise outcome
        return outcome

    async def _outcome_of_stop(self, wanted: Desired) -> Exit | BackendUnavailable | BackendError | None:
        """Have the backend stop it. A failure is returned: out of a group of tasks it would come as another type."""
        try:
            return await self._around.backend.stop(self.instance, self._grace(wanted))
        except (BackendUnavailable, BackendError) as failure:
            return failure

    def _grace(self, wanted: Desired) -> float:
        if wanted.grace_seconds is not None:
            return wanted.grace_seconds
        return self._around.stop_timeout_of(self._around.spec_of(self.instance.service))

    async def _release(self, wanted: Desired) -> None:
        """Let go of what runs, as it is: it is watched, shown in the catalog and reported no longer."""
        await self._end_readying()
        await self._quietly(self._around.catalog.withdraw(self.instance))
        if not await self._given_back():
            return
        if self.observed.alive:
            self._note("released")
        self.observed = Observed(wanted.generation, Phase.STOPPED, self._around.wall())
        self._let_go = True
        self._around.forget(self.instance)

    async def _given_back(self) -> bool:
        """Have what was changed about it put back; returns False if that has to be tried again."""
        try:
            await self._around.backend.give_back(self.instance)
        except BackendUnavailable as error:
            self._say(replace(self.observed, detail=f"cannot be given back now: {error}"))
            await self._again_later()
            return False
        except CitadelError as error:  # it will not work later either, and whoever asked is not to wait for ever
            log.warning("%s is let go of, and not everything is as it was: %s", self.instance, error)
        return True

    # --- adopting -----------------------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        """Find out what is true now, whatever was last said, and say it."""
        spec = self._around.spec_of(self.instance.service)
        if spec is None:
            return
        while True:
            try:
                found = await self._around.backend.adopt(self._launch(spec, self.observed.generation))
            except BackendUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
            except CitadelError as error:
                self._say(replace(self.observed, detail=str(error)))
                return
            else:
                break
        await self._take_adopted(found, spec)

    async def _take_adopted(self, found: Adopted, spec: ServiceSpec) -> None:
        if isinstance(found, Running):
            self._say(found_running(self.observed, found, self._around.wall()))
            self._note("adopted")
            if self.observed.phase is Phase.READY:
                self._around.catalog.adopt(self.instance, spec)
            elif self.observed.phase is Phase.DRAINING:
                self._around.catalog.adopt_leaving(self.instance)
            else:
                self._watch_readiness(spec)
        elif isinstance(found, Gone):
            await self._take_gone(found, spec)
        else:
            self._say(replace(self.observed, detail=found.reason))

    async def _take_gone(self, found: Gone, spec: ServiceSpec) -> None:
        was_ready = self.observed.ready_at is not None
        ended = found_gone(self.observed, found, spec, self._around.wall())
        if ended is None:
            return
        self._say(ended)
        self._note(str(ended.phase))
        if ended.phase is Phase.EXITED and was_ready:
            await self._quietly(self._around.catalog.mark_down(spec, self.instance))

    # --- saying -------------------------------------------------------------------------------------------------

    def _become(self, phase: Phase, **changes: object) -> None:
        check_transition(self.observed.phase, phase)
        drain: dict[str, object] = {"drain_until": None, "in_flight": None}
        self._say(
            replace(unexamined(self.observed), phase=phase, since=self._around.wall(), **{**drain, **changes})  # type: ignore[arg-type]
        )

    def _fail(self, wanted: Desired, detail: str) -> None:
        self._become(Phase.FAILED, generation=wanted.generation, pid=None, unit=None, detail=detail)
        self._note("failed")

    def _note(self, what: str) -> None:
        """Put what was done or seen into the history."""
        self._around.note(what, self.instance, self.observed)

    def _say(self, observed: Observed) -> None:
        self.observed = observed
        self._around.report(self.instance, observed)

    async def _quietly(self, call: Awaitable[None]) -> None:
        """Tell the catalog, which may be absent: it is set right when it is back, and nothing waits for it."""
        try:
            await call
        except CitadelError:
            return

    async def _again_later(self) -> None:
        await asyncio.sleep(RETRY_SECONDS)
        self._news.set()
