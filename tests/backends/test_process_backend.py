"""The process backend, on real processes: the contract, and what only processes can do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from backend_contract import LONG, NODE, BackendContract, until, watched
from process_harness import STEADY, ProcessHarness, descriptors, is_running

from citadel_consul.backends import procfs
from citadel_consul.backends.base import Exit, Gone, Running, Unproven
from citadel_consul.backends.logs import follow
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")

WEB = Instance("web", NODE)

# Leaves the group and the session, and outlives its parent.
DOUBLE_FORK = "setsid sh -c 'sleep 1000 & echo orphan $!' & wait $!; "
# What programs that set their own title do to the memory that /proc/<pid>/environ shows.
WIPE_ENVIRONMENT = """
import ctypes
fields = open('/proc/self/stat').read().rpartition(')')[2].split()
start, end = int(fields[47]), int(fields[48])
ctypes.memset(start, 0, end - start)
"""


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[ProcessHarness]:
    """A machine of the test's own, on which nothing runs before and after it."""
    harness = ProcessHarness(tmp_path)
    yield harness
    async with harness.backend() as backend:
        for instance in await backend.survivors():
            await backend.stop(instance, 0.0)
    assert harness.all_marked() == []


class TestProcessBackend(BackendContract):
    """The contract, on processes."""


def _zombies() -> set[int]:
    return {pid for pid in procfs.children(os.getpid()) if (child := procfs.read(pid)) is not None and child.ended}


def _orphan(lines: list[str]) -> int:
    return next(int(line.split()[1]) for line in lines if line.startswith("orphan "))


# What a service gets.


async def test_a_service_gets_a_clean_environment_and_knows_who_it_is(harness: ProcessHarness) -> None:
    launch = harness.launch("web", "env", env={"PORT": "80", "CITADEL_NODE": "forged"}, generation=6)
    async with harness.backend() as backend:
        await backend.start(launch)
        await until(lambda: any(line.startswith("CITADEL_LAUNCH=") for line in harness.lines(launch)))
    env = dict(line.split("=", 1) for line in harness.lines(launch))
    assert set(env) - {"PWD", "CITADEL_TEST_RUN"} == {
        "PATH",
        "HOME",
        "LANG",
        "PORT",
        "CITADEL_STACK",
        "CITADEL_SERVICE",
        "CITADEL_NODE",
        "CITADEL_GENERATION",
        "CITADEL_LAUNCH",
    }
    assert (env["PORT"], env["CITADEL_SERVICE"], env["CITADEL_NODE"]) == ("80", "web", NODE)
    assert (env["CITADEL_STACK"], env["CITADEL_GENERATION"]) == (launch.stack, "6")


async def test_a_service_leads_its_own_session_and_inherits_nothing(harness: ProcessHarness, tmp_path: Path) -> None:
    launch = harness.shell("web", "ls -l /proc/self/fd; echo ready; sleep 1000")
    with (tmp_path / "open").open("w") as leak:
        os.set_inheritable(leak.fileno(), True)
        async with harness.backend() as backend:
            handle = await backend.start(launch)
            await harness.ready(launch)
            process = procfs.read(handle.pid or 0)
    assert process is not None
    assert process.pid == process.session == process.group
    listed = [line.split(" -> ")[-1] for line in harness.lines(launch) if " -> " in line]
    assert listed[:3] == ["/dev/null", str(harness.log(launch)), str(harness.log(launch))]
    assert str(tmp_path / "open") not in listed


async def test_a_service_has_no_signal_blocked_or_ignored_even_under_nohup(harness: ProcessHarness) -> None:
    script = f"""
import asyncio, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from process_harness import ProcessHarness
harness = ProcessHarness(Path({str(harness.state_dir)!r}))
launch = harness.launch("web", "grep", "^Sig", "/proc/self/status")
async def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    async with harness.backend() as backend:
        await backend.start(launch)
        await backend.start(harness.launch("other", "true"))
        assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, [])
asyncio.run(main())
"""
    # A shell that ignores what 'nohup' and '&' in a script make a program ignore.
    command = ["/bin/sh", "-c", 'trap "" HUP INT QUIT; exec "$@"', "sh", sys.executable, "-c", script]
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=LONG)
    launch = harness.launch("web", "grep")
    await until(lambda: len(harness.lines(launch)) == 5)
    masks = dict(line.split(":\t") for line in harness.lines(launch))
    assert int(masks["SigBlk"], 16) == 0
    assert int(masks["SigIgn"], 16) == 0


