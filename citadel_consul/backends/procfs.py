"""What the kernel says of processes: a thin, fast reader of ``/proc`` (see ``proc(5)``).

Processes end while one looks at them, so everything here answers 'not there' instead of raising for that. Only for
that: being unable to look (no descriptor left) raises ``BackendUnavailable``, or a running service would be taken for
gone and started twice.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from citadel_consul.backends.refusals import translated
from citadel_consul.errors import BackendError

_CHUNK = 64 * 1024
_PF_KTHREAD = 0x00200000  # include/linux/sched.h
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of ``/proc/<pid>/stat``. ``pid`` with ``start_ticks`` names a process for ever within one boot."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    start_ticks: int
    flags: int = 0

    @property
    def identity(self) -> tuple[int, int]:
        """What no other process of this boot has or will have."""
        return self.pid, self.start_ticks

    @property
    def of_kernel(self) -> bool:
        """Whether it is a thread of the kernel, which runs no program."""
        return bool(self.flags & _PF_KTHREAD)

    @property
    def ended(self) -> bool:
        """Whether it is a zombie: it runs no more, its parent has yet to take note."""
        return self.state in "ZX"


def read(pid: int) -> Process | None:
    """The process with this number, or ``None``."""
    raw = _content(f"/proc/{pid}/stat")
    if not raw:
        return None
    # The name in parentheses may itself hold spaces and parentheses: count from the last one.
    fields = raw[raw.rindex(b")") + 2 :].split()
    numbers = (int(fields[index]) for index in (1, 2, 3, 19, 6))
    return Process(pid, fields[0].decode(), *numbers)


def processes() -> list[Process]:
    """Every process of this PID namespace, threads of the kernel left out.

    Their session does not tell them: in a container, whatever was started from outside has the session 0 as well.
    """
    found = (read(pid) for pid in _pids())
    return [process for process in found if process is not None and not process.of_kernel]


def children(pid: int) -> list[int]:
    """The numbers of the direct children of a process, of all its threads, zombies included."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
    except FileNotFoundError:
        return []
    lists = [_content(f"/proc/{pid}/task/{thread}/children") for thread in threads]
    if all(item is None for item in lists):  # a kernel without CONFIG_PROC_CHILDREN
        return [process.pid for process in processes() if process.parent == pid]
    return [int(child) for item in lists if item for child in item.split()]


def variable(pid: int, name: str) -> str | None:
    """An environment variable as the process had it when it was executed.

    ``None`` if it had none, if it may not be looked at, if it wrote over the memory (programs that set their own title
    do: redis, postgres, nginx), and for an instant during an exec, before the kernel has laid out the new memory.
    """
    key = f"{name}=".encode()
    for entry in (_content(f"/proc/{pid}/environ") or b"").split(b"\0"):
        if entry.startswith(key):
            return entry[len(key) :].decode(errors="replace")
    return None


def outputs(pid: int) -> frozenset[tuple[int, int]]:
    """Device and inode of the files that are the standard output and standard error of a process."""
    found = set()
    for descriptor in (1, 2):
        try:
            status = os.stat(f"/proc/{pid}/fd/{descriptor}")  # noqa: PTH116 – a Path costs more than the call
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def exists(pid: int) -> bool:
    """Whether the number is taken, even by a process that ``/proc`` hides from us (mount option ``hidepid``)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@functools.cache
def boot_id() -> str:
    """A UUID that the kernel draws anew at each boot."""
    content = _content("/proc/sys/kernel/random/boot_id")
    if content is None:
        raise BackendError("cannot read /proc/sys/kernel/random/boot_id: is /proc mounted?")
    return content.decode().strip()


def ticks_since_boot() -> int:
    """Now, on the clock of ``start_ticks``."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS_PER_SECOND)


def _pids() -> Iterator[int]:
    try:
        names = os.listdir("/proc")  # noqa: PTH208 – hundreds of Path objects cost more than the reading
    except OSError as error:
        raise translated("cannot list /proc", error) from error
    return (int(name) for name in names if name.isdigit())


def _content(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    except OSError as error:
        raise translated(f"cannot read {path}", error) from error
    try:
        parts = []
        while part := os.read(descriptor, _CHUNK):
            parts.append(part)
        return b"".join(parts)
    except (ProcessLookupError, PermissionError):  # ended, or changed its user, since it was opened
        return None
    finally:
        os.close(descriptor)
