"""Two schedules that chance would seldom find, each aimed at one line of defence of invariant I3.

They are played at the beginning of every campaign, on the same stack and with the same judge as the random rounds.
"""

from __future__ import annotations

from dataclasses import replace

from campaign import Lane
from consul_proxy import Hold
from verdict import Verdict

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import Instance
from citadel_consul.core.operation import Kind
from citadel_consul.store import documents
from citadel_consul.store.documents import NodeDesired
from citadel_consul.store.keys import Keys

TAKEN_OVER = 3
"""The write of a standby that comes after its lock and after its word that it leads."""


def late_write(lane: Lane) -> Verdict:
    """A leader is paused in the middle of a write, which reaches Consul when its successor has just begun to lead.

    The successor is held up before it writes anything to the documents of the nodes: their compare-and-set would hide
    that the fence is gone.
    """
    crew, world = lane.crew, lane.crew.world
    leader, before = crew.leader(), world.until_led()["epoch"]
    world.until(lambda: _seen_at_work(lane, before), 30.0, "the leader to say that it leads")
    standbys = [role for role in crew.orchestrators if role is not leader]
    for role in crew.orchestrators:
        role.proxy.writes = 0
    hold = leader.proxy.hold = Hold(1, leader.process.pause)
    for role in standbys:
        role.proxy.hold = Hold(TAKEN_OVER)
    asked = world.request(Kind.STARTUP)
    lane.requested.append(asked)
    world.until(hold.caught.is_set, 30.0, "the leader's first write for the operation")
    world.until(lambda: (found := world.leader()) is not None and found["epoch"] > before, 30.0, "a successor")
    lane.audit.look(world)
    world.until(lambda: any(role.proxy.writes >= TAKEN_OVER for role in standbys), 120.0, "a successor to act")
    status = hold.let_go()
    lane.audit.look(world)
    verdict = lane.finish()
    if status != 409:
        verdict.broken.append(f"I3: Consul answered {status} to a write of a deposed leader")
    return verdict


def _seen_at_work(lane: Lane, epoch: int) -> bool:
    """Whether the leader of ``epoch`` has written anything, which is then in the audit."""
    lane.audit.look(lane.crew.world)
    return any(stamp.epoch == epoch for stamp in lane.audit.stamps)


def old_order(lane: Lane) -> Verdict:
    """Orders of a deposed leader lie in the store, as if there were no fence: the node agent has to refuse them."""
    world, instance = lane.crew.world, Instance("db", "n1")
    lane.requested.append(world.request(Kind.STARTUP))
    world.end_of(lane.requested[-1], 120.0)
    lane.audit.look(world)
    current = _read(lane, instance.node)
    old = max(epoch for epoch in lane.audit.epochs if epoch < current.epoch)
    stop = replace(current.instances[instance.service], run=False, generation=1000)
    refusals = _noted(lane, "refused")
    _write(lane, instance.node, NodeDesired(old, {**current.instances, instance.service: stop}))
    world.until(lambda: _noted(lane, "refused") > refusals or _stopped(lane, instance), 30.0, "the agent to look at it")
    # In the name of whoever leads now: it need not be who wrote these orders, and ours must not look like a late write.
    _write(lane, instance.node, replace(current, epoch=world.until_led()["epoch"]))
    return lane.finish()


def _noted(lane: Lane, what: str) -> int:
    return sum(entry.what == what for entry in lane.crew.world.chronicle())


def _stopped(lane: Lane, instance: Instance) -> bool:
    last = [e.what for e in lane.crew.world.chronicle() if (e.service, e.node) == instance][-1]
    return last in ("stopping", "stopped")


def _read(lane: Lane, node: str) -> NodeDesired:
    async def read(client: ConsulClient) -> NodeDesired:
        entry = await client.kv_get(Keys(lane.crew.world.stack).desired_of(node))
        assert entry is not None
        return documents.DESIRED.decode(entry.value)

    return lane.crew.world.ask(read)


def _write(lane: Lane, node: str, document: NodeDesired) -> None:
    async def write(client: ConsulClient) -> None:
        await client.kv_put(Keys(lane.crew.world.stack).desired_of(node), documents.DESIRED.encode(document))

    lane.crew.world.ask(write)
