"""A network of its own for a test, with its own resolv.conf: nothing in it reaches beyond it, nor beyond its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from consul_process import die_with_parent

WITHIN = 30.0
"""How long anything may take (seconds) on a machine under load."""

# systemd-resolved uses no DNS server before some network is up: a pair of cards that are wired to each other will do.
_SET_UP = """
set -e
ip link set lo up
ip link add up0 type veth peer name up1
ip address add 192.0.2.10/24 dev up0
ip link set up1 up
ip link set up0 up
ip route add default via 192.0.2.1
mount --bind "$1" /etc/resolv.conf
mount --bind "$2" /etc/nsswitch.conf
echo ready
exec sleep infinity
"""


class NoNamespaces(Exception):
    """This machine does not let us have one; the text says why."""


@dataclass
class Netspace:
    """Network and mount namespaces, which live as long as one sleeping process."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _enter: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        for program in ("unshare", "nsenter", "ip", "getent"):
            if shutil.which(program) is None:
                raise NoNamespaces(f"there is no program {program} (packages util-linux, iproute2, libc-bin)")
        self.resolv_conf.write_text("nameserver 127.0.0.1\noptions attempts:1 timeout:2\n")
        (self.folder / "nsswitch.conf").write_text("hosts: files dns\n")
        as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        files = [str(self.resolv_conf), str(self.folder / "nsswitch.conf")]
        command = ["unshare", "--net", "--mount", *as_root, "--", "/bin/sh", "-c", _SET_UP, "set-up", *files]
        with (self.folder / "set-up.log").open("wb") as complaints:
            holder = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        self.processes.append(holder)
        assert holder.stdout is not None
        with holder.stdout as output:
            ready = output.readline() == b"ready\n"
        if not ready:
            self.__exit__()
            raise NoNamespaces(f"no network namespace: {self.log('set-up').strip()}")
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        self._enter = ("nsenter", f"--target={holder.pid}", *user, "--net", "--mount", "--")
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()

    @property
    def resolv_conf(self) -> Path:
        """The resolv.conf that programs in there see."""
        return self.folder / "resolv.conf"

    def name_server(self, address: str) -> None:
        """Have programs ask another name server."""
        self.resolv_conf.write_text(f"nameserver {address}\noptions attempts:1 timeout:2\n")

    def spawn(
        self, command: Sequence[str | Path], log: str, environ: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program in there, which ends with the namespace."""
        with (self.folder / f"{log}.log").open("ab") as output:
            process = subprocess.Popen(
                [*self._enter, *map(str, command)], env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def run(
        self, command: Sequence[str | Path], environ: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in there to its end."""
        return subprocess.run(
            [*self._enter, *map(str, command)], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=WITHIN, check=False,
        )  # fmt: skip

    def log(self, name: str) -> str:
        """The end of what a program has said."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""


def until(condition: Callable[[], bool], what: str) -> float:
    """Wait for ``condition``; returns how long it took in seconds, and fails the test if it does not come true."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < WITHIN, f"not within {WITHIN} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - began