async def test_a_service_runs_in_its_folder_and_by_default_in_the_root(harness: ProcessHarness, tmp_path: Path) -> None:
    there = harness.launch("there", "pwd", cwd=str(tmp_path))
    default = harness.launch("default", "pwd")
    async with harness.backend() as backend:
        await backend.start(there)
        await backend.start(default)
        await until(lambda: bool(harness.lines(there) and harness.lines(default)))
    assert harness.lines(there) == [str(tmp_path)]
    assert harness.lines(default) == ["/"]


@as_root
@pytest.mark.parametrize("user", ["nobody", "65534"])
async def test_a_service_runs_as_its_user_with_that_users_groups(harness: ProcessHarness, user: str) -> None:
    script = 'id -u; id -G; echo "$HOME $USER"; echo again >>/dev/stdout; echo ready; sleep 1000'
    launch = harness.launch("web", "/bin/sh", "-c", script, user=user)
    async with harness.backend() as backend:
        handle = await backend.start(launch)
        await harness.ready(launch)
        assert await backend.stop(launch.instance, LONG) == Exit(None, 15, "killed by SIGTERM")
        assert not harness.is_running(handle)
    assert harness.lines(launch) == ["65534", "65534", "/nonexistent nobody", "again", "ready"]


async def test_both_outputs_go_to_one_log_in_order_and_are_kept_over_restarts(harness: ProcessHarness) -> None:
    launch = harness.shell("web", "echo out; echo err >&2; echo out again; exit 1")
    async with harness.backend() as backend:
        exits = watched(backend)
        for _ in range(2):
            await backend.start(launch)
            await exits.next()
    assert harness.lines(launch) == ["out", "err", "out again"] * 2


# Ends.


async def test_an_exit_is_noticed_within_milliseconds(harness: ProcessHarness) -> None:
    delays = []
    async with harness.backend() as backend:
        exits = watched(backend)
        for generation in range(1, 21):
            launch = harness.launch("web", "sleep", "1000", generation=generation)
            handle = await backend.start(launch)
            begun = time.perf_counter()
            harness.kill(handle)
            await exits.next()
            delays.append(time.perf_counter() - begun)
    assert statistics.median(delays) < 0.050


async def test_a_stop_signal_of_the_spec_is_the_one_sent(harness: ProcessHarness) -> None:
    script = "trap 'echo asked; exit 0' INT; echo ready; while :; do sleep 0.05; done"
    launch = harness.launch("web", "/bin/sh", "-c", script, stop_signal="SIGINT")
    async with harness.backend() as backend:
        await backend.start(launch)
        await harness.ready(launch)
        assert await backend.stop(launch.instance, LONG) == Exit(0, None, "exit status 0")
    assert harness.lines(launch) == ["ready", "asked"]


