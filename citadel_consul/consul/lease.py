"""A lease: a lock in KV that its holder loses when it dies, when it hangs, and when it is cut off.

Three things hold it, and the first to fail lets go:

- ``serfHealth``: the node is gone;
- a TTL check that the holder's own loop feeds with :meth:`Lease.beat`, so that a loop which hangs is as good as dead;
- the session's TTL, renewed by :meth:`Lease.keep`: the last resort, ten seconds and up to twice that.

The session has no lock delay: what keeps a deposed holder from doing harm is the fence (``check_session`` first in each
of its transactions), not the clock. The epoch is the ``modify_index`` of the lock key as the locking transaction
returns it, since the raft index grows even if the key was deleted in between, which starts ``lock_index`` again.

The check's id is unique to this object. A holder that was killed and comes back under the same service id must not
feed the check of its predecessor, or it would keep the dead session, and with it the lock, alive.

Time is taken on a monotonic clock *before* the call that renews: a renewal counts from when it was asked for, not from
when its answer arrived.

    lease = Lease(consul, "citadel/demo/leader", value, TTLCheck("citadel-orchestrator", "orchestrator-7"))
    async with lease:
        epoch = await lease.acquire()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lease.keep())  # raises LeadershipLost, which cancels the group
            tasks.create_task(control_loop(lease, epoch))  # calls lease.beat()
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from citadel_consul.consul.catalog import PASSING
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.consul.transaction import lock, unlock
from citadel_consul.consul.watch import Backoff, Sleep, next_index
from citadel_consul.errors import CitadelError, Conflict, ConsulUnavailable, LeadershipLost, NotFound, TemporaryError

log = logging.getLogger(__name__)

SESSION_TTL_SECONDS: Final = 10.0
_GOODBYE_SECONDS: Final = 3.0
_MAKE_WAY_SECONDS: Final = 0.1
"""Between giving the lock back and the rest of the goodbye, which the successor's first writes would queue behind."""
_SHORTEST_WAIT_SECONDS: Final = 0.1
_REWRITTEN_SECONDS: Final = 0.5
"""How long a key that its holder has rewritten is left before it is looked at again: it may rewrite it once more."""
_BACKOFF: Final = Backoff(longest_seconds=2.0)


@dataclass(frozen=True, slots=True)
class TTLCheck:
    """The check that the holder's loop feeds, and the service that it belongs to.

    ``ttl_seconds``: two by default, because a starved machine must not depose its leader. A session bound to it is
    gone about ``ttl_seconds`` after the last beat. ``service_id`` is one that survives a restart of the holder and that
    no other holder has, so that it does not leave ghosts behind. ``supersede`` says that whoever held a lease under
    this ``service_id`` before is known to be dead (its port or its file lock was free to take): registering then ends
    its session at once, and nobody has to wait for its TTL.
    """

    service_name: str
    service_id: str
    ttl_seconds: float = 2.0
    address: str = ""
    port: int = 0
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    supersede: bool = False


