"""The real redis and the real postgres, and what the services do with them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import ai_platform
import pytest
from consul_process import ConsulSpace
from services.application import Connections
from services.database import Database
from services.failures import Unavailable
from services.postgres_files import Installation, find_installation
from services.postgres_server import Account, cluster_folder, reachable
from services.rate_limit import take
from services.redis_link import RedisLink
from services.settings import BadSetting, Settings
from services.work_queue import WorkQueue, put

PASSWORD = "only for tests"


@contextmanager
def redis_at(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {"PORT": str(port), "DATA_DIR": str(folder / "redis")}
    with ai_platform.launched("services.redis_server", environment, folder / "redis.log") as process:
        yield process


@contextmanager
def postgres_at(port: int, folder: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    folders = {"DATA_DIR": str(folder / "postgresql"), "SHARED_STATE_DIR": str(folder / "shared")}
    environment = {"PORT": str(port), **folders, "POSTGRES_PASSWORD": PASSWORD, **more}
    with ai_platform.launched("services.postgres_server", environment, folder / "postgresql.log") as process:
        yield process


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = ai_platform.free_ports(1)[0]
    with redis_at(port, tmp_path_factory.mktemp("redis")):
        yield port


@pytest.fixture
async def link(consul: ConsulSpace, redis_port: int) -> AsyncIterator[RedisLink]:
    async with ai_platform.connections_to(consul, redis=redis_port) as connections:
        made = RedisLink(connections.resolver)
        async with made.client() as client:
            await client.flushall()
        yield made
        await made.close()


def database_of(connections: Connections, password: str = PASSWORD) -> Database:
    return Database(Settings("test", port=1, environ={"POSTGRES_PASSWORD": password}), connections.resolver)


def stop(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    process.send_signal(number)
    return process.wait(10)


async def test_a_bucket_lets_its_burst_through_and_then_says_when_to_come_back(link: RedisLink) -> None:
    verdicts = [await take(link, "client", per_minute=6, burst=3) for _ in range(4)]
    assert [verdict.allowed for verdict in verdicts] == [True, True, True, False]
    assert [verdict.remaining for verdict in verdicts] == [2, 1, 0, 0]
    assert 9.0 < verdicts[-1].retry_after_seconds <= 10.0


async def test_tokens_come_back_with_time(link: RedisLink) -> None:
    while (await take(link, "client", per_minute=600, burst=2)).allowed:
        pass
    async with link.client() as client:
        # As if the last request had been 0.15 s earlier: redis's own clock cannot be set.
        at = float(await client.hget("ai-platform:bucket:client", "at") or 0)
        await client.hset("ai-platform:bucket:client", "at", str(at - 0.15))
    assert (await take(link, "client", per_minute=600, burst=2)).allowed


async def test_many_gateways_at_once_do_not_share_a_token_twice(link: RedisLink) -> None:
    verdicts = await asyncio.gather(*(take(link, "client", per_minute=1, burst=5) for _ in range(20)))
    assert sum(verdict.allowed for verdict in verdicts) == 5


async def test_clients_have_buckets_of_their_own(link: RedisLink) -> None:
    assert (await take(link, "one", per_minute=1, burst=1)).allowed
    assert (await take(link, "two", per_minute=1, burst=1)).allowed


async def test_work_is_given_out_once_and_gone_when_done(link: RedisLink) -> None:
    await WorkQueue(link, "work", "group", "a").open()
    await put(link, "work", {"n": "1"})
    one, other = WorkQueue(link, "work", "group", "a"), WorkQueue(link, "work", "group", "b")
    items = await one.take(10, wait_ms=0)
    assert [item.fields for item in items] == [{"n": "1"}]
    assert await other.take(10, wait_ms=0) == []
    await one.done(items)
    assert await one.unfinished(10) == []
    assert await one.size() == 0


async def test_work_that_was_not_finished_comes_again_with_the_same_id(link: RedisLink) -> None:
    queue = WorkQueue(link, "work", "group", "a")
    await queue.open()
    await queue.open()
    await put(link, "work", {"n": "1"})
    taken = await queue.take(10, wait_ms=0)
    assert await WorkQueue(link, "work", "group", "a").unfinished(10) == taken


async def test_work_abandoned_by_another_is_taken_over_after_its_time_only(link: RedisLink) -> None:
    dead, heir = WorkQueue(link, "work", "group", "dead"), WorkQueue(link, "work", "group", "heir")
    await dead.open()
    identity = await put(link, "work", {"n": "1"})
    taken = await dead.take(10, wait_ms=0)
    assert await heir.abandoned(10) == []
    async with link.client() as client:
        await client.execute_command("XCLAIM", "work", "group", "dead", 0, identity, "IDLE", 60_000)  # type: ignore[no-untyped-call]
    assert await heir.abandoned(10) == taken


async def test_redis_keeps_its_data_through_a_stop_and_its_client_finds_it_again(
    consul: ConsulSpace, tmp_path: Path
) -> None:
    port = ai_platform.free_ports(1)[0]
    async with ai_platform.connections_to(consul, redis=port) as connections:
        link = RedisLink(connections.resolver)
        with redis_at(port, tmp_path) as process:
            async with link.client() as client:
                await client.set("key", b"kept")
            assert stop(process, signal.SIGTERM) == 0
        with pytest.raises(Unavailable, match="redis"):
            await link.probe()
        with redis_at(port, tmp_path):
            async with link.client() as client:
                assert await client.get("key") == b"kept"
        await link.close()


@pytest.fixture(scope="module")
def postgres_folder() -> Iterator[Path]:
    with ai_platform.open_folder() as folder:
        yield folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with ai_platform.open_folder() as made:
        yield made


async def answering(database: Database) -> None:
    """Return when the database takes queries: some milliseconds after its port is open."""
    async with asyncio.timeout(5.0):
        while True:
            try:
                return await database.probe()
            except Unavailable:
                await asyncio.sleep(0.01)


async def test_postgres_keeps_its_data_through_stop_and_kill(consul: ConsulSpace, postgres_folder: Path) -> None:
    port = ai_platform.free_ports(1)[0]
    async with ai_platform.connections_to(consul, postgresql=port) as connections:
        database = database_of(connections)
        with postgres_at(port, postgres_folder) as process:
            await answering(database)
            await database.ensure("CREATE TABLE IF NOT EXISTS t (n integer PRIMARY KEY)")
            await database.execute_many("INSERT INTO t VALUES (%s)", [(1,), (2,)])
            assert stop(process, signal.SIGINT) == 0
        with pytest.raises(Unavailable, match="postgresql"):
            await database.rows("SELECT 1")
        with postgres_at(port, postgres_folder) as process:
            await answering(database)
            await database.execute("INSERT INTO t VALUES (%s)", [3])
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        with postgres_at(port, postgres_folder):
            await answering(database)
            assert await database.rows("SELECT n FROM t ORDER BY n") == [{"n": 1}, {"n": 2}, {"n": 3}]
        await database.close()
    last_start = (postgres_folder / "postgresql.log").read_text().rpartition("starting PostgreSQL")[2]
    assert "listening on" in last_start
    assert "was interrupted" not in last_start, "the port was open before the crash was recovered from"


async def test_an_idle_connection_that_broke_is_made_anew_unnoticed(consul: ConsulSpace, postgres_folder: Path) -> None:
    port = ai_platform.free_ports(1)[0]
    async with ai_platform.connections_to(consul, postgresql=port) as connections:
        database, other = database_of(connections), database_of(connections)
        with postgres_at(port, postgres_folder):
            await answering(database)
            mine = await database.rows("SELECT pg_backend_pid() AS pid")
            await other.execute("SELECT pg_terminate_backend(%s, 5000)", [mine[0]["pid"]])
            assert await database.rows("SELECT pg_backend_pid() AS pid") != mine
            await database.close()
            await other.close()


async def test_a_failed_transaction_leaves_nothing_and_its_connection_is_not_reused(
    consul: ConsulSpace, postgres_folder: Path
) -> None:
    port = ai_platform.free_ports(1)[0]
    async with ai_platform.connections_to(consul, postgresql=port) as connections:
        database = database_of(connections)
        with postgres_at(port, postgres_folder):
            await answering(database)
            await database.ensure("CREATE TABLE IF NOT EXISTS u (n integer PRIMARY KEY)")
            with pytest.raises(Exception, match="duplicate key"):
                await database.execute_many("INSERT INTO u VALUES (%s)", [(1,), (1,)])
            assert await database.rows("SELECT * FROM u") == []
            await database.close()


async def test_postgres_asks_for_the_password(consul: ConsulSpace, postgres_folder: Path) -> None:
    port = ai_platform.free_ports(1)[0]
    async with ai_platform.connections_to(consul, postgresql=port) as connections:
        database = database_of(connections)
        with postgres_at(port, postgres_folder):
            await answering(database)
            await database.close()
            with pytest.raises(Unavailable, match="password authentication failed"):
                await database_of(connections, "wrong").rows("SELECT 1")


def test_postgres_without_a_password_does_not_start(tmp_path: Path) -> None:
    with postgres_at(ai_platform.free_ports(1)[0], tmp_path, POSTGRES_PASSWORD="") as process:
        assert process.wait(10) == 1
    assert "POSTGRES_PASSWORD must be set" in (tmp_path / "postgresql.log").read_text()


def test_an_unfinished_initialisation_is_begun_anew(folder: Path) -> None:
    account = Account.choose("")
    unfinished = cluster_folder(folder / "postgresql", account, folder / "shared") / "unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    for path in (unfinished, unfinished / "PG_VERSION"):
        os.chown(path, account.uid, account.gid)
    with postgres_at(ai_platform.free_ports(1)[0], folder) as process:
        assert process.poll() is None
        assert stop(process, signal.SIGINT) == 0


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


@needs_root
def test_a_folder_that_the_unprivileged_user_cannot_enter_gets_a_link_to_one_that_it_can(folder: Path) -> None:
    account = Account.choose("")
    closed, shared = folder / "closed", folder / "shared"
    closed.mkdir(mode=0o700)
    cluster = cluster_folder(closed / "data", account, shared)
    assert cluster.parent == shared
    assert (cluster.stat().st_uid, cluster.stat().st_mode & 0o777) == (account.uid, 0o700)
    assert cluster_folder(closed / "data", account, shared) == cluster
    assert (closed / "data" / "cluster").readlink() == cluster


@needs_root
def test_a_server_that_the_unprivileged_user_cannot_read_is_copied_once(folder: Path) -> None:
    account = Account.choose("")
    closed, shared = folder / "closed", folder / "shared"
    closed.mkdir(mode=0o700)
    out_of_reach = find_installation(folder).copy_to(closed)
    assert not account.can(out_of_reach.usable)
    copy = reachable(out_of_reach, account, shared)
    assert copy.home.is_relative_to(shared)
    assert account.can(copy.usable)
    before = Path(copy.program("postgres")).stat().st_ino
    assert reachable(out_of_reach, account, shared) == copy
    assert Path(copy.program("postgres")).stat().st_ino == before


@needs_root
def test_giving_up_root_happens_in_the_child_that_asks(folder: Path) -> None:
    account = Account.choose("")
    secret = folder / "secret"
    secret.touch(mode=0o600)
    assert not account.can(lambda: os.access(secret, os.R_OK))
    assert os.geteuid() == 0


def test_a_cluster_of_a_version_that_nobody_has_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("9\n")
    with pytest.raises(BadSetting, match="no postgres 9 for the cluster"):
        find_installation(tmp_path)


def test_an_installation_without_programs_is_not_usable(tmp_path: Path) -> None:
    assert not Installation(tmp_path, 18).usable()
