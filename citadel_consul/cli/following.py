"""Following an operation through bad times: a leader that is gone, a Consul that does not answer.

An operation lives in Consul and not in who watches it. Both are therefore waited out for a while, and said; past that
the watching ends with an error that tells how to take it up again, while the operation stays what it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from citadel_consul.core.operation import Operation, OperationState
from citadel_consul.errors import ConsulUnavailable, NoLeader

if TYPE_CHECKING:
    from citadel_consul.consul.client import ConsulClient
    from citadel_consul.store.keys import Keys

LEADER_SECONDS = 15.0
"""How long an operation may stand still without a leader before it is said that nobody leads. A failover takes a
second; the session of a leader whose node died takes ten."""
CONSUL_SECONDS = 15.0
"""How long Consul may be away: an election among its servers takes some seconds."""
QUIET_SECONDS = 2.0
"""After how long without news it is looked whether anybody leads at all."""
RETRY_SECONDS = 0.5


async def follow_patiently(
    client: ConsulClient, keys: Keys, operation_id: str, say: Callable[[str], None] | None = None
) -> AsyncGenerator[Operation, None]:
    """The operation each time that it changed, until its end; what is waited out is told to ``say``.

    Raises NoLeader or ConsulUnavailable when patience is at its end.
    """
    from citadel_consul.store.requests import follow

    tell = say if say is not None else _to_standard_error
    leader = _LeaderWatch(client, keys, tell)
    away_since: float | None = None
    while True:
        try:
            async with aclosing(follow(client, keys, operation_id)) as changes:  # type: ignore[type-var]
                async for operation in changes:
                    away_since = None
                    yield operation
                    if operation.ended:
                        return
                    await leader.look(operation)
        except ConsulUnavailable as error:
            now = time.monotonic()
            if away_since is None:
                away_since = now
                tell(f"Consul does not answer; the operation goes on without us ({error})")
            if now - away_since > CONSUL_SECONDS:
                raise ConsulUnavailable(f"{error}; {how_to_go_on(operation_id)}") from error
            await asyncio.sleep(RETRY_SECONDS)


def how_to_go_on(operation_id: str) -> str:
    """What to tell somebody who stops watching an operation before its end."""
    return (
        f"operation {operation_id} goes on without you: `citadel ops show {operation_id} --follow` takes it up again, "
        f"`citadel ops cancel {operation_id}` ends it"
    )


class _LeaderWatch:
    """Notices that an operation stands still because nobody leads."""

    def __init__(self, client: ConsulClient, keys: Keys, say: Callable[[str], None]) -> None:
        self._client = client
        self._keys = keys
        self._say = say
        self._last: Operation | None = None
        self._quiet_since = time.monotonic()
        self._said = False

    async def look(self, operation: Operation) -> None:
        """Take in where the operation stands now. Raises NoLeader."""
        now = time.monotonic()
        if operation != self._last or operation.waits_for is not None:
            self._last, self._quiet_since, self._said = operation, now, False
            return
        quiet = now - self._quiet_since
        if quiet < QUIET_SECONDS or await self._is_seen_to(operation):
            return
        if quiet > LEADER_SECONDS:
            raise NoLeader(
                f"no orchestrator {_verb(operation)} operation {operation.id} within {LEADER_SECONDS:g} s; it stays "
                f"requested, and goes on as soon as one leads (`citadel ops cancel {operation.id}` takes it back)"
            )
        if not self._said:
            self._said = True
            self._say(f"no orchestrator {_verb(operation)} it yet; waiting up to {LEADER_SECONDS:g} s for one")

    async def _is_seen_to(self, operation: Operation) -> bool:
        if operation.state is OperationState.PENDING:
            return False
        entry = await self._client.kv_get(self._keys.leader)
        return entry is not None and entry.session is not None


def _verb(operation: Operation) -> str:
    return "has taken" if operation.state is OperationState.PENDING else "works on"


def _to_standard_error(text: str) -> None:
    click.echo(text, err=True)
