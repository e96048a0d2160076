"""The life of a stack under ``citadel dev``: up, in use, down in order.

Everything goes through operations in KV, as for anybody else; what makes it the stack's whole life is who asks for
them, and when. A failure on the way up is no reason to leave things lying about: whatever fails, what follows is the
ordered stop, and then the failures are told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from citadel_consul.cli.interruption import Interruption
from citadel_consul.cli.invocation import caller
from citadel_consul.cli.progress import follow_to_end, raise_unless_succeeded
from citadel_consul.cli.smoke import Smoke, send_smoke
from citadel_consul.cli.terminal import Terminal
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.operation import ALL, Kind, Operation, OperationState, Options
from citadel_consul.core.snapshot import Defaults
from citadel_consul.errors import CitadelError, ConsulUnavailable, OperationFailed, Refused
from citadel_consul.store.keys import Keys
from citadel_consul.store.requests import cancel, submit, wait_for_end
from citadel_consul.store.state import StackState

T = TypeVar("T")

OUTAGE_SECONDS = 30.0
"""How long a Consul that went away is waited for; it is started again within a second or two."""
RETRY_SECONDS = 0.3
CANCEL_SECONDS = 2.0
"""How long it may take to have an operation taken back before it is left to the next leader."""


@dataclass
class Lifetime:
    """One stack on one Consul, seen through by one ``citadel dev``. ``failures`` is what went wrong so far."""

    client: ConsulClient
    stack: str
    terminal: Terminal
    interruption: Interruption
    failures: list[CitadelError] = field(default_factory=list)

    @property
    def _keys(self) -> Keys:
        return Keys(self.stack)

    async def start(self, *, changed: bool) -> Operation | None:
        """Bring everything up; None if that was interrupted.

        What an earlier run left unfinished is seen through first. If that was this very startup, and the stack has not
        ``changed`` since, there is nothing more to do.
        """
        if self.interruption.asked:
            return None
        for left in await self._unfinished():
            self.terminal.say(f"finishing {left.kind} {left.id}, which an earlier run began")
            ended = await self._unless_interrupted(left)
            if ended is None:
                return None
            whole = ended.kind is Kind.STARTUP and ended.targets == (ALL,)
            if whole and ended.state is OperationState.SUCCEEDED and not changed:
                return ended
        started = await self._unless_interrupted(await self._submit(Kind.STARTUP))
        if started is not None:
            self._note(started)
        return started

    async def use(self, smoke: Smoke | None) -> None:
        """Send the one request that shows the stack to be of use."""
        if smoke is None:
            return
        reply = await self.interruption.unless_asked(send_smoke(smoke))
        if reply is None:
            self.failures.append(OperationFailed("interrupted before the request was answered"))
            return
        for line in smoke.describe(reply):
            self.terminal.say(line)

    async def stop(self) -> None:
        """Take everything down in order. Cancelled, it takes the request back and leaves what still runs."""
        operation = await self._submit(Kind.SHUTDOWN)
        try:
            self._note(await self._follow(operation))
        except asyncio.CancelledError:
            await self._take_back(operation)
            raise

    @asynccontextmanager
    async def noting_failures(self) -> AsyncIterator[None]:
        """Keep an error for later, and go on."""
        try:
            yield
        except* CitadelError as group:
            self.failures += _leaves(group)

    def _note(self, operation: Operation) -> None:
        try:
            raise_unless_succeeded(operation)
        except OperationFailed as error:
            self.failures.append(error)

    async def _unfinished(self) -> list[Operation]:
        listing = await self._patiently(lambda: self.client.kv_list(self._keys.operations))
        state = StackState(self.stack, Defaults())
        state.merge(self._keys.operations, listing.index, listing.value)
        return [operation for operation in state.all_operations() if not operation.ended]

    async def _submit(self, kind: Kind) -> Operation:
        return await self._patiently(
            lambda: submit(self.client, self._keys, kind, (ALL,), Options(), requested_by=caller())
        )

    async def _unless_interrupted(self, operation: Operation) -> Operation | None:
        """Follow an operation to its end; if an ordered stop is asked for, take it back instead."""
        ended = await self.interruption.unless_asked(self._follow(operation))
        if ended is None:
            await self._take_back(operation)
        return ended

    async def _follow(self, operation: Operation) -> Operation:
        display = self.terminal.display()
        return await self._patiently(lambda: follow_to_end(self.client, self._keys, operation, display))

    async def _take_back(self, operation: Operation) -> None:
        """Ask for the end of an operation, and wait a moment for it: a startup that goes on would bar the way down."""
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await cancel(self.client, self._keys, operation.id, by=caller())
                await wait_for_end(self.client, self._keys, operation.id, timeout_seconds=CANCEL_SECONDS)
        except (TimeoutError, ConsulUnavailable, Refused):
            return  # it has ended just now, or the next leader will see the request

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Wait out an absence of Consul, which ``citadel dev`` starts again."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(ConsulUnavailable),
            wait=wait_fixed(RETRY_SECONDS),
            stop=stop_after_delay(OUTAGE_SECONDS),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                return await call()
        raise AssertionError("unreachable: the last failure is raised")


def _leaves(group: BaseExceptionGroup[CitadelError]) -> list[CitadelError]:
    """The errors of a group, whatever groups they are in."""
    found: list[CitadelError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
