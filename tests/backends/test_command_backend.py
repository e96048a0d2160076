"""The command backend, on real commands: the contract as far as commands can keep it, and what is their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from backend_contract import LONG, NODE, Harness, ManagedContract, until, watched
from command_harness import CommandHarness, spec_of

from citadel_consul.backends import procfs
from citadel_consul.backends.base import Exit, Gone, InstanceExited, Notice, Running
from citadel_consul.backends.launches import Launches, LaunchRecord
from citadel_consul.backends.logs import log_path, tail
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError, BackendUnavailable

WEB = Instance("web", NODE)
ENDED = Exit(None, None, "exit status unknown: its status command says that it ended")
STOPPED = Exit(None, None, "ended by its stop command")


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[CommandHarness]:
    """A machine of the test's own, on which nothing runs before and after it."""
    harness = CommandHarness(tmp_path)
    yield harness
    harness.clear()


def own(harness: Harness) -> CommandHarness:
    """The harness of this file, for what the contract does not know."""
    assert isinstance(harness, CommandHarness)
    return harness


class TestCommandBackend(ManagedContract):
    """The contract. Commands know neither how a service ended nor a way to force it: those clauses read otherwise."""

    async def test_an_exit_that_nobody_asked_for_is_reported_with_its_status(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            exits = watched(backend)
            await backend.start(harness.failing("web", 3))
            assert await exits.next() == InstanceExited(WEB, 1, ENDED, requested=False)

    async def test_a_kill_from_outside_is_reported_with_its_signal(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            exits = watched(backend)
            harness.kill(await backend.start(harness.steady("web")))
            assert await exits.next() == InstanceExited(WEB, 1, ENDED, requested=False)

    async def test_a_stop_ends_the_instance_and_reports_it_as_requested(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            exits = watched(backend)
            launch = harness.steady("web")
            handle = await backend.start(launch)
            await harness.ready(launch)
            assert await backend.stop(WEB, LONG) == STOPPED
            assert exits.seen == [InstanceExited(WEB, 1, STOPPED, requested=True)]
            assert not harness.is_running(handle)

    async def test_what_ignores_its_stop_signal_is_killed_after_the_time_out(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            exits = watched(backend)
            launch = harness.stubborn("web")
            handle = await backend.start(launch)
            await harness.ready(launch)
            with pytest.raises(BackendUnavailable, match=r"^web@n1: backend\.stop: the command ended, and the service"):
                await backend.stop(WEB, 0.3)
            assert harness.is_running(handle)
            harness.kill(handle)
            assert (await exits.next()).requested

    async def test_a_second_stop_can_shorten_the_first(self, harness: Harness) -> None:
        commands = own(harness)
        async with commands.backend() as backend:
            await backend.start(commands.steady("web"))
            (commands.folder("web") / "hang").touch()
            first = asyncio.create_task(backend.stop(WEB, 100 * LONG))
            await until(lambda: commands.calls("web", "stop") == 1)
            with pytest.raises(BackendUnavailable, match="the command hung, and was killed"):
                await backend.stop(WEB, 0.05)
            (commands.folder("web") / "hang").unlink()
            with pytest.raises(BackendUnavailable, match="a second stop gave it less time"):
                await first
            assert await backend.stop(WEB, LONG) == STOPPED

    async def test_a_cancelled_stop_can_be_finished_by_another(self, harness: Harness) -> None:
        commands = own(harness)
        async with commands.backend() as backend:
            handle = await backend.start(commands.steady("web"))
            (commands.folder("web") / "hang").touch()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await backend.stop(WEB, 100 * LONG)
            with pytest.raises(BackendUnavailable):
                await backend.stop(WEB, 0.05)
            (commands.folder("web") / "hang").unlink()
            assert await backend.stop(WEB, LONG) == STOPPED
            assert not commands.is_running(handle)

    async def test_a_start_during_a_stop_waits_for_its_end(self, harness: Harness) -> None:
        commands = own(harness)
        async with commands.backend() as backend:
            launch = commands.shell("web", "trap 'sleep 0.3; exit' TERM; echo ready; while :; do sleep 0.05; done")
            await backend.start(launch)
            await commands.ready(launch)
            old = commands.pid("web")
            async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
                group.create_task(backend.stop(WEB, LONG))
                await until(lambda: commands.calls("web", "stop") == 1)
                starting = group.create_task(backend.start(commands.steady("web", 2)))
            assert commands.is_running(starting.result())
            assert commands.pid("web") != old

    async def test_how_an_instance_ended_is_known_to_the_next_agent(self, harness: Harness) -> None:
        launch = harness.failing("job", 0)
        async with harness.backend() as backend:
            exits = watched(backend)
            await backend.start(launch)
            await exits.next()
        async with harness.backend() as backend:
            found = await backend.adopt(launch)
            assert found == Gone(1, ENDED)
            assert found.exit is not None
            assert not found.exit.succeeded  # so a oneshot service is not taken for completed


# Looking.


async def test_what_runs_already_is_taken_over_and_said(harness: CommandHarness) -> None:
    launch = harness.steady("web", 6)
    await asyncio.to_thread(subprocess.run, spec_of(launch).start, check=True)
    async with harness.backend() as backend:
        notices: list[Notice] = []
        backend.set_notice_sink(notices.append)
        found = await backend.adopt(launch)
        assert isinstance(found, Running)
        assert found.generation == 6
        assert await backend.start(launch) == found.handle
        assert harness.calls("web", "start") == 1
        assert notices == [Notice(WEB, "web ran already, and citadel had not started it: taken over as it is")]
        assert await backend.stop(WEB, LONG) == STOPPED


async def test_a_status_that_cannot_be_told_is_said_once_and_is_no_exit(harness: CommandHarness) -> None:
    harness.poll_seconds = 0.02
    doubtful = (
        "backend.status: it cannot be told whether it runs: the command gave exit status 1, "
        "neither 0 (it runs) nor 3 (it does not): cannot ask"
    )
    async with harness.backend() as backend:
        notices: list[Notice] = []
        exits = watched(backend)
        backend.set_notice_sink(notices.append)
        handle = await backend.start(harness.steady("web"))
        doubt = harness.folder("web") / "no-status"
        for number in (1, 2):
            doubt.touch()
            asked = harness.calls("web", "status")
            await until(lambda asked=asked: harness.calls("web", "status") > asked + 3)  # type: ignore[misc]
            assert [notice.message for notice in notices] == [doubtful] * number
            doubt.unlink()
            asked = harness.calls("web", "status")
            await until(lambda asked=asked: harness.calls("web", "status") > asked + 3)  # type: ignore[misc]
        assert exits.seen == []
        harness.kill(handle)
        await exits.next()


async def test_a_status_command_that_hangs_is_killed_with_its_children(harness: CommandHarness) -> None:
    launch = harness.steady("web")
    script = f"sleep 1000 & echo $! >{harness.state_dir}/child; wait"
    slow = replace(spec_of(launch), status=("/bin/sh", "-c", script), timeout_seconds=0.5)
    async with harness.backend() as backend:
        with pytest.raises(BackendUnavailable) as doubtful:
            await backend.adopt(replace(launch, backend=slow))
    assert str(doubtful.value) == (
        "web@n1: backend.status: it cannot be told whether it runs: the command took longer than 0.5 s"
    )
    child = int((harness.state_dir / "child").read_text())
    await until(lambda: (process := procfs.read(child)) is None or process.ended)


async def test_a_status_command_that_tells_nothing_starts_nothing(harness: CommandHarness) -> None:
    launch = harness.steady("web")
    doubtful = replace(launch, backend=replace(spec_of(launch), status=("/bin/sh", "-c", "kill -9 $$")))
    async with harness.backend() as backend:
        with pytest.raises(BackendUnavailable, match=r"the command gave killed by SIGKILL, neither 0 \(it runs\)"):
            await backend.start(doubtful)
        with pytest.raises(BackendUnavailable):
            await backend.adopt(doubtful)
    assert harness.calls("web", "start") == 0


async def test_a_status_command_that_does_not_exist_is_no_matter_of_patience(harness: CommandHarness) -> None:
    launch = harness.steady("web")
    launch = replace(launch, backend=replace(spec_of(launch), status=("nonesuch-program",)))
    async with harness.backend() as backend:
        with pytest.raises(BackendError, match=r"^web@n1: backend\.status: there is no program 'nonesuch-program'"):
            await backend.start(launch)
    assert harness.calls("web", "start") == 0


async def test_the_commands_that_started_it_are_those_that_stop_it(harness: CommandHarness) -> None:
    old, new = harness.steady("web"), harness.steady("other", 2)
    async with harness.backend() as backend:
        await backend.start(old)
    async with harness.backend() as backend:
        changed = replace(new, instance=WEB)
        assert isinstance(await backend.adopt(changed), Running)
        with pytest.raises(BackendError, match=r"^web@n1: generation 1 still runs"):
            await backend.start(changed)
        assert await backend.stop(WEB, LONG) == STOPPED
        await backend.start(changed)
    assert (harness.calls("web", "start"), harness.calls("other", "start")) == (1, 1)


# Starting.


async def test_a_start_command_that_fails_is_quoted(harness: CommandHarness) -> None:
    launch = harness.steady("web")
    failing = replace(spec_of(launch), start=("/bin/sh", "-c", "echo first; echo 'no licence' >&2; exit 7"))
    async with harness.backend() as backend:
        with pytest.raises(BackendError) as refused:
            await backend.start(replace(launch, backend=failing))
        assert str(refused.value) == "web@n1: backend.start: it failed (exit status 7): no licence"
        assert await backend.survivors() == ()
    assert tail(log_path(harness.state_dir, launch.stack, NODE, "web"), 10) == ["first", "no licence"]


async def test_a_start_command_that_hangs_is_killed_with_its_children(harness: CommandHarness) -> None:
    launch = harness.steady("web")
    script = f"sleep 1000 & echo $! >{harness.state_dir}/child; wait"
    slow = replace(spec_of(launch), start=("/bin/sh", "-c", script), timeout_seconds=1.0)
    async with harness.backend() as backend:
        with pytest.raises(BackendError, match=r"backend\.start: it took longer than 1 s, and was killed"):
            await backend.start(replace(launch, backend=slow))
    child = int((harness.state_dir / "child").read_text())
    await until(lambda: (process := procfs.read(child)) is None or process.ended)


async def test_a_service_that_does_not_run_after_its_start_command_was_not_started(harness: CommandHarness) -> None:
    launch = harness.steady("web")
    idle = replace(spec_of(launch), start=("/bin/true",), timeout_seconds=0.2)
    async with harness.backend() as backend:
        exits = watched(backend)
        with pytest.raises(BackendError, match=r"it succeeded, and the service did not run 0\.2 s later"):
            await backend.start(replace(launch, backend=idle))
        assert exits.seen == []


async def test_a_service_may_say_late_that_it_runs(harness: CommandHarness) -> None:
    launch = harness.steady("web")
    flag = harness.state_dir / "flag"
    spec = replace(
        spec_of(launch),
        start=("/bin/sh", "-c", f"(sleep 0.3; touch {flag}) >/dev/null 2>&1 &"),
        status=("/bin/sh", "-c", f"test -e {flag} || exit 3"),
    )
    async with harness.backend() as backend:
        await backend.start(replace(launch, backend=spec))
        assert flag.exists()


async def test_a_cancelled_start_goes_on_and_is_joined_by_the_next(harness: CommandHarness) -> None:
    launch = harness.steady("web")
    slow = harness.folder("web") / "slow"
    slow.touch()
    async with harness.backend() as backend:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await backend.start(launch)
        joining = asyncio.create_task(backend.start(launch))
        await asyncio.sleep(0)
        slow.unlink()
        assert harness.is_running(await joining)
        assert harness.calls("web", "start") == 1


async def test_a_start_command_outlives_its_agent_and_the_next_one_waits_for_it(harness: CommandHarness) -> None:
    launch = harness.steady("web", 4)
    slow = harness.folder("web") / "slow"
    slow.touch()
    async with harness.backend() as backend:
        starting = asyncio.create_task(backend.start(launch))
        await until(lambda: harness.calls("web", "start") == 1)
        starting.cancel()
        await asyncio.wait({starting})
    async with harness.backend() as backend:
        assert await backend.survivors() == (WEB,)
        adopting = asyncio.create_task(backend.adopt(launch))
        done, _ = await asyncio.wait({adopting}, timeout=0.1)
        assert not done
        slow.unlink()
        found = await adopting
        assert isinstance(found, Running)
        assert found.generation == 4
        assert harness.calls("web", "start") == 1


async def test_commands_get_a_clean_environment_a_folder_and_know_who_they_serve(
    harness: CommandHarness, tmp_path: Path
) -> None:
    launch = harness.steady("web", 5)
    spec = spec_of(launch)
    spec = replace(
        spec, start=("/bin/sh", "-c", f"pwd; env; exec {' '.join(spec.start[:4])} 'sleep 1000'"), cwd=str(tmp_path)
    )
    async with harness.backend() as backend:
        await backend.start(replace(launch, backend=replace(spec, env={**spec.env, "PORT": "80"})))
    folder, *lines = tail(log_path(harness.state_dir, launch.stack, NODE, "web"), 100)
    env = dict(line.split("=", 1) for line in lines)
    assert folder == str(tmp_path)
    assert set(env) - {"PWD", "CITADEL_TEST_RUN"} == {
        *("PATH", "HOME", "LANG", "PORT"),
        *("CITADEL_STACK", "CITADEL_SERVICE", "CITADEL_NODE", "CITADEL_GENERATION"),
    }
    assert (env["PORT"], env["CITADEL_SERVICE"], env["CITADEL_GENERATION"]) == ("80", "web", "5")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
async def test_commands_run_as_their_user(harness: CommandHarness) -> None:
    launch = harness.steady("web")
    spec = replace(spec_of(launch), start=("/bin/sh", "-c", "id -u"), status=("/bin/sh", "-c", "exit 3"), user="nobody")
    async with harness.backend() as backend:
        with pytest.raises(BackendError, match="it succeeded, and the service did not run"):
            await backend.start(replace(launch, backend=replace(spec, timeout_seconds=0.1)))
    assert tail(log_path(harness.state_dir, launch.stack, NODE, "web"), 1) == ["65534"]


async def test_no_such_user_is_said_with_its_field(harness: CommandHarness) -> None:
    launch = harness.steady("web")
    launch = replace(launch, backend=replace(spec_of(launch), user="nonesuch-user"))
    async with harness.backend() as backend:
        with pytest.raises(BackendError, match=r"backend\.user: there is no user 'nonesuch-user'"):
            await backend.start(launch)


# Stopping.


async def test_a_stop_command_that_fails_is_quoted_and_can_be_tried_again(harness: CommandHarness) -> None:
    async with harness.backend() as backend:
        handle = await backend.start(harness.steady("web"))
        obstacle = harness.folder("web") / "no-stop"
        obstacle.touch()
        with pytest.raises(BackendUnavailable) as failed:
            await backend.stop(WEB, LONG)
        assert str(failed.value) == "web@n1: backend.stop: it failed (exit status 1): no way"
        assert harness.is_running(handle)
        obstacle.unlink()
        assert await backend.stop(WEB, LONG) == STOPPED


async def test_a_stop_command_gets_some_time_even_if_none_is_given(harness: CommandHarness) -> None:
    harness.least_stop_seconds = LONG
    async with harness.backend() as backend:
        await backend.start(harness.steady("web"))
        assert await backend.stop(WEB, 0.0) == STOPPED


async def test_a_reload_that_fails_is_quoted(harness: CommandHarness) -> None:
    launch = harness.steady("web")
    spec = replace(spec_of(launch), reload=("/bin/sh", "-c", "echo 'syntax error' >&2; exit 1"))
    async with harness.backend() as backend:
        await backend.start(replace(launch, backend=spec))
        with pytest.raises(BackendError) as failed:
            await backend.reload(WEB)
    assert str(failed.value) == "web@n1: backend.reload: it failed (exit status 1): syntax error"


async def test_what_is_given_back_runs_on_and_is_watched_no_longer(harness: CommandHarness) -> None:
    harness.poll_seconds = 0.02
    async with harness.backend() as backend:
        exits = watched(backend)
        handle = await backend.start(harness.steady("web"))
        await backend.give_back(WEB)
        assert harness.is_running(handle)
        assert await backend.survivors() == ()
        harness.kill(handle)
        asked = harness.calls("web", "status")
        await asyncio.sleep(5 * harness.poll_seconds)
        assert harness.calls("web", "status") == asked
        assert exits.seen == []


# Records.


async def test_a_damaged_record_costs_the_generation_and_nothing_else(harness: CommandHarness) -> None:
    launch = harness.steady("web", 3)
    async with harness.backend() as backend:
        await backend.start(launch)
    Launches(harness.state_dir, launch.stack, "command").path(WEB).write_text("{")
    async with harness.backend() as backend:
        found = await backend.adopt(replace(launch, generation=5))
        assert isinstance(found, Running)
        assert found.generation == 5
        assert harness.calls("web", "start") == 1


async def test_a_start_command_of_an_earlier_boot_is_not_waited_for(harness: CommandHarness) -> None:
    launch = harness.steady("web", 3)
    me = procfs.read(os.getpid())
    assert me is not None
    record = LaunchRecord(3, launch.backend)
    async with harness.backend() as backend:
        handle = await backend.start(launch)
        await backend.stop(WEB, LONG)
    early = replace(handle, pid=me.pid, start_ticks=me.start_ticks, boot_id="00000000-0000-0000-0000-000000000000")
    Launches(harness.state_dir, launch.stack, "command").write(WEB, replace(record, handle=early))
    async with harness.backend() as backend, asyncio.timeout(LONG / 2):
        assert await backend.adopt(launch) == Gone(3, Exit.unknown("no agent saw its end"))


async def test_an_agent_that_is_killed_leaves_what_the_next_one_adopts(harness: CommandHarness) -> None:
    launch = harness.steady("web", 2)
    program = f"""
import asyncio, os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from command_harness import CommandHarness
harness = CommandHarness(Path({str(harness.state_dir)!r}))
async def main():
    async with harness.backend() as backend:
        await backend.start(harness.steady("web", 2))
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], timeout=LONG, check=False)
    async with harness.backend() as backend:
        exits = watched(backend)
        assert await backend.survivors() == (WEB,)
        found = await backend.adopt(launch)
        assert isinstance(found, Running)
        assert found.generation == 2
        harness.kill(found.handle)
        assert (await exits.next()).instance == WEB
    assert harness.calls("web", "start") == 1