async def test_a_suspended_service_stops_politely(harness: ProcessHarness) -> None:
    launch = harness.shell("web", "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    async with harness.backend() as backend:
        handle = await backend.start(launch)
        await harness.ready(launch)
        os.kill(handle.pid or 0, 19)
        assert await backend.stop(launch.instance, LONG) == Exit(0, None, "exit status 0")


async def test_a_stop_reaches_what_left_the_group_and_the_session(harness: ProcessHarness) -> None:
    launch = harness.shell("web", DOUBLE_FORK + STEADY)
    async with harness.backend() as backend:
        await backend.start(launch)
        await harness.ready(launch)
        orphan = _orphan(harness.lines(launch))
        process = procfs.read(orphan)
        assert process is not None
        assert process.parent == os.getpid()  # it came to the agent, the parent of last resort
        await backend.stop(launch.instance, LONG)
        assert not is_running(orphan)
        assert harness.marked("web") == []


async def test_a_stop_reaches_what_ignores_it_and_wiped_its_environment(harness: ProcessHarness) -> None:
    script = f"""
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        {"; ".join(WIPE_ENVIRONMENT.strip().splitlines())}
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(1, b'orphan %d\\nready\\n' % os.getpid())
        time.sleep(1000)
    os._exit(0)
os.wait()
time.sleep(1000)
"""
    launch = harness.python("web", script)
    async with harness.backend() as backend:
        await backend.start(launch)
        await harness.ready(launch)
        orphan = _orphan(harness.lines(launch))
        assert procfs.variable(orphan, "CITADEL_LAUNCH") is None
        await backend.stop(launch.instance, 0.2)
        assert not is_running(orphan)


async def test_what_a_dead_service_left_behind_is_ended_before_its_successor_starts(harness: ProcessHarness) -> None:
    launch = harness.shell("web", DOUBLE_FORK + "sleep 1000 & echo orphan $!; echo ready; exit 1")
    async with harness.backend() as backend:
        exits = watched(backend)
        await backend.start(launch)
        assert (await exits.next()).exit.code == 1
        await backend.start(harness.steady("web", 2))
        orphans = [int(line.split()[1]) for line in harness.lines(launch) if line.startswith("orphan ")]
        assert len(orphans) == 2
        assert not any(is_running(orphan) for orphan in orphans)


async def test_a_stop_after_the_main_process_died_ends_what_it_left(harness: ProcessHarness) -> None:
    launch = harness.shell("web", "(trap '' TERM; echo orphan; exec sleep 1000) & sleep 0.2; exit 1")
    async with harness.backend() as backend:
        exits = watched(backend)
        await backend.start(launch)
        await exits.next()
        await backend.stop(launch.instance, LONG)
        assert harness.marked("web") == []


@pytest.fixture
def unwaited() -> Iterator[subprocess.Popen[bytes]]:
    """A child of this process that has ended, and that somebody is going to wait for."""
    with subprocess.Popen(["true"]) as process:
        yield process
    assert process.returncode == 0


async def test_orphans_that_end_are_reaped_and_other_children_left_alone(
    harness: ProcessHarness, unwaited: subprocess.Popen[bytes]
) -> None:
    launch = harness.shell("web", "(setsid sh -c 'sleep 0.05 & echo orphan $!' &) ; " + STEADY)
    async with harness.backend(tend_seconds=0.02) as backend:
        await backend.start(launch)
        await until(lambda: any(line.startswith("orphan") for line in harness.lines(launch)))
        orphan = _orphan(harness.lines(launch))
        await until(lambda: procfs.read(orphan) is None)
    zombie = procfs.read(unwaited.pid)
    assert zombie is not None
    assert zombie.ended


async def test_a_hundred_starts_and_stops_leak_no_descriptor_and_no_zombie(harness: ProcessHarness) -> None:
    outside = descriptors()
    async with harness.backend() as backend:
        before, zombies = descriptors(), _zombies()
        for generation in range(1, 101):
            await backend.start(harness.launch("web", "sleep", "1000", generation=generation))
            await backend.stop(WEB, LONG)
        assert descriptors() == before
        assert _zombies() <= zombies
        await backend.start(harness.launch("web", "sleep", "1000", generation=101))
    assert descriptors() == outside


# Agents that are killed.


async def test_killed_before_the_exec_nothing_runs_and_the_start_can_be_made_again(harness: ProcessHarness) -> None:
    assert harness.killed_agent("web", "before-exec") == []
    async with harness.backend() as backend:
        found = await backend.adopt(harness.steady("web"))
        assert isinstance(found, Gone)
        assert found.generation == 1
        assert harness.is_running(await backend.start(harness.steady("web")))


@pytest.mark.parametrize("moment", ["after-exec", "after-record", "running"])
async def test_killed_after_the_exec_the_service_is_adopted_and_not_started_twice(
    harness: ProcessHarness, moment: str
) -> None:
    harness.killed_agent("web", moment)
    launch = harness.steady("web")
    async with harness.backend() as backend:
        exits = watched(backend)
        found = await backend.adopt(launch)
        assert isinstance(found, Running)
        assert await backend.start(launch) == found.handle
        await harness.ready(launch)
        assert found.handle.pid in harness.marked("web")
        assert harness.lines(launch) == ["ready"]
        harness.kill(found.handle)
        exited = await exits.next()
        assert exited.exit == Exit(None, None, "exit status unknown: an earlier agent started it")


async def test_killed_after_the_exec_a_service_that_wiped_its_environment_is_found_by_its_log(
    harness: ProcessHarness,
) -> None:
    wiping = WIPE_ENVIRONMENT + "import os, time; os.write(1, b'ready\\n'); time.sleep(1000)"
    script = f"exec {sys.executable} -IS -c '{wiping.replace(chr(39), chr(34))}'"
    harness.killed_agent("web", "after-exec", script)
    launch = harness.shell("web", script)
    await harness.ready(launch)
    assert harness.marked("web") == []
    async with harness.backend() as backend:
        found = await backend.adopt(launch)
        assert isinstance(found, Running)
        await backend.stop(WEB, LONG)
        assert not harness.is_running(found.handle)


async def test_killed_while_stopping_the_next_agent_finishes_the_stop(harness: ProcessHarness) -> None:
    script = "trap 'echo stopping' TERM; echo ready; while :; do sleep 0.05; done"
    (pid, *_) = harness.killed_agent("web", "stopping", script)
    async with harness.backend() as backend:
        assert await backend.stop(WEB, 0.1) is not None
        assert not is_running(pid)
        assert harness.marked("web") == []


async def test_leftovers_of_a_service_that_died_while_no_agent_looked_are_ended(harness: ProcessHarness) -> None:
    launch = harness.shell("web", DOUBLE_FORK + STEADY)
    async with harness.backend() as backend:
        handle = await backend.start(launch)
        await harness.ready(launch)
    orphan = _orphan(harness.lines(launch))
    harness.kill(handle)
    await until(lambda: not harness.is_running(handle))
    assert is_running(orphan)
    async with harness.backend() as backend:
        assert await backend.survivors() == (WEB,)
        assert isinstance(await backend.adopt(launch), Gone)
        assert not is_running(orphan)
        assert await backend.survivors() == ()


async def test_an_agent_that_ends_before_the_leftovers_do_leaves_them_to_the_next(harness: ProcessHarness) -> None:
    launch = harness.shell("web", "(trap '' TERM; exec sleep 1000) & echo orphan $!; sleep 0.1; exit 5")
    async with harness.backend() as backend:
        exits = watched(backend)
        await backend.start(launch)
        await exits.next()
    orphan = _orphan(harness.lines(launch))
    assert is_running(orphan)
    async with harness.backend() as backend:
        assert await backend.survivors() == (WEB,)
        assert await backend.adopt(launch) == Gone(1, Exit(5, None, "exit status 5"))
        assert not is_running(orphan)


# Proof.


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else, in a session of its own."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        yield process
        process.kill()


async def test_a_number_that_came_round_again_is_not_touched(
    harness: ProcessHarness, stranger: subprocess.Popen[bytes]
) -> None:
    launch = harness.launch("web", "true")
    async with harness.backend() as backend:
        exits = watched(backend)
        await backend.start(launch)
        await exits.next()
    process = procfs.read(stranger.pid)
    assert process is not None
    harness.edit_record(WEB, pid=stranger.pid, start_ticks=process.start_ticks - 1, exit=None, swept=False)
    async with harness.backend() as backend:
        found = await backend.adopt(launch)
        assert isinstance(found, Gone)
        assert await backend.stop(WEB, 0.0) is None
    assert stranger.poll() is None


async def test_a_number_of_an_earlier_boot_is_not_touched(
    harness: ProcessHarness, stranger: subprocess.Popen[bytes]
) -> None:
    launch = harness.launch("web", "true")
    async with harness.backend() as backend:
        exits = watched(backend)
        await backend.start(launch)
        await exits.next()
    process = procfs.read(stranger.pid)
    assert process is not None
    boot = "00000000-0000-0000-0000-000000000000"
    harness.edit_record(WEB, pid=process.pid, start_ticks=process.start_ticks, boot_id=boot, exit=None, swept=False)
    async with harness.backend() as backend:
        found = await backend.adopt(launch)
        assert found == Gone(1, Exit(None, None, "exit status unknown: the machine was restarted"))
    assert stranger.poll() is None


async def test_evidence_that_contradicts_itself_is_no_proof(harness: ProcessHarness) -> None:
    launch = harness.steady("web")
    async with harness.backend() as backend:
        handle = await backend.start(launch)
        await harness.ready(launch)
    right = harness.record(WEB)["start_ticks"]
    harness.edit_record(WEB, start_ticks=1)
    async with harness.backend() as backend:
        found = await backend.adopt(launch)
        assert isinstance(found, Unproven)
        assert f"process {handle.pid} bears the marker of this launch, but its start time" in found.reason
        with pytest.raises(BackendError):
            await backend.start(launch)
        assert harness.is_running(handle)
    harness.edit_record(WEB, start_ticks=right)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"v": 2}', '{"v": 1, "generation": "x"}'])
