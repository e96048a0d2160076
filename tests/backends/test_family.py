"""Which processes belong to a launch: the rules, on tables of processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from citadel_consul.backends import procfs
from citadel_consul.backends.family import Evidence, Look, Lookout, main_process, members
from citadel_consul.backends.procfs import Process

AGENT, MAIN = 50, 100
LOG = (8, 77)
LAUNCH = Evidence("place-nonce", since_ticks=1000, log=LOG, leader=(MAIN, 1000))


def _process(pid: int, parent: int, session: int, *, group: int = 0, start: int = 1001, state: str = "S") -> Process:
    return Process(pid, state, parent, group or session, session, start)


_WORLD = (
    _process(1, 0, 1, start=1),
    _process(40, 1, 40, start=900),  # what started the agent
    _process(AGENT, 40, 40, start=950),
    _process(MAIN, AGENT, MAIN, start=1000),
)


def _look(*processes: Process, markers: dict[int, str] | None = None, outputs: dict[int, int] | None = None) -> Look:
    table = {process.pid: process for process in (*_WORLD, *processes)}
    files = {pid: frozenset({(8, inode)}) for pid, inode in (outputs or {}).items()}
    return Look(table, AGENT, markers or {}, files)


def _found(look: Look, evidence: Evidence = LAUNCH) -> list[int]:
    return [process.pid for process in members(look, evidence)]


def test_the_main_process_its_session_and_its_group_belong() -> None:
    look = _look(_process(101, 1, MAIN), _process(102, 1, 102, group=MAIN), _process(103, 1, 103))
    assert _found(look) == [MAIN, 101, 102]


def test_what_bears_the_marker_belongs_wherever_it_went() -> None:
    assert _found(_look(_process(101, 1, 101), markers={101: "place-nonce"})) == [MAIN, 101]


def test_a_marker_of_another_launch_of_the_same_service_is_another_marker() -> None:
    assert _found(_look(_process(101, 1, 101), markers={101: "place-other"})) == [MAIN]


def test_children_of_what_belongs_belong_at_any_depth() -> None:
    look = _look(_process(103, 102, 103), _process(102, 101, 102), _process(101, MAIN, 101))
    assert _found(look) == [MAIN, 101, 102, 103]


def test_what_belonged_earlier_belongs_but_its_number_does_not() -> None:
    evidence = Evidence("place-nonce", 1000, LOG, known=frozenset({(101, 1001), (102, 1001)}))
    assert _found(_look(_process(101, 1, 101), _process(102, 1, 102, start=2000)), evidence) == [101]


@pytest.mark.parametrize("host", [1, AGENT, 40])
def test_an_orphan_that_writes_to_the_log_belongs(host: int) -> None:
    assert _found(_look(_process(101, host, 101), outputs={101: LOG[1]})) == [MAIN, 101]


def test_a_command_of_an_operator_that_writes_to_the_log_does_not_belong() -> None:
    look = _look(_process(60, 1, 60), _process(101, 60, 60), outputs={101: LOG[1]})
    assert _found(look) == [MAIN]


def test_what_is_older_than_the_launch_does_not_belong() -> None:
    look = _look(_process(101, 1, 101, start=999), markers={101: "place-nonce"})
    assert _found(look) == [MAIN]


def test_the_agent_and_the_first_process_never_belong() -> None:
    look = _look(markers={1: "place-nonce", AGENT: "place-nonce"})
    assert _found(look, Evidence("place-nonce", 0, LOG)) == []


def test_zombies_are_no_more_but_their_session_is() -> None:
    look = _look(_process(MAIN, AGENT, MAIN, start=1000, state="Z"), _process(101, 1, MAIN))
    assert _found(look) == [101]


def test_a_number_that_came_round_again_proves_nothing_of_its_session() -> None:
    look = _look(_process(MAIN, 1, MAIN, start=5000), _process(101, MAIN, MAIN, start=5001))
    assert _found(look) == []


def test_without_a_watched_main_process_its_number_proves_nothing() -> None:
    look = _look(_process(101, 1, MAIN))
    assert _found(look, Evidence("place-nonce", 1000, LOG)) == []


def _main(look: Look) -> int | None:
    found = main_process(look, Evidence("place-nonce", 1000, LOG))
    return found.pid if found else None


def test_the_main_process_is_the_session_leader_that_no_other_one_begot() -> None:
    look = _look(
        _process(90, MAIN, 90),
        _process(101, MAIN, MAIN),
        markers={90: "place-nonce", MAIN: "place-nonce", 101: "place-nonce"},
    )
    assert _main(look) == MAIN


def test_the_main_process_is_known_by_its_log_if_it_wiped_its_environment() -> None:
    assert _main(_look(outputs={MAIN: LOG[1]})) == MAIN


def test_there_is_no_main_process_if_only_descendants_live() -> None:
    assert _main(_look(_process(101, 1, 99), markers={101: "place-nonce"})) is None
    assert _main(_look(_process(MAIN, 1, MAIN, state="Z"), markers={MAIN: "place-nonce"})) is None


async def test_questions_asked_together_share_a_look_that_is_younger_than_all_of_them() -> None:
    lookout = Lookout()
    first = await lookout.look()
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(lookout.look()) for _ in range(20)]
    looks = {id(task.result()) for task in asking}
    assert id(first) not in looks
    assert len(looks) == 2  # the one that the first question began, and one for all that came while it was under way


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a name made to confuse."""
    program = tmp_path / ") R 1 (x"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "1000"], start_new_session=True, env={"NAME": "value"}) as process:
        yield process
        process.kill()


def test_a_process_is_read_right_whatever_its_name(odd: subprocess.Popen[bytes]) -> None:
    process = procfs.read(odd.pid)
    assert process is not None
    assert (process.parent, process.session, process.group) == (os.getpid(), odd.pid, odd.pid)
    assert 0 <= procfs.ticks_since_boot() - process.start_ticks < 1000
    assert procfs.variable(odd.pid, "NAME") == "value"
    assert procfs.variable(odd.pid, "NAM") is None
    # proc(5): while children come and go, one look may miss one. The next one sees it.
    assert any(odd.pid in procfs.children(os.getpid()) for _ in range(100))
    assert odd.pid in {other.pid for other in procfs.processes()}


def test_threads_of_the_kernel_are_no_processes() -> None:
    assert not Process(MAIN, "S", 1, 0, 0, 1001, flags=0x0040_0100).of_kernel
    assert Process(2, "S", 0, 0, 0, 0, flags=0x0020_8040).of_kernel  # kthreadd of a Linux 6


@pytest.mark.skipif(os.geteuid() != 0, reason="making a PID namespace takes root")
def test_a_process_whose_session_is_of_another_namespace_is_seen() -> None:
    """It shows as session 0 then: so does everything that is run in a container by ``docker exec``."""
    code = "import os; from citadel_consul.backends.procfs import processes; print(os.getsid(0), len(processes()))"
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    done = subprocess.run(inside, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "unshare" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout == "0 1\n", done.stderr


def test_what_is_not_there_is_not_there() -> None:
    beyond = 2**22 + 1  # above the highest number that the kernel gives
    assert procfs.read(beyond) is None
    assert procfs.variable(beyond, "PATH") is None
    assert procfs.outputs(beyond) == frozenset()
    assert procfs.children(beyond) == []
    assert not procfs.exists(beyond)
    assert procfs.exists(1)
