"""Where the Consul binary comes from.

The order is: what the user names, what the machine has, what was fetched before, the official release, Debian's
package. Consul is a single static program, so fetching it means to put one file into a cache: nothing is installed,
no privilege is needed, and to delete the cache undoes it.

Standard library only, so that ``bin/consul`` works before anything is installed.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from citadel_consul.consul import debian, release
from citadel_consul.errors import ConsulUnavailable, InvalidInput

VARIABLE = "CITADEL_CONSUL_BINARY"
MINIMUM = (1, 8)
_VERSION = re.compile(r"^Consul v(\d+)\.(\d+)\.(\d+)(\S*)", re.MULTILINE)
_ANSWER_SECONDS = 20.0

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ConsulBinary:
    """A Consul program that runs here. ``version`` is what it says of itself, such as ``1.8.7``.

    ``origin`` is for people: ``$CITADEL_CONSUL_BINARY``, ``PATH``, ``cache``, ``official release``, ``Debian package``.
    """

    path: Path
    version: str
    origin: str

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version, to compare with."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


def find_consul(install: bool = True, report: Report = lambda _: None) -> ConsulBinary:
    """A Consul binary, fetched into the user's cache if this machine has none.

    Blocks, for seconds when it has to fetch: call it through a thread from asynchronous code. Callers that need it at
    the same time wait for the one that fetches. ``report`` is told, a line at a time, when something takes long.
    Raises InvalidInput if ``$CITADEL_CONSUL_BINARY`` does not name a usable Consul (a wish is not overridden in
    silence), ConsulUnavailable with all that was tried if there is none.
    """
    tried: list[str] = []
    found = _from_environment(tried) or _from_path(tried) or _from_cache(tried)
    if found is not None:
        return found
    if install:
        found = _fetch(tried, report)
        if found is not None:
            return found
    else:
        tried.append("fetching: not asked for")
    raise ConsulUnavailable(_explain(tried))


def probe(path: Path, origin: str) -> ConsulBinary:
    """Ask the program at ``path`` for its version. Raises ConsulUnavailable if it is no Consul that citadel can use."""
    try:
        done = subprocess.run(
            [path, "version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConsulUnavailable(f"{path} does not run: {error}") from error
    match = _VERSION.search(done.stdout)
    if match is None:
        raise ConsulUnavailable(f"{path} does not say that it is Consul (exit {done.returncode})")
    major, minor, patch, suffix = match.groups()
    if (int(major), int(minor)) < MINIMUM:
        raise ConsulUnavailable(
            f"{path} is Consul {major}.{minor}.{patch}; {MINIMUM[0]}.{MINIMUM[1]} or newer is needed"
        )
    return ConsulBinary(path, f"{major}.{minor}.{patch}{suffix}", origin)


def cache_directory() -> Path:
    """Where fetched binaries are kept: ``${XDG_CACHE_HOME:-~/.cache}/citadel/consul``."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the XDG rule: a relative path is to be ignored
        base = Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir, ".cache")
    return base / "citadel" / "consul"


def _from_environment(tried: list[str]) -> ConsulBinary | None:
    named = os.environ.get(VARIABLE)
    if not named:
        tried.append(f"${VARIABLE}: not set")
        return None
    try:
        return probe(Path(named).absolute(), f"${VARIABLE}")
    except ConsulUnavailable as error:
        raise InvalidInput.at(VARIABLE, str(error), "name a Consul binary, or unset it") from error


def _from_path(tried: list[str]) -> ConsulBinary | None:
    program = shutil.which("consul")
    if program is None:
        tried.append("PATH: no program named consul")
        return None
    try:
        return probe(Path(program).absolute(), "PATH")
    except ConsulUnavailable as error:
        tried.append(f"PATH: {error}")
        return None


def _from_cache(tried: list[str]) -> ConsulBinary | None:
    usable: list[ConsulBinary] = []
    broken: list[str] = []
    for path in cache_directory().glob("[0-9]*/consul"):
        try:
            usable.append(probe(path, "cache"))
        except ConsulUnavailable as error:
            broken.append(str(error))
    if usable:
        return max(usable, key=lambda binary: binary.release)
    tried.append(f"cache: {'; '.join(broken) or f'nothing in {cache_directory()}'}")
    return None


def _fetch(tried: list[str], report: Report) -> ConsulBinary | None:
    cache = cache_directory()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / ".lock", report):
            # Whoever held the lock before may have fetched what is wanted here.
            return _from_cache([]) or _fetch_into(cache, tried, report)
    except OSError as error:
        tried.append(f"fetching: cannot write to {cache}: {error}")
        return None


def _fetch_into(cache: Path, tried: list[str], report: Report) -> ConsulBinary | None:
    sources: list[tuple[str, str, Callable[[Path], Path]]] = [
        ("official release", release.VERSION, release.fetch_release),
        ("Debian package", debian.SUITE, debian.fetch_package),
    ]
    for origin, which, fetch in sources:
        report(f"Consul is not on this machine: fetching it ({origin}, {which}) …")
        # In the cache, because only a rename within one file system is atomic.
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=cache) as incoming:
            try:
                fetched = probe(fetch(Path(incoming)), origin)
            except (ConsulUnavailable, OSError) as error:
                tried.append(f"{origin} ({which}): {error}")
                continue
            home = cache / fetched.version
            home.mkdir(exist_ok=True)
            binary = ConsulBinary(fetched.path.replace(home / "consul"), fetched.version, origin)
        report(f"Consul {binary.version} is in {binary.path.parent}")
        return binary
    return None


@contextmanager
def _locked(path: Path, report: Report) -> Iterator[None]:
    """Hold the advisory lock on ``path``; the kernel lets go of it when its holder dies, however it dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("Another process is fetching Consul: waiting for it …")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _explain(tried: list[str]) -> str:
    advice = (
        f"Install Consul {MINIMUM[0]}.{MINIMUM[1]} or newer (https://developer.hashicorp.com/consul/install) so that "
        f"`consul` is on PATH, or set {VARIABLE} to the path of its binary."
    )
    heading = "There is no Consul on this machine, and none could be fetched. What was tried:"
    return "\n".join([heading, *(f"  {line}" for line in tried), advice])
