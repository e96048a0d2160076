"""One orchestrator: a standby that may become the leader, as often as that happens.

Losing the leadership cancels what the leader was doing and nothing else: the process goes on as a standby.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from citadel_consul import __version__
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.lease import Lease, TTLCheck, until_lost
from citadel_consul.core.snapshot import Defaults
from citadel_consul.notification.channel import Channel
from citadel_consul.orchestrator.handover import SERVICE_NAME, hand_over_on_request
from citadel_consul.orchestrator.loop import ControlLoop, Turns
from citadel_consul.orchestrator.rival import RivalWatch
from citadel_consul.store import documents
from citadel_consul.store.documents import LeaderRecord
from citadel_consul.store.keys import Keys
from citadel_consul.telemetry.supervision import Supervision

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OrchestratorConfig:
    """Who this orchestrator is. ``api`` is the ``host:port`` at which the others reach it."""

    stack: str
    node: str
    api: str
    defaults: Defaults
    check_ttl_seconds: float = 2.0
    session_ttl_seconds: float = 10.0

    @property
    def id(self) -> str:
        """Unique among orchestrators: two cannot listen on one port of one node."""
        return f"{self.node}:{self.api.rpartition(':')[2]}"


class Orchestrator:
    """Stands by, leads when it is its turn, and stands by again."""

    def __init__(
        self,
        client: ConsulClient,
        config: OrchestratorConfig,
        *,
        channels: Sequence[Channel] = (),
        wall: Callable[[], float] = time.time,
        supervision: Supervision | None = None,
    ) -> None:
        self.config = config
        self._channels = channels
        self._supervision = supervision or Supervision()
        self.started_at = wall()
        self._client = client
        self._wall = wall
        self._keys = Keys(config.stack)
        self._lease: Lease | None = None
        self._loop: ControlLoop | None = None
        self._step_down = asyncio.Event()

    @property
    def leading(self) -> bool:
        """Whether this orchestrator leads, as far as it knows."""
        return self._lease is not None and self._lease.held

    @property
    def epoch(self) -> int | None:
        """The epoch of its leadership, if it leads."""
        return self._lease.epoch if self._lease is not None and self._lease.held else None

    @property
    def turns(self) -> Turns:
        """How its control loop has done in the present leadership."""
        return self._loop.turns if self._loop is not None else Turns()

    async def run(self) -> None:
        """Stand by and lead, until cancelled; the lock is given back on the way out."""
        self._supervision.ready(self._standing_by())
        while True:
            lease = Lease(self._client, self._keys.leader, self._record, self._check(), self.config.session_ttl_seconds)
            async with lease:
                await self._stand_by(lease)
                self._lease = lease
                try:
                    lost = await until_lost(self._lead(lease))
                finally:
                    self._lease = self._loop = None
                log.warning("no longer the leader: %s", lost)

    async def _stand_by(self, lease: Lease) -> None:
        """Wait for the lock, and free it if its holder is proven dead."""
        self._supervision.say(self._standing_by())
        async with asyncio.TaskGroup() as group:
            rival = group.create_task(RivalWatch(self._client, self._keys.leader, self.config.id).run())
            await lease.acquire()
            rival.cancel()

    async def _lead(self, lease: Lease) -> None:
        log.info("leading stack %s with epoch %d", self.config.stack, lease.epoch)
        self._supervision.say(f"leading stack {self.config.stack} with epoch {lease.epoch}")
        with self._supervision.watching("the control loop") as pulse:
            self._loop = ControlLoop(
                self._client,
                self.config.stack,
                self.config.defaults,
                lease,
                identity=self.config.id,
                wall=self._wall,
                channels=self._channels,
                on_round=pulse.beat,
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(lease.keep())
                group.create_task(hand_over_on_request(self._client, self.config.stack, lease))
                group.create_task(self._loop.run())

    def _standing_by(self) -> str:
        return f"standing by for stack {self.config.stack}"

    def _record(self) -> bytes:
        return documents.LEADER.encode(
            LeaderRecord(
                id=self.config.id,
                node=self.config.node,
                api=self.config.api,
                since=self._wall(),
                version=__version__,
            )
        )

    def _check(self) -> TTLCheck:
        host, _, port = self.config.api.rpartition(":")
        return TTLCheck(
            service_name=SERVICE_NAME,
            service_id=f"{SERVICE_NAME}.{self.config.stack}.{self.config.id}",
            ttl_seconds=self.config.check_ttl_seconds,
            address=host.strip("[]"),
            port=int(port),
            tags=(self.config.stack,),
            meta={"citadel-role": "orchestrator", "citadel-stack-name": self.config.stack},
            supersede=True,
        )
