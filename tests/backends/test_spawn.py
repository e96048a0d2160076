"""Why a program cannot be started, said with the field of the spec that is wrong."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_harness import ProcessHarness

from citadel_consul.backends.base import Launch
from citadel_consul.backends.process import ProcessBackend
from citadel_consul.errors import BackendError, BackendUnavailable

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")


def _script(path: Path, first_line: str, mode: int = 0o755) -> str:
    path.write_text(f"{first_line}\n")
    path.chmod(mode)
    return str(path)


async def _refusal(tmp_path: Path, launch: Launch) -> str:
    async with ProcessBackend(tmp_path, launch.stack) as backend:
        with pytest.raises(BackendError) as refused:
            await backend.start(launch)
        assert await backend.survivors() == ()
    return str(refused.value)


@pytest.fixture
def harness(tmp_path: Path) -> ProcessHarness:
    return ProcessHarness(tmp_path)


async def test_no_such_program_in_the_path(harness: ProcessHarness) -> None:
    launch = harness.launch("web", "nonesuch", env={"PATH": "/bin:/usr/bin"})
    assert await _refusal(harness.state_dir, launch) == (
        "web@n1: backend.command: there is no program 'nonesuch' in PATH (/bin:/usr/bin)"
    )


async def test_the_path_of_the_spec_is_the_one_that_counts(harness: ProcessHarness, tmp_path: Path) -> None:
    launch = harness.launch("web", "sh", env={"PATH": str(tmp_path)})
    assert "there is no program 'sh' in PATH" in await _refusal(harness.state_dir, launch)


async def test_no_such_program_at_a_place(harness: ProcessHarness) -> None:
    launch = harness.launch("web", "/nonesuch/program")
    assert await _refusal(harness.state_dir, launch) == (
        "web@n1: backend.command: there is no program '/nonesuch/program'"
    )


async def test_an_empty_command(harness: ProcessHarness) -> None:
    assert await _refusal(harness.state_dir, harness.launch("web")) == "web@n1: backend.command: it is empty"


async def test_a_command_with_a_nul(harness: ProcessHarness) -> None:
    text = await _refusal(harness.state_dir, harness.launch("web", "echo", "a\0b"))
    assert text == "web@n1: backend.command: embedded null byte"


async def test_an_interpreter_that_does_not_exist(harness: ProcessHarness, tmp_path: Path) -> None:
    script = _script(tmp_path / "script", "#!/nonesuch/interpreter")
    assert await _refusal(harness.state_dir, harness.launch("web", script)) == (
        f"web@n1: backend.command: {script} names an interpreter or a loader that does not exist"
    )


async def test_a_script_without_an_interpreter(harness: ProcessHarness, tmp_path: Path) -> None:
    script = _script(tmp_path / "script", "echo hello")
    assert "is not a program that this machine can run" in await _refusal(
        harness.state_dir, harness.launch("web", script)
    )


async def test_a_file_that_may_not_be_executed(harness: ProcessHarness, tmp_path: Path) -> None:
    script = _script(tmp_path / "script", "#!/bin/sh", mode=0o644)
    assert await _refusal(harness.state_dir, harness.launch("web", script)) == (
        f"web@n1: backend.command: {script} may not be executed"
    )


async def test_no_such_folder(harness: ProcessHarness) -> None:
    launch = harness.launch("web", "true", cwd="/nonesuch/folder")
    assert await _refusal(harness.state_dir, launch) == "web@n1: backend.cwd: there is no folder '/nonesuch/folder'"


@pytest.fixture
def as_nobody() -> Iterator[ProcessHarness]:
    """A machine on which the agent is not root."""
    with tempfile.TemporaryDirectory() as folder:  # the folders of pytest are closed to others
        Path(folder).chmod(0o777)
        os.seteuid(65534)
        try:
            yield ProcessHarness(Path(folder))
        finally:
            os.seteuid(0)


@as_root
async def test_a_folder_that_the_agent_may_not_enter(as_nobody: ProcessHarness) -> None:
    folder = "/proc/1/cwd/"
    launch = as_nobody.launch("web", "true", cwd=folder)
    assert await _refusal(as_nobody.state_dir, launch) == (f"web@n1: backend.cwd: the agent may not enter {folder!r}")


@pytest.mark.parametrize("user", ["nonesuch-user", "4294967295", "99999999999999999999"])
async def test_no_such_user(harness: ProcessHarness, user: str) -> None:
    launch = harness.launch("web", "true", user=user)
    assert await _refusal(harness.state_dir, launch) == (
        f"web@n1: backend.user: there is no user {user!r} on this machine"
    )


@as_root
async def test_only_root_can_change_the_user(as_nobody: ProcessHarness) -> None:
    launch = as_nobody.launch("web", "true", user="daemon")
    assert await _refusal(as_nobody.state_dir, launch) == (
        "web@n1: backend.user: only an agent that runs as root can run a service as 'daemon'; "
        "this one runs as uid 65534"
    )


async def test_a_state_folder_that_cannot_be_written() -> None:
    harness = ProcessHarness(Path("/proc/citadel"))
    assert "web@n1: cannot open its log /proc/citadel/contract/n1/logs/web.log: " in await _refusal(
        harness.state_dir, harness.launch("web", "true")
    )


@pytest.mark.parametrize("field", ["stop_signal", "reload_signal"])
async def test_no_such_signal(harness: ProcessHarness, field: str) -> None:
    launch = (
        harness.launch("web", "true", stop_signal="SIGNONE")
        if field == "stop_signal"
        else harness.launch("web", "true", reload_signal="SIGNONE")
    )
    assert await _refusal(harness.state_dir, launch) == f"web@n1: backend.{field}: there is no signal 'SIGNONE'"


async def test_a_stack_of_somebody_else(harness: ProcessHarness) -> None:
    async with ProcessBackend(harness.state_dir, "other") as backend:
        with pytest.raises(BackendError, match=r"^web@n1: it is of stack 'contract', this backend serves 'other'"):
            await backend.start(harness.launch("web", "true"))


async def test_want_of_descriptors_is_temporary(harness: ProcessHarness) -> None:
    launch = harness.launch("web", "sleep", "1000")
    async with harness.backend() as backend:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for spare in range(8):
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, hard))
            try:
                await backend.start(launch)
            except BackendUnavailable:
                continue
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            break
        assert spare > 3
        assert len(harness.marked("web")) <= 1
        await backend.stop(launch.instance, 10)
        assert harness.marked("web") == []
