"""What the leader wants of this node, and when it may be followed (invariant I3).

Two things have to hold before an order is followed. Its epoch must not be lower than the highest that was obeyed: an
order of a leader that was deposed since. And this agent must be sure that the lock of its node is still its own: an
agent that was paused for long may have a successor, and both would start the same services. An order that comes in
doubt is kept until the next sign of life has gone through, or the lock was taken again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from citadel_consul.agent.chronicle import Chronicle, Entry
from citadel_consul.agent.reporter import Reporter
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.consul.lease import Lease
from citadel_consul.consul.watch import Fresh, watch
from citadel_consul.core.lifecycle import Desired
from citadel_consul.store import documents
from citadel_consul.store.documents import Event, NodeDesired, UndecodableError
from citadel_consul.store.identifiers import new_id
from citadel_consul.store.keys import Keys

log = logging.getLogger(__name__)


class Orders:
    """Watches ``desired/<node>`` and has ``follow`` carry out what stands there, one call an instance."""

    def __init__(
        self,
        client: ConsulClient,
        keys: Keys,
        node: str,
        lease: Lease,
        reporter: Reporter,
        chronicle: Chronicle,
        follow: Callable[[str, Desired], None],
        wall: Callable[[], float],
    ) -> None:
        self._client = client
        self._key = keys.desired_of(node)
        self._node = node
        self._lease = lease
        self._reporter = reporter
        self._chronicle = chronicle
        self._follow = follow
        self._wall = wall
        self._latest: KVEntry | None = None
        self._waiting = False
        self._in_force: NodeDesired | None = None

    @property
    def epoch(self) -> int:
        """The epoch of the orders that are followed: not the highest known, which could not tell an old one."""
        return self._in_force.epoch if self._in_force is not None else self._reporter.document.epoch

    def name(self, service: str) -> bool:
        """Whether the orders in force say anything of a service; they may while none is in force."""
        return self._in_force is None or service in self._in_force.instances

    async def run(self, seen: Callable[[], None]) -> None:
        """Watch until cancelled; ``seen`` is called after each look at the orders, also if there are none."""
        async for news in watch(lambda index, wait: self._client.kv_read(self._key, index, wait)):
            if isinstance(news, Fresh):
                self._latest = news.value
                self._consider()
                seen()

    def look_again(self) -> None:
        """Take what was kept back, if the lock is known to be held by now."""
        if self._waiting:
            self._consider()

    def begin_anew(self) -> None:
        """Consul lost its data: epochs count from the beginning, and orders refused for theirs are looked at again."""
        self._chronicle.write(Entry(self._wall(), "new-log", self._node, "", 0, 0))
        self._in_force = None
        self._consider()

    def _consider(self) -> None:
        self._waiting = not self._lease.sure
        if self._latest is not None and not self._waiting:
            self._take(self._latest)

    def _take(self, entry: KVEntry) -> None:
        try:
            wanted = documents.DESIRED.decode(entry.value)
        except UndecodableError as error:
            log.warning("the orders for this node cannot be read, and nothing is changed: %s", error)
            return
        if wanted.epoch < self._reporter.document.epoch:
            self._refuse(wanted)
            return
        self._reporter.obeyed(wanted.epoch)
        self._in_force = wanted
        for service, desired in wanted.instances.items():
            self._follow(service, desired)

    def _refuse(self, wanted: NodeDesired) -> None:
        now, highest = self._wall(), self._reporter.document.epoch
        self._chronicle.write(Entry(now, "refused", self._node, "", 0, wanted.epoch))
        message = f"refused orders of epoch {wanted.epoch}: epoch {highest} was obeyed already"
        log.warning(message)
        self._reporter.record(
            Event(new_id(now), now, "orders-refused", message, f"agent {self._node}", node=self._node)
        )
