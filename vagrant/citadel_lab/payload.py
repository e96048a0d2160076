"""What the nodes are given, as one folder that every provider shares with them as /opt/lab.

It holds the provisioning scripts, ``consul.d``, the host's Consul, citadel and all it depends on as wheels, and the
lab's stack. A node that has it needs no network. Its checksum tells whether a node is up to date.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import layout
from .command import run
from .errors import LabError
from .host import Report, project_python

GUEST_PYTHON = "3.11"  # of Debian bookworm, lab.json's suite
WHEEL_SOURCES = ("citadel_consul", "templates", "consul.d", "pyproject.toml", "README.md", "LICENSE")
CHECKSUM = "payload.sha256"


def build_payload(report: Report) -> str:
    """Bring the payload up to date, writing only what changed, and return its checksum."""
    layout.STATE.mkdir(parents=True, exist_ok=True)
    python = project_python(layout.ROOT)
    dependencies, project = _dependencies(python, report), _project_wheel(python, report)
    files = {
        "consul": _consul(report),
        "authorized_keys": ensure_key().with_suffix(".pub"),
        "stack.yaml": layout.HOME / "stack.yaml",
        **{f"wheels/{wheel.name}": wheel for wheel in dependencies},
        f"citadel/{project.name}": project,
        **_below("provision", layout.PROVISION),
        **_below("services", layout.HOME / "services"),
        **_below("consul.d", layout.ROOT / "consul.d"),
    }
    parts = ("wheels", "citadel")
    mirror(files, layout.PAYLOAD, keep={CHECKSUM, *(f"{part}.sha256" for part in parts)})
    for part in parts:
        (layout.PAYLOAD / f"{part}.sha256").write_text(checksum(layout.PAYLOAD / part) + "\n")
    total = checksum(layout.PAYLOAD, without={CHECKSUM})
    (layout.PAYLOAD / CHECKSUM).write_text(total + "\n")
    return total


def ensure_key() -> Path:
    """The lab's own ssh key, made once on this machine."""
    if not layout.KEY.exists():
        layout.KEY.parent.mkdir(parents=True, exist_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "citadel-lab", "-f", layout.KEY])
    return layout.KEY


def mirror(files: dict[str, Path], target: Path, keep: Iterable[str] = ()) -> None:
    """Make ``target`` hold exactly ``files`` (relative name -> source), and the names in ``keep``.

    In place, because running nodes have the folder mounted, and only what differs, so that times tell what changed.
    """
    target.mkdir(parents=True, exist_ok=True)
    wanted = {*files, *keep}
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_file() and str(path.relative_to(target)) not in wanted:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    for name, source in files.items():
        path = target / name
        if path.exists() and checksum(path, alias=name) == checksum(source, alias=name):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)


def checksum(path: Path, without: Iterable[str] = (), alias: str | None = None) -> str:
    """SHA-256 over the names, executable bits and contents of the files below ``path``.

    ``path`` may be a file: then of that one, under the name ``alias`` if it is given.
    """
    digest = hashlib.sha256()
    for file in _files(path):
        name = str(file.relative_to(path)) if file != path else alias or file.name
        if name in without:
            continue
        executable = bool(file.stat().st_mode & 0o100)
        digest.update(f"{name}\0{executable}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file


def _below(prefix: str, folder: Path) -> dict[str, Path]:
    return {f"{prefix}/{file.relative_to(folder)}": file for file in _files(folder)}


def _consul(report: Report) -> Path:
    done = run([sys.executable, layout.ROOT / "bin" / "consul", "--path"])
    path = Path(done.stdout.strip())
    report(f"Consul for the nodes: {path}")
    return path


def _dependencies(python: str, report: Report) -> list[Path]:
    """The wheels of all that citadel depends on, for the guest's Python; downloaded when pyproject.toml changed."""
    key = hashlib.sha256((layout.ROOT / "pyproject.toml").read_bytes() + GUEST_PYTHON.encode()).hexdigest()[:12]
    folder = layout.STATE / "wheels" / key
    if not folder.is_dir():
        report("downloading the wheels of citadel's dependencies")
        with _scratch("wheels") as scratch:
            requirement = _project_wheel(python, report)
            options = ["--only-binary=:all:", "--python-version", GUEST_PYTHON, "--dest", scratch]
            run([python, "-m", "pip", "download", "-q", *options, requirement])
            (Path(scratch) / requirement.name).unlink(missing_ok=True)
            _replace(Path(scratch), folder)
    return sorted(folder.glob("*.whl"))


def _project_wheel(python: str, report: Report) -> Path:
    """citadel's own wheel, built when its sources changed."""
    sums = "".join(checksum(layout.ROOT / source) for source in WHEEL_SOURCES if (layout.ROOT / source).exists())
    folder = layout.STATE / "dist" / hashlib.sha256(sums.encode()).hexdigest()[:12]
    if not folder.is_dir():
        report("building citadel's wheel")
        with _scratch("dist") as scratch:
            run([python, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", scratch, layout.ROOT])
            _replace(Path(scratch), folder)
    wheels = list(folder.glob("citadel_consul-*.whl"))
    if len(wheels) != 1:
        raise LabError(f"{folder} should hold one wheel of citadel, and holds {len(wheels)}")
    return wheels[0]


def _scratch(kind: str) -> tempfile.TemporaryDirectory[str]:
    """A folder beside those of ``kind``: only a rename within one file system is atomic."""
    return tempfile.TemporaryDirectory(prefix=f".{kind}-", dir=layout.STATE, ignore_cleanup_errors=True)


def _replace(source: Path, target: Path) -> None:
    """Put ``source`` where the older versions of ``target`` are, and remove those."""
    if target.parent.exists():
        shutil.rmtree(target.parent)
    target.parent.mkdir(parents=True)
    source.rename(target)
