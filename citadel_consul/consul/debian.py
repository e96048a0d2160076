"""Consul from Debian's archive, by the machine's own apt and without installing anything.

Debian ships Consul up to bullseye. The package is fetched from whichever mirror the machine's apt already uses (so a
company's mirror, proxy and certificates just work), with lists and cache of its own: the machine's package lists are
not touched, and neither root nor a configured bullseye is needed. apt checks the archive's signature against Debian's
keyring, and the package against the archive.

Standard library only: a machine gets its Consul before it has anything else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from citadel_consul.errors import ConsulUnavailable

SUITE = "bullseye"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_APT_SETTINGS = Path("/etc/apt")
_COMMAND_SECONDS = 120.0
_URI = re.compile(r"(?:mirror\+)?(?:https?|file|cdrom|ftp):\S+")


def fetch_package(directory: Path) -> Path:
    """Put the program of Debian's ``consul`` into ``directory``, which exists, and return its path.

    Raises ConsulUnavailable as ``unpacked`` does.
    """
    with unpacked("consul", SUITE) as tree:
        return Path(shutil.copy2(tree / "usr" / "bin" / "consul", directory / "consul"))


@contextmanager
def unpacked(package: str, suite: str) -> Iterator[Path]:
    """The files of a package of a Debian suite, without its dependencies, for as long as the context lasts.

    Raises ConsulUnavailable with the reason: no apt, no Debian mirror configured, no keyring, or what apt said.
    """
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise ConsulUnavailable(f"{program} is not installed (not a Debian system?)")
    if not KEYRING.is_file():
        raise ConsulUnavailable(f"{KEYRING} is missing; install the package debian-archive-keyring")
    mirror = find_mirror()
    # Not in the cache: as root, apt downloads as the user _apt, who cannot look into root's home.
    with tempfile.TemporaryDirectory(prefix="citadel-apt-") as name:
        workspace = Path(name)
        workspace.chmod(0o755)
        archive = _download(workspace, mirror, package, suite)
        tree = workspace / "unpacked"
        _run(["dpkg", "-x", str(archive), str(tree)], workspace)
        yield tree


def find_mirror() -> str:
    """The URI of the Debian archive that this machine's apt is configured with.

    Raises ConsulUnavailable if there is none.
    """
    targets = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], Path("/")).split()
    # apt tells only the targets it has lists for, and images are often shipped without any.
    mirror = _first_archive(targets) or _first_archive(_configured_uris())
    if mirror is None:
        raise ConsulUnavailable("apt is configured with no Debian mirror (no URI that ends in /debian/)")
    return mirror


def _first_archive(uris: Iterable[str]) -> str | None:
    """The first URI that names the Debian archive itself, not its security or backports part, nor another vendor's."""
    for uri in uris:
        if uri.rstrip("/").rpartition("/")[2] in {"debian", "debian.list"}:
            return uri
    return None


def _configured_uris() -> list[str]:
    uris: list[str] = []
    parts = _APT_SETTINGS / "sources.list.d"
    for file in [_APT_SETTINGS / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]:
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            uris += _URI.findall(line.partition("#")[0])
    return uris


def _download(workspace: Path, mirror: str, package: str, suite: str) -> Path:
    for part in ("lists/partial", "cache/archives/partial", "package"):
        (workspace / part).mkdir(parents=True)
    sources = workspace / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING} target=Packages lang=none] {mirror} {suite} main\n")
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": workspace / "lists",
        "Dir::Cache": workspace / "cache",
        "Acquire::http::Timeout": 10,
        "Acquire::https::Timeout": 10,
        "Acquire::Retries": 1,
    }
    apt = ["apt-get", "-q", *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]
    _run([*apt, "update"], workspace)
    _run([*apt, "download", package], workspace / "package")
    packages = list((workspace / "package").glob(f"{package}_*.deb"))
    if not packages:
        raise ConsulUnavailable(f"apt-get downloaded no package {package} of {suite} from {mirror}")
    return packages[0]


def _run(command: list[str], directory: Path) -> str:
    """What ``command`` prints. Raises ConsulUnavailable with what it complained of."""
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConsulUnavailable(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E: ")] or done.stderr.splitlines()
        raise ConsulUnavailable(f"{command[0]} {command[-1]}: {' '.join(errors)[:500] or f'exit {done.returncode}'}")
    return done.stdout
