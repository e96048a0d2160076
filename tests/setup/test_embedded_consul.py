"""The embedded Consul on the real thing: what it keeps, what it survives, what it refuses."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.embedded import EmbeddedConsul
from citadel_consul.consul.ports import LOOPBACK, OFF, Ports, free_ports
from citadel_consul.consul.process import ProcessIdentity, RunningProcess, find_by_argument, identify
from citadel_consul.consul.record import Record
from citadel_consul.consul.server_config import server_config
from citadel_consul.errors import ConsulUnavailable, InvalidInput, Refused

pytestmark = pytest.mark.consul

# A starter that can be killed: it runs the embedded Consul, says where it is, and waits.
STARTER = """
import asyncio, sys
from pathlib import Path
from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.embedded import EmbeddedConsul

async def main(data_dir, path, version):
    async with EmbeddedConsul(Path(data_dir), ConsulBinary(Path(path), version, "")) as consul:
        print(consul.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def data_dir(tmp_path: Path, consul_binary: ConsulBinary) -> Path:
    """A data directory whose first ports are free ones: the standard ones may belong to somebody."""
    directory = tmp_path / "consul"
    directory.mkdir()
    nobody = ProcessIdentity(1, 0, "an earlier boot")
    Record(consul_binary.version, free_ports(), nobody, "").save(directory)
    return directory


async def put(consul: EmbeddedConsul, key: str, value: str) -> None:
    async with httpx.AsyncClient(base_url=consul.url) as client:
        (await client.put(f"/v1/kv/{key}", content=value)).raise_for_status()


async def get(consul: EmbeddedConsul, key: str) -> str | None:
    async with httpx.AsyncClient(base_url=consul.url) as client:
        response = await client.get(f"/v1/kv/{key}?raw")
    return response.text if response.status_code == 200 else None


@asynccontextmanager
async def starter(data_dir: Path, binary: ConsulBinary) -> AsyncIterator[int]:
    """A process that runs an embedded Consul, killed at the end; gives the pid of that Consul."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, data_dir, binary.path, binary.version, stdout=subprocess.PIPE
    )
    try:
        if process.stdout is None:
            raise RuntimeError("no pipe")
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


async def test_it_is_ready_for_sessions_when_it_is_entered(data_dir: Path, consul_binary: ConsulBinary) -> None:
    async with (
        EmbeddedConsul(data_dir, consul_binary, node="n1") as consul,
        httpx.AsyncClient(base_url=consul.url) as client,
    ):
        session = await client.put("/v1/session/create", json={"LockDelay": "0s", "Checks": ["serfHealth"]})
        assert session.status_code == 200, session.text
        ui = await client.get(consul.ui_url or "", follow_redirects=True)
        assert ui.status_code == 200
        assert "<html" in ui.text.lower()
        agent = (await client.get("/v1/agent/self")).json()
    assert agent["Config"]["NodeName"] == "n1"
    assert agent["Config"]["Server"] is True


async def test_its_data_and_its_address_are_there_again_after_an_orderly_end(
    data_dir: Path, consul_binary: ConsulBinary
) -> None:
    async with EmbeddedConsul(data_dir, consul_binary) as first:
        await put(first, "citadel/a", "kept")
        pid, ports = first.pid, first.ports
    assert identify(pid) is None
    async with EmbeddedConsul(data_dir, consul_binary) as second:
        assert not second.reused
        assert second.ports == ports
        assert await get(second, "citadel/a") == "kept"


async def test_a_server_whose_starter_was_killed_lives_on_and_is_reused(
    data_dir: Path, consul_binary: ConsulBinary
) -> None:
    async with starter(data_dir, consul_binary) as pid:
        pass
    assert identify(pid) is not None
    async with EmbeddedConsul(data_dir, consul_binary) as consul:
        assert consul.reused
        assert consul.pid == pid
        await put(consul, "a", "1")
    assert identify(pid) is None


async def test_a_survivor_with_other_settings_is_ended_and_its_data_kept(
    data_dir: Path, consul_binary: ConsulBinary
) -> None:
    async with EmbeddedConsul(data_dir, consul_binary) as first:
        await put(first, "a", "kept")
    async with starter(data_dir, consul_binary) as pid:
        pass
    async with EmbeddedConsul(data_dir, consul_binary, ports=free_ports()) as consul:
        assert not consul.reused
        assert consul.pid != pid
        assert identify(pid) is None
        assert await get(consul, "a") == "kept"


async def test_a_survivor_that_nobody_put_on_record_is_found_by_its_data(
    data_dir: Path, consul_binary: ConsulBinary
) -> None:
    async with starter(data_dir, consul_binary) as pid:
        pass
    record = Record.load(data_dir)
    assert record is not None
    replace(record, process=replace(record.process, started_ticks=1)).save(data_dir)
    async with EmbeddedConsul(data_dir, consul_binary) as consul:
        assert not consul.reused
        assert identify(pid) is None
        assert consul.pid != pid


async def test_a_survivor_that_hangs_is_ended_with_an_error_and_the_next_start_is_a_new_one(
    data_dir: Path, consul_binary: ConsulBinary
) -> None:
    async with starter(data_dir, consul_binary) as pid:
        pass
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ConsulUnavailable, match=r"was not ready within 0\.3 s"):
        await EmbeddedConsul(data_dir, consul_binary, ready_timeout_seconds=0.3).start()
    assert identify(pid) is None
    async with EmbeddedConsul(data_dir, consul_binary) as consul:
        assert not consul.reused


async def test_supervision_starts_a_killed_server_again_with_the_same_address_and_data(
    data_dir: Path, consul_binary: ConsulBinary
) -> None:
    async with EmbeddedConsul(data_dir, consul_binary) as consul:
        await put(consul, "a", "kept")
        killed, address = consul.pid, consul.address
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            supervision = group.create_task(consul.supervise())
            os.kill(killed, signal.SIGKILL)
            while consul.pid == killed or await reachable(consul) is None:  # noqa: ASYNC110  Consul has no event for it
                await asyncio.sleep(0.05)
            assert consul.address == address
            assert await get(consul, "a") == "kept"
            second = consul.pid
            supervision.cancel()  # not before: it may still be at starting the server, which it then takes back
    assert identify(second) is None


async def reachable(consul: EmbeddedConsul) -> str | None:
    try:
        return await get(consul, "a")
    except httpx.TransportError:
        return None


async def test_a_data_directory_has_one_user_at_a_time(data_dir: Path, consul_binary: ConsulBinary) -> None:
    async with EmbeddedConsul(data_dir, consul_binary) as first:
        with pytest.raises(Refused, match=rf"in use by another process \(pid {os.getpid()}\)"):
            await EmbeddedConsul(data_dir, consul_binary).start()
        assert identify(first.pid) is not None


async def test_given_ports_that_are_taken_are_each_told_with_what_to_do(
    data_dir: Path, consul_binary: ConsulBinary
) -> None:
    with socket.create_server((LOOPBACK, 0)) as web, socket.socket(type=socket.SOCK_DGRAM) as dns:
        dns.bind((LOOPBACK, 0))
        ports = replace(free_ports(), http=web.getsockname()[1], dns=dns.getsockname()[1])
        with pytest.raises(InvalidInput) as refused:
            await EmbeddedConsul(data_dir, consul_binary, ports=ports).start()
    assert [(problem.place, problem.message) for problem in refused.value.problems] == [
        ("ports.http", f"port {ports.http} on 127.0.0.1 is in use"),
        ("ports.dns", f"port {ports.dns} on 127.0.0.1 is in use"),
    ]
    assert f"sport = :{ports.http}" in refused.value.problems[0].remedy


async def test_a_remembered_port_that_somebody_took_is_replaced_and_the_data_kept(
    data_dir: Path, consul_binary: ConsulBinary
) -> None:
    async with EmbeddedConsul(data_dir, consul_binary) as first:
        await put(first, "a", "kept")
        ports = first.ports
    with socket.create_server((LOOPBACK, ports.http)), socket.create_server((LOOPBACK, ports.server)):
        async with EmbeddedConsul(data_dir, consul_binary) as second:
            assert second.ports.http != ports.http
            assert second.ports.server != ports.server
            assert second.ports.dns == ports.dns
            assert await get(second, "a") == "kept"


async def test_a_port_taken_between_the_look_and_the_bind_is_looked_for_again(
    data_dir: Path, consul_binary: ConsulBinary, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record.load(data_dir)
    assert record is not None
    looks: list[dict[str, int]] = []

    def blind_at_first(ports: Ports) -> dict[str, int]:
        looks.append({} if not looks else really_taken(ports))
        return looks[-1]

    really_taken = Ports.taken
    monkeypatch.setattr(Ports, "taken", blind_at_first)
    with socket.create_server((LOOPBACK, record.ports.http)):
        async with EmbeddedConsul(data_dir, consul_binary) as consul:
            assert consul.ports.http != record.ports.http
    assert looks == [{}, {"http": record.ports.http}]


async def test_what_consul_complains_of_reaches_the_message(
    data_dir: Path, consul_binary: ConsulBinary, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"no_such_key": 1}')
    with pytest.raises(ConsulUnavailable, match=r"(?s)ended before it was ready.*consul\.log.*no_such_key"):
        await EmbeddedConsul(data_dir, consul_binary, config_files=[broken]).start()
    assert find_by_argument(f"-data-dir={data_dir / 'data'}") is None


async def test_configuration_files_override_ours_and_have_to_exist(
    data_dir: Path, consul_binary: ConsulBinary, tmp_path: Path
) -> None:
    extra = tmp_path / "extra.json"
    with pytest.raises(InvalidInput, match=r"extra\.json: there is no such file"):
        await EmbeddedConsul(data_dir, consul_binary, config_files=[extra]).start()
    extra.write_text('{"node_meta": {"rack": "r7"}}')
    async with (
        EmbeddedConsul(data_dir, consul_binary, config_files=[extra]) as consul,
        httpx.AsyncClient(base_url=consul.url) as client,
    ):
        agent = (await client.get("/v1/agent/self")).json()
    assert agent["Meta"]["rack"] == "r7"


async def test_data_of_a_newer_consul_is_refused_untouched(data_dir: Path, consul_binary: ConsulBinary) -> None:
    record = Record.load(data_dir)
    assert record is not None
    replace(record, version="99.1.0").save(data_dir)
    with pytest.raises(InvalidInput, match=r"was written by Consul 99\.1\.0.*remove the directory"):
        await EmbeddedConsul(data_dir, consul_binary).start()
    assert not (data_dir / "data").exists()


async def test_a_start_that_is_cancelled_leaves_no_server_and_no_lock(
    data_dir: Path, consul_binary: ConsulBinary
) -> None:
    consul = EmbeddedConsul(data_dir, consul_binary)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await consul.start()
    assert find_by_argument(f"-data-dir={data_dir / 'data'}") is None
    async with EmbeddedConsul(data_dir, consul_binary) as again:
        assert not again.reused


async def test_dns_can_be_off_and_comes_back(data_dir: Path, consul_binary: ConsulBinary) -> None:
    async with EmbeddedConsul(data_dir, consul_binary, dns=False, ui=False) as consul:
        assert consul.ports.dns == OFF
        assert consul.ui_url is None
    async with EmbeddedConsul(data_dir, consul_binary) as consul:
        assert consul.ports.dns > 0


async def test_without_a_start_there_is_no_pid(data_dir: Path, consul_binary: ConsulBinary) -> None:
    with pytest.raises(ConsulUnavailable, match="was not started"):
        _ = EmbeddedConsul(data_dir, consul_binary).pid


@pytest.fixture
def stubborn() -> Iterator[subprocess.Popen[bytes]]:
    """A child that ignores SIGTERM."""
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        if child.stdout is None:
            raise RuntimeError("no pipe")
        child.stdout.readline()
        yield child
        child.kill()


async def test_a_process_that_ignores_sigterm_is_killed_after_the_time_out(stubborn: subprocess.Popen[bytes]) -> None:
    process = RunningProcess.of_child(stubborn)
    await process.stop(timeout_seconds=0.05)
    process.close()
    assert process.exit_status == -signal.SIGKILL


async def test_a_stop_that_is_cancelled_kills_at_once(stubborn: subprocess.Popen[bytes]) -> None:
    process = RunningProcess.of_child(stubborn)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await process.stop(timeout_seconds=60)
    assert not process.alive
    process.close()


def test_a_pid_that_was_given_to_another_process_is_not_taken_for_the_old_one() -> None:
    mine = identify(os.getpid())
    assert mine is not None
    with pytest.raises(ProcessLookupError):
        RunningProcess(replace(mine, started_ticks=mine.started_ticks + 1))
    with pytest.raises(ProcessLookupError):
        RunningProcess(replace(mine, boot="another boot"))


def test_a_zombie_does_not_live() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert identify(child.pid) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": "1.8.7"}', '{"version": 1, "ports": {"http": {}}}'])
def test_a_record_that_cannot_be_read_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "embedded.json").write_text(text)
    assert Record.load(tmp_path) is None


@pytest.mark.parametrize(
    ("release", "has_ui", "has_grpc_tls", "has_peering"),
    [((1, 8), "ui", False, False), ((1, 12), "ui_config", False, False), ((1, 22), "ui_config", True, True)],
)
def test_each_version_is_told_only_what_it_knows(
    release: tuple[int, int], has_ui: str, has_grpc_tls: bool, has_peering: bool
) -> None:
    config = server_config(release, "n1", Ports(), ui=True)
    ports = config["ports"]
    assert isinstance(ports, dict)
    assert [key for key in config if key.startswith("ui")] == [has_ui]
    assert ("grpc_tls" in ports) is has_grpc_tls
    assert ("peering" in config) is has_peering


def test_free_ports_are_distinct_and_below_the_ephemeral_range() -> None:
    ports = free_ports()
    numbers = {ports.http, ports.dns, ports.grpc, ports.serf, ports.server}
    assert len(numbers) == 5
    assert all(1024 < number < 32_768 for number in numbers)
    assert ports.taken() == {}
