"""Handing the leadership over on request, without a moment in which nobody leads.

An operator writes a request that names the epoch to be ended, so that a request which comes late, or is found by a
later leader, means nothing. The leader gives the lock to a standby in one transaction: its own fence, the release,
and the acquisition for the other's session. The standby, which waits on that key, finds itself holding the lock and
takes it over as its own, with an epoch of its own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.lease import Lease
from citadel_consul.consul.transaction import lock, unlock
from citadel_consul.consul.watch import Fresh, watch
from citadel_consul.errors import Conflict, ConsulRefused, ConsulUnavailable, Refused
from citadel_consul.orchestrator.fence import Fence
from citadel_consul.store import documents
from citadel_consul.store.documents import HandoverRequest, UndecodableError
from citadel_consul.store.keys import Keys

log = logging.getLogger(__name__)

SERVICE_NAME = "citadel-orchestrator"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An orchestrator that stands by with a living session. ``id`` is ``<node>:<port>``."""

    id: str
    session: str

    @property
    def node(self) -> str:
        return self.id.rpartition(":")[0]

    def answers_to(self, name: str) -> bool:
        """Whether ``name`` means it: its node, its id, or anybody (empty)."""
        return name in ("", self.id, self.node)


async def candidates(client: ConsulClient, stack: str) -> tuple[Candidate, ...]:
    """Every orchestrator of ``stack`` with a session, the leader included."""
    prefix = f"{SERVICE_NAME}.{stack}."
    found = [
        Candidate(check.removeprefix(prefix).partition(":alive:")[0], session.id)
        for session in await client.session_list()
        for check in session.service_checks
        if check.startswith(prefix)
    ]
    return tuple(sorted(found, key=lambda candidate: candidate.id))


async def request_handover(client: ConsulClient, stack: str, to: str, by: str) -> int:
    """Ask the leader to hand over to the node or orchestrator ``to``, or to any; returns the epoch that will end.

    Raises Refused if nobody leads, or nobody of that name stands by.
    """
    keys = Keys(stack)
    entry = await client.kv_get(keys.leader)
    if entry is None or entry.session is None:
        raise Refused(f"stack {stack!r} has no leader")
    standbys = [c for c in await candidates(client, stack) if c.session != entry.session]
    if not any(candidate.answers_to(to) for candidate in standbys):
        known = ", ".join(candidate.id for candidate in standbys) or "nobody"
        wanted = f"{to!r} does not stand by" if to else "nobody could take over"
        raise Refused(f"{wanted}: standing by is {known}")
    request = HandoverRequest(epoch=entry.modify_index, to=to, by=by)
    await client.kv_put(keys.handover, documents.HANDOVER.encode(request))
    return entry.modify_index


async def hand_over_on_request(client: ConsulClient, stack: str, lease: Lease) -> None:
    """Watch for a request that names this leadership, and carry it out; whoever keeps the lease notices the loss."""
    keys = Keys(stack)
    async for news in watch(lambda index, wait: client.kv_read(keys.handover, index, wait)):
        if not isinstance(news, Fresh) or news.value is None:
            continue
        try:
            request = documents.HANDOVER.decode(news.value.value)
        except UndecodableError as error:
            log.warning("the request to hand over %s", error)
            continue
        if request.epoch == lease.epoch:
            await _hand_over(client, stack, lease, request)


async def _hand_over(client: ConsulClient, stack: str, lease: Lease, request: HandoverRequest) -> None:
    keys = Keys(stack)
    try:
        for candidate in await candidates(client, stack):
            if candidate.session != lease.session and candidate.answers_to(request.to):
                log.info("handing over to %s, as %s asked", candidate.id, request.by)
                await Fence(client, keys.leader, lease.session).write(
                    [
                        unlock(keys.leader, lease.value, lease.session),
                        lock(keys.leader, lease.value, candidate.session),
                    ]
                )
                return
        log.warning("cannot hand over to %r: it does not stand by any more", request.to)
    except (Conflict, ConsulRefused, ConsulUnavailable) as error:
        log.warning("could not hand over: %s", error)
