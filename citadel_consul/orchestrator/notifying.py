"""Notifying: what an incident comes to is told to everybody who is to hear of it, at least once.

The control loop only rings; everything else happens in tasks of their own, one for each receiver. A receiver that hangs
delays nobody: neither the loop nor the other receivers. What it missed is delivered when it is back, in order, unless
that takes too long. How long is tenacity's business: exponential with full jitter, bounded by the age of the notice.

A beginning is told a moment late: it may turn out to be part of another incident, and is told with that then.

Losing the leadership ends all of it in the middle. The next leader finds in the outbox what was not delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_random_exponential

from citadel_consul.core.actions import Action, RecordEvent, WriteIncident
from citadel_consul.core.healing.policy import policy_of
from citadel_consul.core.health import hold_on
from citadel_consul.core.incident import Incident
from citadel_consul.core.notice import Notice, Transition, due, due_at
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.errors import CitadelError, Conflict, ConsulUnavailable, TemporaryError
from citadel_consul.notification.channel import Channel
from citadel_consul.orchestrator.outbox import Outbox
from citadel_consul.orchestrator.writer import FencedWriter
from citadel_consul.store.postings import Delivery, DeliveryState
from citadel_consul.store.state import StackState

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How delivery is tried again: pauses double from ``first_seconds``, and it ends at an age of the notice."""

    first_seconds: float = 1.0
    longest_seconds: float = 60.0
    give_up_seconds: float = 3600.0


class Notifier:
    """Tells of the incidents of one stack, for one leadership. Run :meth:`run` in a task."""

    def __init__(
        self,
        outbox: Outbox,
        state: StackState,
        writer: FencedWriter,
        channels: Sequence[Channel],
        *,
        identity: str,
        wall: Callable[[], float],
        patience: Patience | None = None,
    ) -> None:
        self._outbox = outbox
        self._state = state
        self._writer = writer
        self._channels = {channel.name: channel for channel in channels}
        self._identity = identity
        self._wall = wall
        self._patience = patience or Patience()
        self._news = asyncio.Event()
        self._concerned: set[str] | None = None
        """The services whose incidents are to be looked at; None for all, as at the begin of a leadership."""
        self._bells = {channel.name: asyncio.Event() for channel in channels}

    def take(self, actions: Sequence[Action]) -> None:
        """Take note of what was decided and written; costs the control loop nothing."""
        written = {action.incident.service for action in actions if isinstance(action, WriteIncident)}
        if written:
            if self._concerned is not None:
                self._concerned |= written
            self._news.set()

    async def run(self) -> None:
        """Tell, until cancelled. Raises LeadershipLost when it is not ours any more to tell."""
        if not self._channels:
            return
        await self._outbox.load()
        async with asyncio.TaskGroup() as group:
            for channel in self._channels.values():
                group.create_task(self._serve(channel))
            while True:
                self._news.clear()
                look_again_at = await self._look()
                await self._until_news(look_again_at)

    # --- what is to be told -------------------------------------------------------------------------------------

    async def _look(self) -> float | None:
        """Post what is due; returns when (unix seconds) something will be that is not yet."""
        snapshot, now = self._state.snapshot(), self._wall()
        concerned, self._concerned = self._concerned, set()
        later: list[float] = []
        for service in snapshot.incidents if concerned is None else sorted(concerned & snapshot.incidents.keys()):
            incident = snapshot.incidents[service]
            transition = due(incident, self._outbox.said_of(incident.id))
            if transition is None:
                continue
            at = due_at(incident, transition, now, snapshot.defaults.notice_delay_seconds)
            if at > now:
                later.append(at)
                self._concerned.add(service)
            else:
                await self._post(snapshot, incident, transition)
        await self._outbox.trim({incident.id for incident in snapshot.digested().incidents.values()})
        return min(later, default=None)

    async def _until_news(self, at: float | None) -> None:
        """Wait until the control loop rings, or until ``at`` (unix seconds)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if at is None else max(0.0, at - self._wall())):
                await self._news.wait()

    async def _post(self, snapshot: Snapshot, incident: Incident, transition: Transition) -> None:
        receivers = {name for name, channel in self._channels.items() if transition in channel.when}
        if transition is Transition.CLOSED:
            receivers &= self._outbox.told_of(incident.id)
        notice = self._notice(snapshot, incident, transition)
        await self._outbox.post(notice, sorted(receivers))
        for name in receivers:
            self._bells[name].set()

    def _notice(self, snapshot: Snapshot, incident: Incident, transition: Transition) -> Notice:
        now = self._wall()
        spec = snapshot.specs.get(incident.service)
        held = [hold_on(snapshot, instance, now) is not None for instance in snapshot.instances(incident.service)]
        return Notice(
            transition=transition,
            incident=incident,
            at=now,
            stack=snapshot.stack,
            leader=self._identity,
            epoch=self._writer.epoch,
            critical=spec is None or spec.critical,
            automatic=spec is not None and policy_of(snapshot, spec.name).enabled and not all(held),
        )

    # --- telling ------------------------------------------------------------------------------------------------

    async def _serve(self, channel: Channel) -> None:
        """Deliver to one receiver what is addressed to it, one after the other."""
        bell = self._bells[channel.name]
        while True:
            bell.clear()
            posting = self._outbox.next_for(channel.name)
            if posting is None:
                await bell.wait()
                continue
            delivery = await self._deliver(channel, posting.notice)
            await self._outbox.settle(posting.notice.id, channel.name, delivery)
            if delivery.state is DeliveryState.FAILED:
                await self._record_failure(channel, posting.notice, delivery.error)

    async def _deliver(self, channel: Channel, notice: Notice) -> Delivery:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TemporaryError),
            wait=wait_random_exponential(multiplier=self._patience.first_seconds, max=self._patience.longest_seconds),
            stop=stop_after_delay(max(0.0, notice.at + self._patience.give_up_seconds - self._wall())),
            before_sleep=lambda state: _say_later(channel, state),
            reraise=True,
        )

        async def attempt() -> None:  # tenacity awaits only what it knows to be a coroutine function
            await channel.deliver(notice)

        try:
            await retrying(attempt)
        except CitadelError as error:
            return Delivery(DeliveryState.FAILED, self._wall(), str(error))
        return Delivery(DeliveryState.DELIVERED, self._wall())

    async def _record_failure(self, channel: Channel, notice: Notice, error: str) -> None:
        """Put it into the history, where an operator looks who wonders why nobody was told."""
        message = f"{channel.name} was not told of incident {notice.incident.id} ({notice.transition}): {error}"
        log.error(message)
        event = RecordEvent("notification-failed", message, service=notice.subject)
        try:
            await self._writer.commit([event], self._wall())
        except (ConsulUnavailable, Conflict) as failure:
            log.info("a failed notification is missing in the history: %s", failure)


def _say_later(channel: Channel, state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    log.warning("%s cannot be told now, trying again: %s", channel.name, error)