async def until_lost(work: Coroutine[Any, Any, None]) -> CitadelError | None:
    """Do what needs a lease. Returns the error if the lease or Consul was lost, ``None`` if ``work`` came to its end.

    Anything else is raised, and a cancellation always passes through. That is why ``work`` has a task of its own: a
    group of tasks that fails at the very moment at which it is cancelled tells of its failure alone (before Python
    3.13), and who goes on after that failure would never hear of the SIGTERM.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_look_at)  # a cancellation can end this at any moment, and then nobody asks for the error
    try:
        await asyncio.wait({task})
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    error = task.exception()
    if isinstance(error, BaseExceptionGroup):
        lost, other = error.split((LeadershipLost, ConsulUnavailable))
        if other is not None:
            raise other
        error = lost
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is not None and not isinstance(error, LeadershipLost | ConsulUnavailable):
        raise error
    return error


def _look_at(task: asyncio.Task[None]) -> None:
    """Have asyncio not complain of an error that nobody asked for."""
    if not task.cancelled():
        task.exception()


class Lease:
    """The lock on ``key``, written with ``value`` while it is held. One task at a time acquires and keeps it.

    A ``value`` that is a function is asked anew each time that the lock is taken.
    ``lost`` is set from the moment it is known that the lock is gone until it is acquired again.
    ``session_ttl_seconds`` is at least 10, which is Consul's floor.
    """

    def __init__(
        self,
        client: ConsulClient,
        key: str,
        value: bytes | Callable[[], bytes],
        check: TTLCheck,
        session_ttl_seconds: float = SESSION_TTL_SECONDS,
        *,
        backoff: Backoff = _BACKOFF,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.key = key
        self._make_value = value if callable(value) else lambda: value
        self.value = self._make_value()
        self.check = check
        self.check_id = f"{check.service_id}:alive:{uuid.uuid4().hex[:8]}"
        self.lost = asyncio.Event()
        self._client = client
        self._ttl = session_ttl_seconds
        self._backoff = backoff
        self._jitter = jitter
        self._clock = clock
        self._sleep = sleep
        self._session: str | None = None
        self._epoch: int | None = None
        self._index: int | None = None
        self._registered = False
        self._renewed_at = float("-inf")
        self._beaten_at = float("-inf")
        self._doubted = False
        self._foreign: str | None = None
        """The session that holds the lock, if it is known to be somebody else's."""

    @property
    def held(self) -> bool:
        """Whether the lock is held as far as is known here; only Consul knows for sure."""
        return self._epoch is not None and not self.lost.is_set()

    @property
    def session(self) -> str:
        """The session that holds the lock: what the fence compares. Raises ``LeadershipLost`` without one."""
        if self._session is None:
            raise LeadershipLost(f"no session for {self.key}")
        return self._session

    @property
    def epoch(self) -> int:
        """The fencing token of this tenure. Raises ``LeadershipLost`` before the first."""
        if self._epoch is None:
            raise LeadershipLost(f"{self.key} was not acquired")
        return self._epoch

    @property
    def renewed_at(self) -> float:
        """When the last successful renewal was asked for, on the monotonic clock."""
        return self._renewed_at

    @property
    def safe_until(self) -> float:
        """Until when, on the monotonic clock, neither TTL can have run out. Past it the lock may be somebody else's."""
        return min(self._renewed_at + self._ttl, self._beaten_at + self.check.ttl_seconds)

    @property
    def sure(self) -> bool:
        """Whether the lock cannot be anybody else's: it is held, and no time-out can have run out without our notice.

        After a pause that was longer than the check's TTL this is false until the session was found to be alive.
        """
        return self.held and not self._doubted and self._clock() < self.safe_until

    async def acquire(self) -> int:
        """Wait for the lock and take it; returns the epoch. Outages are waited out; a refusal by Consul is raised.

        While it waits it feeds the check itself. From its return on that is the caller's.
        """
        self._epoch = self._index = None
        # A session of an earlier tenure may be gone: ask before waiting with it, not when the lock is already free.
        self._renewed_at = float("-inf")
        failures = 0
        while self._epoch is None:
            try:
                await self._stand_by()
                self._epoch = await self._try_lock()
                failures = 0
            except TemporaryError as error:
                failures += 1
                self._index = None  # what was seen before says nothing any more: look before waiting
                log.debug("cannot take %s yet: %s", self.key, error)
                await self._sleep(self._backoff.seconds(failures, error, self._jitter()))
        self._index = None
        self._doubted = False
        self.lost.clear()
        return self._epoch

    async def keep(self) -> NoReturn:
        """Renew the session and watch the key until the lock is gone; then set ``lost`` and raise ``LeadershipLost``.

        Without a renewal for the session's TTL the lock counts as gone, whatever Consul would say if it could be asked.
        """
        try:
            async with asyncio.timeout(self._left) as deadline:
                await self._bury_predecessors()
                await self._keep_while(deadline)
        except TimeoutError:
            self.lost.set()
            raise LeadershipLost(f"{self.key} could not be renewed for {self._ttl:g} s") from None
        except CitadelError:
            self.lost.set()
            raise

    async def beat(self) -> None:
        """Say that the caller's loop is alive. Call it more often than the check's TTL, from the loop itself.

        Registers the check again where a restarted agent forgot it. Raises ``ConsulUnavailable`` if Consul does.
        """
        now = self._clock()
        self._doubted |= now - self._beaten_at > self.check.ttl_seconds
        try:
            await self._client.check_update(self.check_id, PASSING)
        except NotFound:
            await self._register()
        self._beaten_at = now

    async def release(self) -> None:
        """Give the lock back, then end the session: in this order, because ending a session can start a lock delay."""
        session, self._session = self._session, None
        held, self._epoch = self._epoch is not None, None
        self.lost.set()
        if session is None:
            return
        if held:
            try:
                await self._client.transact([unlock(self.key, self.value, session)])
            except Conflict:
                log.debug("%s was lost before it was released", self.key)
            else:
                await self._sleep(_MAKE_WAY_SECONDS)
        await self._client.session_destroy(session)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock and take the service out of the agent. What cannot be said to Consul, its TTLs will say."""
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self.release()
                if self._registered:
                    await self._take_out()
        except (TimeoutError, CitadelError) as failure:
            log.warning("could not release %s: %s", self.key, failure)

    async def _take_out(self) -> None:
        """Take our check out of the agent, and the service unless another holder is registered under it."""
        if await self._checks_of_others():
            await self._client.deregister_check(self.check_id)
        else:
            await self._client.deregister_service(self.check.service_id)

    async def _checks_of_others(self) -> list[str]:
        ours = f"{self.check.service_id}:alive:"
        return [i for i in await self._client.agent_checks() if i.startswith(ours) and i != self.check_id]

    @property
    def _left(self) -> float:
        return self._renewed_at + self._ttl - self._clock()

    async def _stand_by(self) -> None:
        """Have a living check and a living session: what it takes to be handed the lock within milliseconds."""
        if self._registered:
            await self.beat()
        else:
            await self._register()
        if self._session is not None and self._clock() - self._renewed_at < self._ttl / 3:
            return
        if self._session is not None and await self._renew():
            return
        self._session = None
        now = self._clock()
        self._session = await self._client.session_create(
            self.key, self._ttl, service_checks=(self.check_id,), lock_delay_seconds=0.0
        )
        self._renewed_at = now

    async def _try_lock(self) -> int | None:
        """Take the lock if it is free, else wait for the key to move (or for the next beat to be due)."""
        # Counted from when the last beat was asked for: of a Consul that is late, the lock comes late as well, and by
        # then the check must have enough time left for the first beat of the tenure.
        due = self._beaten_at + self.check.ttl_seconds / 3 - self._clock()
        entry = await self._read(max(due, _SHORTEST_WAIT_SECONDS))
        if entry is not None and entry.session is not None and entry.session != self._session:
            await self._disown(entry.session)
            return None
        if self._clock() - self._beaten_at > self.check.ttl_seconds / 3:
            await self.beat()  # Consul is late, or we are: a tenure that begins with an old sign of life ends at once
        try:
            self.value = self._make_value()
            result = await self._client.transact([lock(self.key, self.value, self.session)])
        except Conflict:
            # Somebody was faster; or the key is free and still refused: a lock delay, or our own session is gone.
            if await self._client.session_info(self.session) is None:
                self._session = None
            raise
        return result.entry(self.key).modify_index

    async def _disown(self, session: str) -> None:
        """End ``session`` if it is our own without our knowing: the answer to its creation was lost on the way.

        It hangs on our check, so as long as we live it does, too, until its TTL; and whoever hands the lock over to us
        may have chosen it.
        """
        if session != self._foreign:
            info = await self._client.session_info(session)
            if info is not None and self.check_id in info.service_checks:
                log.warning("%s is held by a session of ours that we did not know of: it is ended", self.key)
                await self._client.session_destroy(session)
            self._foreign = session

    async def _bury_predecessors(self) -> None:
        """Take away the checks of earlier lives of this holder, which would keep its service critical for ever."""
        try:
            for check_id in await self._checks_of_others():
                await self._client.deregister_check(check_id)
        except TemporaryError as error:
            log.warning("checks of an earlier %s may be left: %s", self.check.service_id, error)

    async def _keep_while(self, deadline: asyncio.Timeout) -> NoReturn:
        failures, seen = 0, None
        while True:
            left = self._left
            deadline.reschedule(asyncio.get_running_loop().time() + left)
            try:
                due = left - self._ttl * 2 / 3
                if due <= 0:
                    if not await self._renew():
                        raise LeadershipLost(f"the session that held {self.key} is gone")
                    continue
                entry = await self._read(max(due, _SHORTEST_WAIT_SECONDS))
                failures = 0
            except TemporaryError as error:
                failures += 1
                await self._sleep(self._backoff.seconds(failures, error, self._jitter()))
                continue
            if entry is None or entry.session != self._session:
                raise LeadershipLost(f"{self.key} is no longer held by session {self._session}")
            if seen not in (None, entry.modify_index):
                await self._sleep(_REWRITTEN_SECONDS)
            seen = entry.modify_index

    async def _read(self, wait_seconds: float) -> KVEntry | None:
        answer = await self._client.kv_read(self.key, self._index, wait_seconds)
        self._index = next_index(self._index, answer.index)
        return answer.value

    async def _renew(self) -> bool:
        now = self._clock()
        alive = await self._client.session_renew(self.session)
        if alive:
            self._renewed_at = now
            self._doubted = False
        return alive

    async def _register(self) -> None:
        check = {"CheckID": self.check_id, "Name": "alive", "TTL": f"{self.check.ttl_seconds:g}s", "Status": PASSING}
        now = self._clock()
        await self._client.register_service(
            {
                "ID": self.check.service_id,
                "Name": self.check.service_name,
                "Address": self.check.address,
                "Port": self.check.port,
                "Tags": list(self.check.tags),
                "Meta": dict(self.check.meta),
                "Checks": [check],
            },
            replace_checks=self.check.supersede and not self._registered,
        )
        self._registered = True
        self._beaten_at = now