async def test_a_damaged_record_proves_nothing(harness: ProcessHarness, content: str) -> None:
    launch = harness.steady("web")
    async with harness.backend() as backend:
        handle = await backend.start(launch)
        await harness.ready(launch)
    path = harness.state_dir / launch.stack / NODE / "web.json"
    intact = path.read_text()
    path.write_text(content)
    async with harness.backend() as backend:
        found = await backend.adopt(launch)
        assert isinstance(found, Unproven)
        assert "its record cannot be read" in found.reason
        assert harness.is_running(handle)
    path.write_text(intact)


async def test_a_damaged_record_of_what_does_not_run_is_no_obstacle(harness: ProcessHarness) -> None:
    path = harness.state_dir / harness.steady("web").stack / NODE / "web.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    async with harness.backend() as backend:
        assert await backend.adopt(harness.steady("web")) == Gone()
        assert harness.is_running(await backend.start(harness.steady("web")))


async def test_two_state_folders_with_the_same_names_do_not_see_each_other(
    harness: ProcessHarness, tmp_path: Path
) -> None:
    other = ProcessHarness(tmp_path / "other")
    async with harness.backend() as backend, other.backend() as neighbour:
        handle = await backend.start(harness.steady("web"))
        assert await neighbour.adopt(other.steady("web")) == Gone()
        theirs = await neighbour.start(other.steady("web"))
        assert theirs != handle
        await neighbour.stop(WEB, LONG)
        assert harness.is_running(handle)


