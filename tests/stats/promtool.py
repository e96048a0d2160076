"""Prometheus' own checker of rules: the machine's, or that of Debian's package, which is fetched and not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

PACKAGE = "prometheus"
PLACE = "./usr/bin/promtool"
FETCH_SECONDS = 120.0


class NoPromtoolError(Exception):
    """There is none on this machine, and it could not be fetched; the message says why."""


def find_promtool() -> Path:
    """The program, from PATH, from the cache, or by the machine's apt with the package lists that it has."""
    known = shutil.which("promtool")
    if known is not None:
        return Path(known)
    cached = _cache() / "promtool"
    return cached if cached.exists() else _fetch(cached)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "citadel" / "promtool"


def _fetch(cached: Path) -> Path:
    cached.parent.mkdir(parents=True, exist_ok=True)
    # As root, apt downloads as a user who cannot look into root's home.
    with tempfile.TemporaryDirectory(prefix="citadel-promtool-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        apt = ["apt-get", "-q", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=10", "download", PACKAGE]
        _run(apt, folder)
        packages = list(folder.glob(f"{PACKAGE}_*.deb"))
        if not packages:
            raise NoPromtoolError(f"apt-get downloaded no package {PACKAGE}")
        archive = folder / "files.tar"
        with archive.open("wb") as file:
            _run(["dpkg-deb", "--fsys-tarfile", str(packages[0])], folder, file.fileno())
        _run(["tar", "-xf", str(archive), PLACE], folder)
        incoming = cached.with_suffix(f".{os.getpid()}")
        shutil.copy2(folder / PLACE, incoming)
        return incoming.replace(cached)


def _run(command: list[str], folder: Path, output: int = subprocess.DEVNULL) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=FETCH_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoPromtoolError(str(error)) from error
    if done.returncode:
        raise NoPromtoolError(f"{command[0]}: {done.stderr.decode(errors='replace').strip()[-300:]}")
