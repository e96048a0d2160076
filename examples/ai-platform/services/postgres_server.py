"""Service ``postgresql``: makes a cluster once, then becomes a real postgres.

Nothing of Python stays: the process is replaced by the postmaster, so the supervisor's signals reach it (SIGINT is
its fast shutdown, SIGTERM waits for clients to leave).

An open port means, within milliseconds, that postgres takes queries. By itself it opens its socket first and then
replays what a crash left, however long that takes; so a cluster that was not shut down is recovered beforehand, in
single-user mode, which has no socket.

Postgres refuses to run as root. Started by root, this program makes the cluster over to an unprivileged user and
becomes that user. Such a user often cannot enter root's home, where the data folder and the Python environment may
be; then the cluster (or a copy of the server's files) is placed below ``SHARED_STATE_DIR``, by default
``/var/lib/citadel-ai-platform``, and the data folder holds a link to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .postgres_files import Installation, find_installation
from .settings import BadSetting, Settings

SHARED_STATE = "/var/lib/citadel-ai-platform"
DATABASE = "ai_platform"
SUPERUSER = "citadel"


@dataclass(frozen=True, slots=True)
class Account:
    """Who the server runs as."""

    uid: int
    gid: int
    drop: bool

    @classmethod
    def choose(cls, wanted: str) -> Account:
        """The present user, or, for root, ``wanted``, ``postgres`` or ``nobody``, whichever exists first."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid(), drop=False)
        for name in filter(None, (wanted, "postgres", "nobody")):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                if entry.pw_uid != 0:
                    return cls(entry.pw_uid, entry.pw_gid, drop=True)
        raise BadSetting("postgres refuses to run as root, and there is no unprivileged user to run it as")

    def become(self) -> None:
        """Give up root for good, in this process."""
        if self.drop:
            os.setgroups([])
            os.setgid(self.gid)
            os.setuid(self.uid)

    def can(self, question: Callable[[], bool]) -> bool:
        """What ``question`` answers when this account asks it (in a child, for the way back to root is closed)."""
        if not self.drop:
            return question()
        child = os.fork()
        if child == 0:
            answer = False
            try:
                self.become()
                answer = question()
            finally:
                os._exit(0 if answer else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def own(self, folder: Path) -> None:
        """Make ``folder`` and make it over to this account, closed to everyone else."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.drop:
            os.chown(folder, self.uid, self.gid)


def cluster_folder(data_dir: Path, account: Account, shared: Path) -> Path:
    """The folder around the cluster: in ``data_dir`` if the account can get there, else in ``shared`` (linked)."""
    data_dir.mkdir(parents=True, exist_ok=True)
    cluster = data_dir / "cluster"
    if not cluster.is_symlink():
        account.own(cluster)
        if account.can(lambda: os.access(cluster, os.R_OK | os.W_OK | os.X_OK)):
            return cluster
        cluster.rmdir()
        elsewhere = shared / hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:12]
        shared.mkdir(mode=0o755, parents=True, exist_ok=True)
        cluster.symlink_to(elsewhere)
    folder = cluster.readlink()
    account.own(folder)
    return folder


def reachable(installation: Installation, account: Account, shared: Path) -> Installation:
    """``installation``, or a copy of it in ``shared`` when the account cannot read it where it is."""
    if account.can(installation.usable):
        return installation
    shared.mkdir(mode=0o755, parents=True, exist_ok=True)
    copy = installation.copy_to(shared)
    if not account.can(copy.usable):
        raise BadSetting(f"user {account.uid} can run postgres neither from {installation.home} nor from {copy.home}")
    return copy


@dataclass(frozen=True, slots=True)
class Server:
    """One cluster and the program that runs it."""

    installation: Installation
    cluster: Path
    settings: Settings

    def initialise(self) -> None:
        """Make the cluster, its superuser and its database, unless they exist: by a rename, so whole or not at all."""
        if self.cluster.exists():
            return
        unfinished = self.cluster.with_name("unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        self._initdb(unfinished, self.cluster.with_name("password"))
        self._single(unfinished, f"CREATE DATABASE {DATABASE}\n")
        unfinished.rename(self.cluster)

    def _initdb(self, folder: Path, password_file: Path) -> None:
        password_file.write_text(self.settings.text("POSTGRES_PASSWORD") + "\n")
        options = ["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", f"--username={SUPERUSER}"]
        command = [self.installation.program("initdb"), *options, f"--pwfile={password_file}", "-D", str(folder)]
        try:
            _checked(command, "")
        finally:
            password_file.unlink()

    def _single(self, folder: Path, statements: str) -> None:
        _checked([self.installation.program("postgres"), "--single", "-D", str(folder), "postgres"], statements)

    def recover(self) -> None:
        """Replay the log of a cluster that was not shut down; refused by postgres itself while one still runs."""
        if (self.cluster / "postmaster.pid").exists():
            self._single(self.cluster, "")

    def command(self) -> list[str]:
        """The argument list of the postmaster: TCP on loopback only, small buffers, full durability."""
        options = {
            "listen_addresses": self.settings.host,
            "port": str(self.settings.port),
            "unix_socket_directories": "",
            "max_connections": self.settings.text("MAX_CONNECTIONS", "60"),
            "shared_buffers": "32MB",
            "jit": "off",
            "log_line_prefix": "%m [%p] ",
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [self.installation.program("postgres"), "-D", str(self.cluster), *settings]


def _checked(command: list[str], stdin: str) -> None:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BadSetting(f"{Path(command[0]).name} failed with status {done.returncode}: {done.stderr.strip()}")


def main() -> None:
    """Become postgres."""
    settings = Settings.read("postgresql")
    if not settings.text("POSTGRES_PASSWORD"):
        raise BadSetting("POSTGRES_PASSWORD must be set: it becomes the superuser's password")
    account = Account.choose(settings.text("RUN_AS"))
    shared = Path(settings.text("SHARED_STATE_DIR", SHARED_STATE))
    cluster = cluster_folder(settings.data_dir, account, shared) / "data"
    server = Server(reachable(find_installation(cluster), account, shared), cluster, settings)
    account.become()
    os.chdir("/")
    os.umask(0o077)
    server.initialise()
    server.recover()
    arguments = server.command()
    os.execve(arguments[0], arguments, {k: v for k, v in os.environ.items() if k != "POSTGRES_PASSWORD"})


if __name__ == "__main__":
    main()
