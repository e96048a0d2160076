"""The control loop of a leader: observe, decide, act, and say that it comes round.

It runs for one leadership and keeps nothing beyond it: a new leader reads everything afresh. The loop sleeps until a
watch rings, a decision asked to be woken, or it has to come round; however many things change meanwhile, it looks
once. Signs of life are given only while it comes round, so that a loop which hangs loses the lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.lease import Lease
from citadel_consul.core.actions import Action, RecordEvent, WakeAt
from citadel_consul.core.decide import decide
from citadel_consul.core.operation import OperationState
from citadel_consul.core.snapshot import Defaults
from citadel_consul.errors import Conflict, ConsulUnavailable
from citadel_consul.notification.channel import Channel
from citadel_consul.orchestrator.backoff import Backoffs
from citadel_consul.orchestrator.feed import Feed
from citadel_consul.orchestrator.fence import Fence
from citadel_consul.orchestrator.gossip import Gossip
from citadel_consul.orchestrator.heartbeat import Heartbeat
from citadel_consul.orchestrator.housekeeping import Housekeeping
from citadel_consul.orchestrator.notifying import Notifier
from citadel_consul.orchestrator.outbox import Outbox
from citadel_consul.orchestrator.writer import FencedWriter
from citadel_consul.store.reading import read_state, read_steps
from citadel_consul.store.state import StackState
from citadel_consul.telemetry.fields import about

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.2
LOOK_SECONDS = 10.0
"""How often the loop decides although nothing has changed and no decision asked for it."""
MARGIN_SECONDS = 0.001
"""Added to a wake-up, so that a clock that is a hair early does not make two turns of one."""


def _tell_log(actions: Sequence[Action]) -> None:
    """Put what went into the history of the stack into the log as well."""
    for action in actions:
        if isinstance(action, RecordEvent):
            fields = about(service=action.service, operation=action.operation, event=action.kind)
            log.info("%s", action.message, extra=fields)


@dataclass(frozen=True, slots=True)
class Turns:
    """How the loop has done so far, for the metrics."""

    turns: int = 0
    transactions: int = 0
    decide_seconds: float = 0.0


class ControlLoop:
    """Leads one stack for as long as ``lease`` is held. Run :meth:`run`; it ends by cancellation or LeadershipLost.

    ``on_round`` is called each time that the loop comes round, also while Consul does not answer.
    """

    def __init__(
        self,
        client: ConsulClient,
        stack: str,
        defaults: Defaults,
        lease: Lease,
        *,
        identity: str,
        wall: Callable[[], float],
        channels: Sequence[Channel] = (),
        on_round: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._stack = stack
        self._on_round = on_round
        self._defaults = defaults
        self._lease = lease
        self._identity = identity
        self._wall = wall
        self._channels = channels
        self._listeners: tuple[Callable[[Sequence[Action]], None], ...] = ()
        self._bell = asyncio.Event()
        self._round_seconds = lease.check.ttl_seconds / 3
        self._heartbeat = Heartbeat(lease.beat, self._round_seconds)
        self._backoffs = Backoffs()
        self._caught_up: frozenset[str] = frozenset()
        """The pending operations of which is known what was written before them."""
        self._settled = False
        """Whether the last look found nothing to be done; if not, the next comes in any case."""
        self.turns = Turns()

    async def run(self) -> None:
        """Read everything and say who leads, then turn until the leadership ends."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeat.run())
            # Who leads is said while everything is read: nothing is decided before both are done.
            saying = group.create_task(self._announce(self._writer(StackState(self._stack, self._defaults))))
            state = await self._read()
            await saying
            writer = self._writer(state)
            feed = Feed(self._client, state, self._bell)
            notifier, gossip = self._notifier(state, writer), Gossip(self._client, state)
            self._listeners = (notifier.take, gossip.take)
            group.create_task(feed.run())
            group.create_task(Housekeeping(self._client, state, writer).run())
            group.create_task(notifier.run())
            group.create_task(gossip.run())
            await self._turn_for_ever(state, writer, feed)

    def _writer(self, state: StackState) -> FencedWriter:
        fence = Fence(self._client, state.keys.leader, self._lease.session)
        return FencedWriter(fence, state, epoch=self._lease.epoch, identity=self._identity)

    def _notifier(self, state: StackState, writer: FencedWriter) -> Notifier:
        outbox = Outbox(self._client, state.keys, writer)
        return Notifier(outbox, state, writer, self._channels, identity=self._identity, wall=self._wall)

    async def _read(self) -> StackState:
        while True:
            try:
                return await read_state(self._client, self._stack, self._defaults)
            except ConsulUnavailable as error:
                log.warning("cannot read the stack yet: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                self._come_round()

    async def _announce(self, writer: FencedWriter) -> None:
        """Say who leads. Without an answer it is said again, perhaps twice: it must not be missing from the history."""
        took_over = RecordEvent("leader-elected", f"{self._identity} leads with epoch {self._lease.epoch}")
        while True:
            try:
                await writer.commit([took_over], self._wall())
            except ConsulUnavailable as error:
                log.warning("cannot say yet who leads: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                self._come_round()
            else:
                return

    async def _turn_for_ever(self, state: StackState, writer: FencedWriter, feed: Feed) -> None:
        wake_at: float | None = None
        looked_at = float("-inf")
        loop = asyncio.get_running_loop()
        self._bell.set()
        while True:
            rung = await self._rest(wake_at)
            self._come_round()
            due = wake_at is not None and wake_at <= self._wall()
            if self._settled and not rung and not due and loop.time() - looked_at < LOOK_SECONDS:
                continue  # the same facts, so the same decision: nothing is to be done
            looked_at = loop.time()
            if feed.take_rewritten():
                await self._read_again(state)
            try:
                await self._load_steps(state)
                await self._catch_up(state)
            except ConsulUnavailable as error:  # an operation without its steps would look like one that is done
                log.warning("cannot read what an operation is about yet: %s", error)
                wake_at = self._wall() + RETRY_SECONDS
                continue
            wake_at = await self._turn(state, writer)

    async def _turn(self, state: StackState, writer: FencedWriter) -> float | None:
        """Decide and act once; returns when to look again at the latest (unix seconds)."""
        loop = asyncio.get_running_loop()
        now = self._wall()
        began = loop.time()
        snapshot = state.snapshot()
        seen = replace(snapshot, backoffs=self._backoffs.of(snapshot, now), moved=state.take_moved())
        actions = decide(seen, now)
        took = loop.time() - began
        wake_at = next((a.at for a in actions if isinstance(a, WakeAt)), None)
        self._settled = all(isinstance(action, WakeAt) for action in actions)
        transactions = 0
        try:
            transactions = await self._act(writer, actions, now)
        except (Conflict, ConsulUnavailable) as error:
            log.info("a decision was not written, looking again: %s", error)
            await self._look_again(state)
        self.turns = Turns(
            self.turns.turns + 1, self.turns.transactions + transactions, self.turns.decide_seconds + took
        )
        return wake_at

    async def _act(self, writer: FencedWriter, actions: list[Action], now: float) -> int:
        if self._settled:
            return 0
        count = await writer.commit(actions, now)
        for listener in (_tell_log, *self._listeners):
            listener(actions)
        return count

    async def _look_again(self, state: StackState) -> None:
        """Read everything that a lost or doubtful write could have touched, before deciding anew."""
        await asyncio.sleep(RETRY_SECONDS)
        await self._read_again(state)

    async def _read_again(self, state: StackState) -> None:
        """Read what only leaders write, which is not watched."""
        state.forget_moved()
        keys = state.keys
        try:
            for prefix in (keys.desired, keys.operations, keys.incidents, keys.stats):
                listing = await self._client.kv_list(prefix)
                state.merge(prefix, listing.index, listing.value, restarted=True)
            state.steps.clear()
        except ConsulUnavailable as error:
            log.warning("cannot read the stack: %s", error)
        self._bell.set()

    async def _catch_up(self, state: StackState) -> None:
        """Read what was written before an operation was asked for, whose watch may be quicker than those of the rest.

        Whoever applies a service and then starts the stack means the stack with that service.
        """
        while (pending := self._pending(state)) - self._caught_up:
            for prefix in (state.keys.specs, state.keys.edges, state.keys.holds):
                listing = await self._client.kv_list(prefix, consistent=True)
                state.merge(prefix, listing.index, listing.value)
            self._caught_up = pending

    def _pending(self, state: StackState) -> frozenset[str]:
        return frozenset(o.id for o in state.all_operations() if o.state is OperationState.PENDING)

    async def _load_steps(self, state: StackState) -> None:
        """Read the steps of operations that another leader began, or that were begun in doubt."""
        for operation in state.all_operations():
            if operation.ended:
                state.steps.pop(operation.id, None)
            elif operation.step_count and len(operation.steps) < operation.step_count:
                state.steps[operation.id] = await read_steps(self._client, state.keys, operation.id)

    async def _rest(self, wake_at: float | None) -> bool:
        """Sleep until the bell rings, ``wake_at`` comes, or the loop has to come round; returns whether it has rung."""
        pause = self._round_seconds
        if wake_at is not None:
            pause = min(pause, max(0.0, wake_at - self._wall()) + MARGIN_SECONDS)
        try:
            async with asyncio.timeout(pause):
                await self._bell.wait()
        except TimeoutError:
            return False
        else:
            return True
        finally:
            self._bell.clear()

    def _come_round(self) -> None:
        self._heartbeat.come_round()
        self._on_round()
