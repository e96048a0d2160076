"""Programs from Debian's archive for tests, by the machine's own apt and without installing anything.

What a machine lacks of a package and its dependencies is downloaded and unpacked into the user's cache, with lists and
archives of its own: neither the machine's packages nor its lists are touched, and root is not needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from citadel_consul.consul.binary import cache_directory

_SECONDS = 300
_LIBRARY = re.compile(r"[^/]+\.so(\.[0-9]+)*")
_BIN = ("usr/lib/chromium", "usr/sbin", "usr/bin", "sbin", "bin", "lib/systemd", "usr/lib/systemd")


class NotToBeHad(Exception):
    """The packages cannot be had here; the text says why."""


@dataclass(frozen=True)
class Tree:
    """Unpacked packages. What the machine has itself is not in them."""

    root: Path

    def program(self, name: str) -> Path:
        """The path of a program: the unpacked one, or else the machine's own."""
        for folder in _BIN:
            if (found := self.root / folder / name).is_file():
                return found
        own = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        if own is None:
            raise NotToBeHad(f"there is no program {name} in the packages nor on this machine")
        return Path(own)

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which its programs find their libraries."""
        folders = {str(file.parent) for file in self.root.glob("**/*.so*") if _LIBRARY.fullmatch(file.name)}
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(sorted(folders))} if folders else dict(os.environ)


def unpacked(*packages: str) -> Tree:
    """A tree with ``packages``, from the cache if it is there. Raises NotToBeHad with the reason."""
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise NotToBeHad(f"{program} is not installed (not a Debian system?)")
    cache = cache_directory().parent / "debian"
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / hashlib.sha256("\0".join([_release(), *sorted(packages)]).encode()).hexdigest()[:16]
    with _locked(cache / ".lock"):
        if not home.is_dir():
            with tempfile.TemporaryDirectory(prefix=".incoming-", dir=cache) as incoming:
                _fetch(Path(incoming), packages).rename(home)
    return Tree(home)


def _release() -> str:
    """Which Debian this is, and which packages it has: the tree holds what is missing beside them."""
    parts = [Path("/etc/debian_version"), Path("/var/lib/dpkg/status")]
    return "".join(path.read_text(errors="replace") for path in parts if path.exists())


def _fetch(workspace: Path, packages: tuple[str, ...]) -> Path:
    for part in ("lists/partial", "cache/archives/partial", "root"):
        (workspace / part).mkdir(parents=True)
    settings = {
        "Dir::State::lists": workspace / "lists",
        "Dir::Cache": workspace / "cache",
        "APT::Sandbox::User": "",  # the cache is the user's own, into which _apt could not write
        "Debug::NoLocking": "1",
        "Acquire::Retries": "2",
    }
    apt = ["apt-get", "-q", "-y", *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]
    _run([*apt, "update"])
    _run([*apt, "install", "--download-only", "--no-install-recommends", *packages])
    for archive in sorted((workspace / "cache" / "archives").glob("*.deb")):
        _run(["dpkg", "-x", str(archive), str(workspace / "root")])
    return workspace / "root"


def _run(command: list[str]) -> None:
    environ = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHad(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        complaints = [line for line in done.stderr.splitlines() if line.startswith("E: ")]
        raise NotToBeHad(f"{command[0]} {command[-1]}: {' '.join(complaints)[:400] or f'exit {done.returncode}'}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the advisory lock on ``path``: one download at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
