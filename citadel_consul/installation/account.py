"""The account that citadel's processes run as."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Sequence
from pathlib import Path

from citadel_consul.backends import procfs
from citadel_consul.errors import BackendError
from citadel_consul.installation import places
from citadel_consul.installation.systemctl import run


def exists(user: str) -> bool:
    """Whether this machine knows ``user``."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def group_exists(group: str) -> bool:
    """Whether this machine knows ``group``."""
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


def make(user: str) -> None:
    """Make the account as the installed file for systemd-sysusers describes it."""
    done = run(["systemd-sysusers", places.SYSUSERS])
    if done.returncode != 0 or not exists(user):
        raise BackendError(f"the account {user} could not be made: {done.stderr.strip()}")


def remove(user: str) -> None:
    """Remove the account and its group. Raises BackendError if that is refused."""
    done = run(["userdel", user])
    if done.returncode != 0:
        raise BackendError(f"the account {user} could not be removed: {done.stderr.strip()}")


def give_group(path: Path, user: str) -> None:
    """Have the group of ``user`` read a file, as far as the group exists."""
    try:
        group = grp.getgrnam(user).gr_gid
    except KeyError:
        return
    os.chown(path, -1, group)


def has_processes(user: str) -> bool:
    """Whether any process runs as ``user``."""
    uid = pwd.getpwnam(user).pw_uid
    return any(_owner(process.pid) == uid for process in procfs.processes())


def can_read(user: str, path: Path) -> bool:
    """Whether ``user``, as the machine knows that account now, may read the file ``path``."""
    entry = pwd.getpwnam(user)
    if entry.pw_uid == 0:
        return True
    groups = os.getgrouplist(user, entry.pw_gid)
    end = path.resolve()
    return all(_allows(part, entry.pw_uid, groups) for part in (*reversed(end.parents), end))


def blocked_at(path: Path) -> Path | None:
    """The first part of ``path``, or of what its links lead to, that not everybody may enter or read; None if none."""
    places_on_the_way = {path.absolute(), path.resolve()}
    for end in places_on_the_way:
        for part in (*reversed(end.parents), end):
            mode = part.stat().st_mode
            needed = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
            if not mode & needed:
                return part
    return None


def _allows(path: Path, uid: int, groups: Sequence[int]) -> bool:
    """Whether the mode of ``path`` lets them read a file, or enter a folder."""
    try:
        status = path.stat()
    except OSError:
        return False
    needed = stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else stat.S_IROTH
    shift = 6 if status.st_uid == uid else 3 if status.st_gid in groups else 0
    return bool(status.st_mode & (needed << shift))


def _owner(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
