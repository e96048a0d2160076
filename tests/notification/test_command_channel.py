"""Running commands: real programs that read, that do not, that fail, and that never end."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from incidents import frozen, incident, notice

from citadel_consul.config.receivers import EVERY_TRANSITION, CommandReceiver
from citadel_consul.errors import ReceiverRefused, ReceiverUnavailable
from citadel_consul.notification.command import CommandChannel


def program(*command: str, timeout_seconds: float = 20.0) -> CommandChannel:
    receiver = CommandReceiver(name="p", when=EVERY_TRANSITION, command=command, timeout_seconds=timeout_seconds)
    return CommandChannel(receiver)


def python(code: str, *args: str, timeout_seconds: float = 20.0) -> CommandChannel:
    return program(sys.executable, "-S", "-E", "-c", code, *args, timeout_seconds=timeout_seconds)


COPY = """
import json, os, sys
names = [n for n in os.environ if n.startswith(("CITADEL_NOTICE", "CONSUL"))]
document = {"input": json.load(sys.stdin), "environ": {n: os.environ[n] for n in names}}
open(sys.argv[1], "w").write(json.dumps(document))
"""


async def test_a_command_reads_the_notice_as_json_and_finds_the_least_of_it_in_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "t0ken")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:8500")
    await python(COPY, str(tmp_path / "out")).deliver(notice())
    found = json.loads((tmp_path / "out").read_text())
    assert found["input"]["incident"]["affected"] == ["embedding-service", "api-gateway"]
    assert found["environ"] == {
        "CITADEL_NOTICE_ID": notice().id,
        "CITADEL_NOTICE_TRANSITION": "opened",
        "CITADEL_NOTICE_SERVICE": "qdrant",
        "CITADEL_NOTICE_TITLE": notice().title,
        "CONSUL_HTTP_ADDR": "127.0.0.1:8500",
    }


async def test_an_incident_of_the_stack_has_no_service(tmp_path: Path) -> None:
    await python(COPY, str(tmp_path / "out")).deliver(notice(about=frozen()))
    found = json.loads((tmp_path / "out").read_text())
    assert found["environ"]["CITADEL_NOTICE_SERVICE"] == ""
    assert found["input"]["service"] is None


async def test_a_command_need_not_read_however_long_the_notice_is() -> None:
    long = incident(affected=tuple(f"service-{n}" for n in range(20_000)))
    await python("pass").deliver(notice(about=long))


async def test_arguments_are_passed_as_they_are_and_no_shell_sees_them(tmp_path: Path) -> None:
    odd = "$(touch x); `id` 'a' \"b\" *"
    await python("import sys; open(sys.argv[1], 'w').write(sys.argv[2])", str(tmp_path / "out"), odd).deliver(notice())
    assert (tmp_path / "out").read_text() == odd


async def test_a_command_that_fails_can_succeed_later_and_its_last_words_are_told() -> None:
    code = "import sys; sys.stderr.write('x' * 100_000 + '\\nno route to pager'); sys.exit(3)"
    with pytest.raises(ReceiverUnavailable, match=r"exited with status 3: .*no route to pager$") as caught:
        await python(code).deliver(notice())
    assert len(str(caught.value)) < 500


async def test_a_command_that_is_killed_says_by_what() -> None:
    with pytest.raises(ReceiverUnavailable, match="was ended by SIGABRT"):
        await python("import os, signal; os.kill(os.getpid(), signal.SIGABRT)").deliver(notice())


@pytest.mark.parametrize("path", ["/no/such/program", "/etc/passwd", "/etc/passwd/x"])
async def test_a_command_that_cannot_be_run_is_refused_at_once(path: str) -> None:
    with pytest.raises(ReceiverRefused, match=f"^{path} cannot be run"):
        await program(path).deliver(notice())


HANG = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
open(sys.argv[1] + str(os.getpid()), "w").close()
os.rename(sys.argv[1] + str(os.getpid()), sys.argv[1] + "-" + str(os.getpid()))
time.sleep(1000)
"""


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def test_a_command_that_never_ends_is_ended_with_its_children(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(ReceiverUnavailable, match="did not end within 1 s"):
        await python(HANG, str(tmp_path / "pid"), timeout_seconds=1.0).deliver(notice())
    assert time.monotonic() - began < 5.0
    pids = [int(name.partition("-")[2]) for name in os.listdir(tmp_path)]  # noqa: PTH208
    assert len(pids) == 2
    deadline = time.monotonic() + 5.0
    while any(_lives(pid) for pid in pids) and time.monotonic() < deadline:
        os.sched_yield()
    assert not [pid for pid in pids if _lives(pid)]


async def test_a_child_that_outlives_its_command_holds_up_nothing(tmp_path: Path) -> None:
    code = "import os, sys, time; pid = os.fork(); pid or time.sleep(60); open(sys.argv[1], 'w').write(str(pid))"
    began = time.monotonic()
    await python(code, str(tmp_path / "child")).deliver(notice())
    assert time.monotonic() - began < 10.0
    os.kill(int((tmp_path / "child").read_text()), 9)


async def test_deliveries_leave_no_descriptor_open() -> None:
    channel = python("import sys; sys.stderr.write('x'); sys.exit(1)")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        with pytest.raises(ReceiverUnavailable):
            await channel.deliver(notice())
    with pytest.raises(ReceiverRefused):
        await program("/no/such/program").deliver(notice())
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208 - the watcher of children keeps one