async def test_a_failed_start_leaves_the_record_of_the_one_before(harness: ProcessHarness) -> None:
    async with harness.backend() as backend:
        exits = watched(backend)
        await backend.start(harness.failing("web", 4))
        await exits.next()
        with pytest.raises(BackendError):
            await backend.start(harness.launch("web", "nonesuch-program", generation=2))
        assert await backend.adopt(harness.steady("web")) == Gone(1, Exit(4, None, "exit status 4"))


# Output.


async def test_a_log_that_outgrows_its_bound_is_rotated_while_the_service_writes(harness: ProcessHarness) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; while :; do echo ready; sleep 0.05; done"
    # A rotation may lose lines: so the last one is said again and again.
    launch = harness.launch("web", "/bin/sh", "-c", script, log_bytes=20_000, log_files=3)
    seen = []
    async with harness.backend(tend_seconds=0.02) as backend, asyncio.timeout(LONG):
        await backend.start(launch)
        async with contextlib.aclosing(follow(harness.log(launch), poll_seconds=0.001)) as lines:
            async for line in lines:
                if line == "ready":
                    break
                seen.append(int(line))
        rotated = harness.log(launch).with_name("web.log.1")
        await until(lambda: rotated.exists() and harness.log(launch).stat().st_size <= 20_000)
    assert seen == sorted(set(seen))  # each line once, and in order
    names = {path.name for path in harness.log(launch).parent.iterdir()}
    assert {"web.log", "web.log.1"} <= names <= {"web.log", "web.log.1", "web.log.2", "web.log.partial"}


async def test_a_log_that_cannot_be_opened_is_said_with_its_place(harness: ProcessHarness) -> None:
    log = harness.log(harness.steady("web"))
    log.mkdir(parents=True)
    async with harness.backend() as backend:
        with pytest.raises(BackendError, match=rf"^web@n1: cannot open its log {log}"):
            await backend.start(harness.steady("web"))
