"""The one function by which a leader writes (invariant I3).

Every transaction begins with ``check-session`` on the leader lock: Consul itself refuses the write of a leader that
was deposed, however late it arrives and whatever the leader believes. Nothing else in this package writes as leader,
which a test of the sources checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.transaction import TxnOp, TxnResult, check_session


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write of one leadership: ``session`` is the one that has to hold the lock ``leader_key``."""

    client: ConsulClient
    leader_key: str
    session: str

    async def write(self, operations: Sequence[TxnOp]) -> TxnResult:
        """Carry out ``operations`` (63 at most) if the lock is still held, or none of them.

        Raises:
            LeadershipLost: another session holds the lock; nothing was written.
            Conflict: somebody else changed a key meanwhile; nothing was written.
            ConsulUnavailable: no answer; the transaction may or may not have been carried out.
        """
        return await self.client.transact([check_session(self.leader_key, self.session), *operations])
