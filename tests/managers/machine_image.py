"""The image of a machine with systemd as PID 1: Debian, built on this machine, and an environment for citadel in it.

No image can be assumed to be at hand. What is built once is kept by the engine, under a tag that is the checksum of
what it is made of; a new base takes a minute, a new environment some seconds. The wheels are kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "vagrant"))

from citadel_lab.image import mirror_lines  # type: ignore[import-not-found,unused-ignore]  # noqa: E402

SUITE = "bookworm"
GUEST_PYTHON = "3.11"
PACKAGES = (
    *("ca-certificates", "curl", "dbus", "dbus-user-session", "iproute2", "libpam-systemd", "login", "passwd"),
    *("polkitd", "procps", "psmisc", "python3-venv", "systemd", "systemd-sysv", "util-linux"),
)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
FOR_TESTS = ("pytest>=8.2", "pytest-asyncio>=0.24", "hypothesis>=6.100")

CHECKOUT = "/opt/checkout"
"""Where a machine has the checkout, read-only."""
ENVIRONMENT = "/opt/environment"
"""Where a machine has a virtual environment with all that citadel and its tests depend on, and the checkout's code."""
WHEELS = "/opt/wheels"
"""Where a machine has the wheels of all that citadel depends on, read-only, to install it without any network."""

_SET_UP = f"""
set -eu
python3 -m venv {ENVIRONMENT}
{ENVIRONMENT}/bin/pip install -q --disable-pip-version-check --no-index --find-links {WHEELS} {WHEELS}/*.whl
echo {CHECKOUT} >"$(echo {ENVIRONMENT}/lib/python3*/site-packages)/checkout.pth"
cat >{ENVIRONMENT}/bin/citadel <<'END'
#!{ENVIRONMENT}/bin/python
from citadel_consul.cli.main import main
main()
END
chmod 755 {ENVIRONMENT}/bin/citadel
useradd --create-home --shell /bin/bash somebody
# A container has no console, no clock and no disks of its own.
systemctl mask -q console-getty.service getty.target systemd-remount-fs.service systemd-timesyncd.service \\
    systemd-update-utmp.service systemd-update-utmp-runlevel.service apt-daily.timer apt-daily-upgrade.timer \\
    dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
systemctl set-default -q multi-user.target
: >/etc/machine-id
"""


class NoImage(Exception):
    """The image cannot be built here; the text says why."""


def ensure_image() -> str:
    """Have the image, and return its id. Raises NoImage."""
    wheels = ensure_wheels()
    base = f"citadel-managers/base:{_short(SUITE, *PACKAGES, *LEFT_OUT)}"
    tag = f"citadel-managers/machine:{_short(base, wheels.name, _SET_UP)}"
    if not _id_of(tag):
        if not _id_of(base):
            _build_base(base)
        _build_machine(base, tag, wheels)
    return _id_of(tag)


def ensure_wheels() -> Path:
    """The wheels for the machine's Python, downloaded when what citadel depends on has changed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *FOR_TESTS]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "citadel" / "managers"
    folder = cache / f"wheels-{_short(GUEST_PYTHON, *wanted)}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            options = ["--only-binary=:all:", "--python-version", GUEST_PYTHON, "--dest", scratch]
            _run([sys.executable, "-m", "pip", "download", "-q", *options, *wanted])
            shutil.copytree(scratch, folder)
    return folder


def _build_base(tag: str) -> None:
    if shutil.which("mmdebstrap") is None:
        raise NoImage("mmdebstrap, which makes Debian's tree, is not installed (bin/managers does that as root)")
    form = "$(SITE)|$(CODENAME)|$(ORIGIN)"
    sources: list[str] = mirror_lines(
        _run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]), SUITE
    )
    if not sources:
        raise NoImage(f"this machine's apt knows no mirror of Debian {SUITE} (apt-get update may be all it needs)")
    words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    words += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    with tempfile.TemporaryFile() as errors:
        tree = subprocess.Popen([*words, SUITE, "-", *sources], stdout=subprocess.PIPE, stderr=errors)
        importing = ["docker", "import", "--change", 'CMD ["/sbin/init"]', "-", tag]
        imported = subprocess.run(importing, stdin=tree.stdout, capture_output=True, text=True, check=False)
        if tree.stdout is not None:
            tree.stdout.close()
        if tree.wait() != 0 or imported.returncode != 0:
            errors.seek(0)
            subprocess.run(["docker", "image", "rm", tag], capture_output=True, check=False)
            raise NoImage(f"Debian's tree cannot be made: {errors.read().decode(errors='replace')}{imported.stderr}")


def _build_machine(base: str, tag: str, wheels: Path) -> None:
    options = ["--pull=never", "--network=none", f"--volume={wheels}:{WHEELS}:ro"]
    container = _run(["docker", "create", *options, base, "/bin/sh", "-c", _SET_UP]).strip()
    try:
        _run(["docker", "start", "--attach", container])
        _run(["docker", "commit", "--change", 'CMD ["/sbin/init"]', container, tag])
    finally:
        _run(["docker", "rm", "--force", "--volumes", container])


def _id_of(tag: str) -> str:
    words = ["docker", "image", "inspect", "--format", "{{.Id}}", tag]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _run(words: list[str]) -> str:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoImage(f"{' '.join(words[:4])} …: exit status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _short(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
