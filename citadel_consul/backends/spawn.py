"""Turning a launch into an executed program, with every reason why not named by the field of the spec.

The child gets nothing of the agent but what is given here: a clean environment, its own session and process group,
``/dev/null`` as input, its log as output, no other descriptor, no blocked and no ignored signal. There is no
``preexec_fn``: Python would have to run in the child, which is slow and unsafe beside threads, and would cost the
``vfork`` path on which an exec takes a quarter of a millisecond however large the agent is.
"""

from __future__ import annotations

import errno
import os
import pwd
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from citadel_consul.backends.base import Launch
from citadel_consul.backends.family import MARKER
from citadel_consul.backends.refusals import can_pass, translated
from citadel_consul.core.model import Instance, ProcessBackend
from citadel_consul.errors import BackendError, CitadelError

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a program runs as. ``home`` and ``name`` go into its environment."""

    name: str
    home: str
    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """A program ready to be executed. ``account`` is ``None`` when it runs as whoever the agent is.

    ``field`` is where the spec names it, for what is said when it cannot be executed.
    """

    instance: Instance
    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    account: Account | None
    field: str = "backend.command"


def prepare(launch: Launch, spec: ProcessBackend, marker: str) -> Program:
    """Check a launch as far as that goes without executing it.

    Raises:
        BackendError: the command is empty, or the user is unknown or may not be switched to.
    """
    if not spec.command or not spec.command[0]:
        raise BackendError(f"{launch.instance}: backend.command: it is empty")
    account = account_of(launch.instance, spec.user)
    env = environment(launch, spec.env, account) | {MARKER: marker}
    return Program(launch.instance, spec.command, env, spec.cwd or "/", account)


def execute(program: Program, log: int) -> subprocess.Popen[bytes]:
    """Execute a program with descriptor ``log`` as both its outputs. Returns when the exec has happened.

    Raises:
        BackendError: it cannot be executed.
        BackendUnavailable: it cannot be executed at the moment.
    """
    account = program.account
    # The mask is inherited over an exec: whatever this thread blocks, the service must not.
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        return subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=program.env,
            cwd=program.cwd,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=account.groups if account else None,
        )
    except OSError as error:
        raise _explained(program, error) from error
    except (ValueError, subprocess.SubprocessError) as error:  # a NUL in a string; a failure before the exec
        raise BackendError(f"{program.instance}: {program.field}: {error}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def signal_named(instance: Instance, field: str, name: str) -> signal.Signals:
    """The signal of this name, with or without ``SIG``. Raises ``BackendError`` if there is none."""
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise BackendError(f"{instance}: backend.{field}: there is no signal {name!r}") from None


def stop_ignoring_signals() -> None:
    """Keep services from inheriting ignored signals: an exec keeps what is ignored, and resets what is handled.

    An agent under ``nohup``, or in the background of a script, ignores SIGHUP or SIGINT and SIGQUIT; so would all
    its services, whose reload or stop would be dead. A handler that does nothing is the same to the agent. (What
    Python itself ignores, SIGPIPE and SIGXFSZ, :mod:`subprocess` restores.) Handlers belong to the main thread;
    in any other this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # the kernel would reap our children and lose their status
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Handle a signal by ignoring it."""


def account_of(instance: Instance, user: str | None) -> Account | None:
    """The account of ``backend.user`` (a name or a number); ``None`` if the agent itself is it.

    Raises:
        BackendError: there is no such user, or the agent may not become it.
    """
    if user is None:
        return None
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        raise BackendError(f"{instance}: backend.user: there is no user {user!r} on this machine") from None
    if entry.pw_uid == os.geteuid() and entry.pw_gid == os.getegid():
        return None
    if os.geteuid() != 0:
        raise BackendError(
            f"{instance}: backend.user: only an agent that runs as root can run a service as {user!r}; "
            f"this one runs as uid {os.geteuid()}"
        )
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, entry.pw_dir, entry.pw_uid, entry.pw_gid, groups)


def environment(launch: Launch, env: Mapping[str, str], account: Account | None) -> dict[str, str]:
    """What a program of this launch gets instead of the agent's environment."""
    own = {
        "PATH": os.environ.get("PATH", DEFAULT_PATH),
        "HOME": account.home if account else os.environ.get("HOME", "/"),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
    }
    if account:
        own |= {"USER": account.name, "LOGNAME": account.name}
    return (
        own
        | dict(env)
        | {
            "CITADEL_STACK": launch.stack,
            "CITADEL_SERVICE": launch.instance.service,
            "CITADEL_NODE": launch.instance.node,
            "CITADEL_GENERATION": str(launch.generation),
        }
    )


def _explained(program: Program, error: OSError) -> CitadelError:
    """Why an exec failed. The kernel gives one number for several reasons; tell them apart by looking again."""
    if can_pass(error):
        return translated(f"{program.instance}: {program.field}", error)
    if error.filename == program.cwd and program.command[0] != program.cwd:
        why = (
            f"there is no folder {program.cwd!r}"
            if error.errno in (errno.ENOENT, errno.ENOTDIR)
            else f"the agent may not enter {program.cwd!r}"
        )
        return BackendError(f"{program.instance}: backend.cwd: {why}")
    return BackendError(f"{program.instance}: {program.field}: {_refusal(program, error)}")


def _refusal(program: Program, error: OSError) -> str:
    name = program.command[0]
    found = _find(program)
    if error.errno == errno.ENOENT and found is None:
        where = "" if "/" in name else f" in PATH ({program.env['PATH']})"
        return f"there is no program {name!r}{where}"
    if error.errno == errno.ENOENT:
        return f"{found} names an interpreter or a loader that does not exist"
    if error.errno == errno.EACCES:
        whom = f" by user {program.account.name!r}" if program.account else ""
        return f"{found or name} may not be executed{whom}"
    if error.errno == errno.ENOEXEC:
        return f"{found or name} is not a program that this machine can run (a script needs a '#!' line)"
    return f"{found or name}: {error.strerror or error}"


def _find(program: Program) -> Path | None:
    name = program.command[0]
    folders = [program.cwd] if "/" in name else program.env["PATH"].split(":")
    return next((path for folder in folders if _is_file(path := Path(folder, name))), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # below a folder that is closed to us
        return False
