from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, NoReturn

import pytest
from consul_process import ConsulProcess, ConsulSpace

from citadel_consul.consul.address import ConsulAddress, parse_address
from citadel_consul.consul.api import Indexed
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.consul.lease import Lease, TTLCheck, until_lost
from citadel_consul.consul.transaction import TxnOp, TxnResult, check_session, lock, set_key, unlock
from citadel_consul.errors import ConsulUnavailable, LeadershipLost

pytestmark = pytest.mark.consul

LONG = 60.0
SHORT = 0.5


def lease_of(client: ConsulClient, key: str, name: str, check_ttl_seconds: float = LONG) -> Lease:
    return Lease(client, key, name.encode(), TTLCheck("holder", f"holder-{name}", check_ttl_seconds))


@asynccontextmanager
async def waiting(lease: Lease) -> AsyncIterator[asyncio.Task[int]]:
    """The lease being acquired in the background, seen to be in the queue."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(lease.acquire())
        await asyncio.sleep(0)  # it starts, and forgets an earlier tenure
        async with asyncio.timeout(10):
            while lease.renewed_at == float("-inf"):  # noqa: ASYNC110  # it is another process that is waited for
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        yield task
        task.cancel()


async def test_a_free_lock_is_taken_and_its_epoch_is_the_index_of_the_write(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    lease = lease_of(client, consul.prefix + "leader", "a")
    with pytest.raises(LeadershipLost):
        _ = lease.epoch
    async with lease:
        epoch = await lease.acquire()
        entry = await client.kv_get(lease.key)
        assert entry is not None
        assert (entry.session, entry.value, entry.modify_index) == (lease.session, b"a", epoch)
        assert lease.held
        assert lease.epoch == epoch
        info = await client.session_info(lease.session)
        assert info is not None
        assert (info.node_checks, info.service_checks) == (("serfHealth",), (lease.check_id,))
        assert (info.lock_delay_seconds, info.ttl, info.behavior) == (0.0, "10000ms", "release")
        await client.transact([check_session(lease.key, lease.session), set_key(consul.prefix + "x", b"")])


async def test_leaving_gives_the_lock_back_before_it_ends_the_session_and_takes_the_service_out(
    client: ConsulClient, consul: ConsulSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = lease_of(client, consul.prefix + "leader", "a")
    held_at_the_end: list[str | None] = []
    destroy = client.session_destroy

    async def look_and_destroy(session: str) -> None:
        entry = await client.kv_get(lease.key)
        held_at_the_end.append(entry.session if entry is not None else None)
        await destroy(session)

    monkeypatch.setattr(client, "session_destroy", look_and_destroy)
    async with lease:
        epoch = await lease.acquire()
        session = lease.session
    entry = await client.kv_get(lease.key)
    assert entry is not None
    assert held_at_the_end == [None]  # let go of by ourselves, and not by the end of the session
    assert (entry.session, entry.value) == (None, b"a")
    assert entry.modify_index > epoch
    assert await client.session_info(session) is None
    assert await client.agent_services() == {}
    assert lease.lost.is_set()
    assert not lease.held


async def test_a_released_lock_is_handed_over_in_milliseconds_and_the_epoch_grows(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    first, second = (lease_of(client, consul.prefix + "leader", name) for name in "ab")
    async with first, second:
        epoch = await first.acquire()
        async with waiting(second) as task:
            assert not task.done()
            started = time.perf_counter()
            await first.release()
            later = await task
            elapsed = time.perf_counter() - started
    assert later > epoch
    assert elapsed < 1.0  # measured: 6 ms; a loaded machine is given time


async def test_the_epoch_grows_even_if_the_key_was_deleted_in_between(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    lease = lease_of(client, consul.prefix + "leader", "a")
    async with lease:
        epoch = await lease.acquire()
        await client.kv_delete(lease.key)
        with pytest.raises(LeadershipLost):
            await lease.keep()
        assert await lease.acquire() > epoch
        assert lease.held


async def test_a_holder_learns_at_once_that_its_session_was_destroyed(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    lease = lease_of(client, consul.prefix + "leader", "a")
    async with lease, asyncio.timeout(5):
        await lease.acquire()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(_lost_after(lease.keep()))
            await asyncio.sleep(0.1)
            assert not task.done()
            started = time.perf_counter()
            await client.session_destroy(lease.session)
            await task
        assert time.perf_counter() - started < 1.0
        assert lease.lost.is_set()
        epoch = lease.epoch
        assert await lease.acquire() > epoch
        assert not lease.lost.is_set()


async def test_a_loop_that_stops_beating_loses_the_lock_within_the_ttl_of_its_check(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    hung = lease_of(client, consul.prefix + "leader", "a", SHORT)
    standby = lease_of(client, consul.prefix + "leader", "b")
    async with hung, standby, asyncio.timeout(20):
        await hung.acquire()
        async with waiting(standby) as task:
            await hung.beat()
            await task
        with pytest.raises(LeadershipLost):
            await hung.keep()
        with pytest.raises(LeadershipLost):
            await client.transact([check_session(hung.key, hung.session), set_key(consul.prefix + "x", b"")])


async def test_a_beating_loop_keeps_the_lock_past_every_ttl_of_its_check(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    lease = lease_of(client, consul.prefix + "leader", "a", SHORT)
    async with lease:
        epoch = await lease.acquire()
        for _ in range(15):
            await lease.beat()
            await asyncio.sleep(SHORT / 5)
        entry = await client.kv_get(lease.key)
        assert entry is not None
        assert (entry.session, entry.modify_index) == (lease.session, epoch)


async def test_a_standby_keeps_its_own_session_alive_while_it_waits(client: ConsulClient, consul: ConsulSpace) -> None:
    holder = lease_of(client, consul.prefix + "leader", "a")
    standby = lease_of(client, consul.prefix + "leader", "b", SHORT)
    async with holder, standby:
        await holder.acquire()
        async with waiting(standby) as task:
            session = standby.session
            await asyncio.sleep(SHORT * 3)
            assert standby.session == session
            assert await client.session_info(session) is not None
            await holder.release()
            await task
            assert standby.session == session


async def test_a_standby_whose_session_was_taken_away_makes_another(client: ConsulClient, consul: ConsulSpace) -> None:
    holder, standby = (lease_of(client, consul.prefix + "leader", name) for name in "ab")
    async with holder, standby, asyncio.timeout(10):
        await holder.acquire()
        async with waiting(standby) as task:
            gone = standby.session
            await client.session_destroy(gone)
            await holder.release()
            await task
        assert standby.session != gone


async def test_a_session_of_ours_that_we_do_not_know_of_does_not_keep_us_from_the_lock(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    lease = lease_of(client, consul.prefix + "leader", "a")
    async with lease_of(client, consul.prefix + "leader", "b") as holder, lease:
        await holder.acquire()
        async with waiting(lease) as task:
            unknown = await client.session_create(
                lease.key, 10.0, service_checks=(lease.check_id,), lock_delay_seconds=0.0
            )
            await client.transact(
                [unlock(lease.key, b"b", holder.session), lock(lease.key, b"b", unknown)]  # as a leader hands over
            )
            async with asyncio.timeout(5):  # Consul itself ends it after ten to twenty seconds
                await task
        assert await client.session_info(unknown) is None
        assert await client.session_info(lease.session) is not None


async def test_a_deposed_holder_goes_back_into_the_queue_with_a_living_session(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    deposed, leader = (lease_of(client, consul.prefix + "leader", name) for name in "ab")
    async with deposed, leader:
        await deposed.acquire()
        gone = deposed.session
        await client.session_destroy(gone)
        await leader.acquire()
        async with waiting(deposed):
            assert deposed.session != gone
            assert await client.session_info(deposed.session) is not None


async def test_a_holder_that_was_killed_does_not_keep_its_lock_by_coming_back(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    killed = lease_of(client, consul.prefix + "agent", "a", SHORT)
    await killed.acquire()
    again = lease_of(client, consul.prefix + "agent", "a", SHORT)
    async with again, asyncio.timeout(8):  # less than the session's TTL: its check is what ends it
        await again.acquire()
        assert again.session != killed.session
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(again.keep())
            while set(await client.agent_checks()) != {again.check_id}:  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.01)
            keeping.cancel()


async def test_a_successor_that_knows_its_predecessor_dead_does_not_wait_for_it(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    killed = lease_of(client, consul.prefix + "agent", "a")
    epoch = await killed.acquire()
    check = TTLCheck("holder", "holder-a", LONG, supersede=True)
    again = Lease(client, consul.prefix + "agent", b"again", check)
    async with again, asyncio.timeout(5):
        assert await again.acquire() > epoch


def is_sure(lease: Lease) -> bool:
    """It changes without an assignment, which mypy does not expect of a property."""
    return lease.sure


async def test_after_a_pause_past_its_time_outs_a_holder_is_not_sure_until_its_session_answers(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    now = 1000.0
    check = TTLCheck("holder", "holder-a", LONG)
    lease = Lease(client, consul.prefix + "leader", b"a", check, 300.0, clock=lambda: now)
    async with lease:
        await lease.acquire()
        assert is_sure(lease)
        now += LONG + 1  # it was paused: another may have the lock by now
        assert not is_sure(lease)
        await lease.beat()
        assert not is_sure(lease)  # a sign of life does not bring back a session that its absence had ended
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(lease.keep())
            now += 300.0 / 3  # so that a renewal is due
            await lease.beat()
            async with asyncio.timeout(10):
                while not is_sure(lease):  # noqa: ASYNC110  # it is another process that is waited for
                    await asyncio.sleep(0.005)
            keeping.cancel()


async def test_who_waited_in_vain_takes_out_nothing_of_the_holder(client: ConsulClient, consul: ConsulSpace) -> None:
    key, check = consul.prefix + "leader", TTLCheck("holder", "holder-of-both", LONG)
    async with Lease(client, key, b"a", check) as holder:
        await holder.acquire()
        async with Lease(client, key, b"b", check) as second, waiting(second):
            pass
        assert set(await client.agent_checks()) == {holder.check_id}
        entry = await client.kv_get(key)
        assert entry is not None
        assert entry.session == holder.session


async def test_a_value_that_is_a_function_is_asked_at_each_tenure(client: ConsulClient, consul: ConsulSpace) -> None:
    values = iter([b"unused", b"first", b"second"])
    lease = Lease(client, consul.prefix + "leader", lambda: next(values), TTLCheck("holder", "holder-a", LONG))
    async with lease:
        for expected in (b"first", b"second"):
            await lease.acquire()
            entry = await client.kv_get(lease.key)
            assert entry is not None
            assert entry.value == expected
            await lease.release()


async def test_a_lock_delay_of_somebody_else_is_waited_out(client: ConsulClient, consul: ConsulSpace) -> None:
    lease = lease_of(client, consul.prefix + "leader", "a", SHORT)
    other = await client.session_create("other", lock_delay_seconds=1.0)
    await client.kv_put(lease.key, b"", acquire=other)
    await client.session_destroy(other)
    started = time.monotonic()
    async with lease, asyncio.timeout(15):
        await lease.acquire()
    assert time.monotonic() - started > 0.8


class SlowConsul(ConsulClient):
    """A real Consul whose answers take a minute of the clock on the wall that ``now`` is."""

    now = 1000.0

    async def session_create(self, name: str, ttl_seconds: float | None = None, **options: Any) -> str:
        created = await super().session_create(name, ttl_seconds, **options)
        self.now += 60
        return created

    async def check_update(self, check_id: str, status: str, output: str = "") -> None:
        await super().check_update(check_id, status, output)
        self.now += 60


async def test_a_renewal_counts_from_when_it_was_asked_for(consul: ConsulSpace) -> None:
    async with SlowConsul(parse_address(consul.address)) as client:
        check = TTLCheck("holder", "holder-a", LONG)
        async with Lease(client, consul.prefix + "leader", b"", check, clock=lambda: client.now) as lease:
            await lease.acquire()
            assert lease.renewed_at == 1000.0
            assert lease.safe_until == 1010.0
            asked_at = client.now
            lease.check = replace(check, ttl_seconds=3.0)
            await lease.beat()
            assert client.now == asked_at + 60
            assert lease.safe_until == min(1010.0, asked_at + 3.0)


class LateConsul(ConsulClient):
    """A real Consul that is told of signs of life late, and what is asked of it meanwhile."""

    LATE_SECONDS = 0.3

    def __init__(self, address: ConsulAddress) -> None:
        super().__init__(address)
        self.waits: list[float] = []
        self.told: list[str] = []

    async def check_update(self, check_id: str, status: str, output: str = "") -> None:
        self.told.append("sign of life")
        await super().check_update(check_id, status, output)
        await asyncio.sleep(self.LATE_SECONDS)

    async def transact(self, operations: Sequence[TxnOp]) -> TxnResult:
        self.told.append("lock")
        return await super().transact(operations)

    async def kv_read(
        self, key: str, index: int | None = None, wait_seconds: float | None = None, *, consistent: bool = False
    ) -> Indexed[KVEntry | None]:
        if index is not None and wait_seconds is not None:
            self.waits.append(wait_seconds)
        return await super().kv_read(key, index, wait_seconds, consistent=consistent)


async def test_a_standby_waits_until_its_next_sign_of_life_is_due_however_long_the_last_one_took(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    async with lease_of(client, consul.prefix + "leader", "a") as held:
        await held.acquire()
        async with LateConsul(parse_address(consul.address)) as late:
            standby = lease_of(late, consul.prefix + "leader", "b", check_ttl_seconds=1.5)
            async with standby, waiting(standby), asyncio.timeout(30):
                while len(late.waits) < 3:  # noqa: ASYNC110  # it is another task that is waited for
                    await asyncio.sleep(0.02)
    assert max(late.waits[1:]) <= 1.5 / 3 - LateConsul.LATE_SECONDS


async def test_a_lock_that_comes_late_is_taken_on_a_fresh_sign_of_life(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    async with lease_of(client, consul.prefix + "leader", "a") as held:
        await held.acquire()
        async with LateConsul(parse_address(consul.address)) as late:
            standby = lease_of(late, consul.prefix + "leader", "b", check_ttl_seconds=2 * LateConsul.LATE_SECONDS)
            async with standby, waiting(standby) as taking, asyncio.timeout(30):
                await held.release()
                await taking
                assert late.told[-2:] == ["sign of life", "lock"]


async def test_a_beat_registers_again_what_a_restarted_agent_forgot(client: ConsulClient, consul: ConsulSpace) -> None:
    lease = lease_of(client, consul.prefix + "leader", "a")
    async with lease:
        await lease.acquire()
        await client.deregister_service("holder-a")
        await lease.beat()
        assert set(await client.agent_services()) == {"holder-a"}
        assert (await client.agent_checks())[lease.check_id].status == "passing"
        with pytest.raises(LeadershipLost):
            await lease.keep()


async def test_a_lease_survives_the_end_of_its_consul_and_is_taken_anew(
    new_consul: Callable[..., ConsulProcess],
) -> None:
    server = new_consul()
    async with asyncio.timeout(60), ConsulClient(parse_address(server.address)) as client:
        lease = lease_of(client, "leader", "a")
        async with lease:
            await lease.acquire()
            async with asyncio.TaskGroup() as tasks:
                kept = tasks.create_task(_lost_after(lease.keep()))
                await asyncio.sleep(0.05)
                server.kill()
                with pytest.raises(ConsulUnavailable):
                    await lease.beat()
                assert not kept.done()
                await asyncio.to_thread(server.start)
                await kept
            assert lease.lost.is_set()
            await lease.acquire()
            assert lease.held


@pytest.mark.slow
async def test_a_holder_that_cannot_ask_for_a_whole_session_ttl_counts_its_lock_as_lost(
    new_consul: Callable[..., ConsulProcess],
) -> None:
    server = new_consul()
    async with ConsulClient(parse_address(server.address)) as client:
        lease = lease_of(client, "leader", "a")
        async with lease:
            await lease.acquire()
            server.suspend()
            try:
                with pytest.raises(LeadershipLost, match="could not be renewed for 10 s"):
                    await lease.keep()
                assert 9.5 < time.monotonic() - lease.renewed_at < 13
            finally:
                server.resume()


async def test_leaving_does_not_hang_on_a_consul_that_is_gone(new_consul: Callable[..., ConsulProcess]) -> None:
    server = new_consul()
    async with ConsulClient(parse_address(server.address)) as client:
        async with lease_of(client, "leader", "a") as lease:
            await lease.acquire()
            server.kill()
            started = time.monotonic()
        assert time.monotonic() - started < 5
        assert lease.lost.is_set()


async def test_a_cancelled_holder_still_gives_its_lock_back(client: ConsulClient, consul: ConsulSpace) -> None:
    lease = lease_of(client, consul.prefix + "leader", "a")
    acquired = asyncio.Event()

    async def hold() -> None:
        async with lease:
            await lease.acquire()
            acquired.set()
            await lease.keep()

    task = asyncio.create_task(hold())
    await acquired.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    entry = await client.kv_get(lease.key)
    assert entry is not None
    assert entry.session is None
    assert await client.agent_services() == {}


async def _lost_after(keeping: Awaitable[NoReturn]) -> None:
    with pytest.raises(LeadershipLost):
        await keeping


async def test_the_loss_of_a_lease_is_told_and_other_errors_are_raised() -> None:
    async def lose() -> None:
        async with asyncio.TaskGroup():
            raise LeadershipLost("gone")

    async def break_down() -> None:
        raise ZeroDivisionError

    assert str(await until_lost(lose())) == "gone"
    with pytest.raises(ZeroDivisionError):
        await until_lost(break_down())
    assert await until_lost(asyncio.sleep(0)) is None


async def test_a_holder_that_is_told_to_end_as_it_loses_its_lease_ends() -> None:
    """The group of tasks in it fails while it is cancelled, and then tells of its failure alone."""
    losing = asyncio.Event()

    async def lose_slowly() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            losing.set()
            await asyncio.sleep(0.01)

    async def lead() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(lose_slowly())
            await asyncio.sleep(0)
            raise LeadershipLost("gone")

    async def stand_by_and_lead() -> None:
        while True:
            await until_lost(lead())

    task = asyncio.ensure_future(stand_by_and_lead())
    await losing.wait()
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({task})
    assert task.cancelled()
