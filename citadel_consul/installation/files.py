"""Bringing files to where they should be, and away again: first a look that changes nothing, then the change.

What an operator edited is kept, and what was there before us is not touched.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from citadel_consul.errors import InvalidInput
from citadel_consul.installation.blueprint import PlannedFile
from citadel_consul.installation.places import Root
from citadel_consul.installation.record import Record, WrittenFile, checksum


class Fate(StrEnum):
    """What becomes of a file."""

    CREATE = "create"
    REPLACE = "replace"
    UNCHANGED = "unchanged"
    REMOVE = "remove"
    EDITED = "edited"
    """It was written by us and edited since: kept."""
    STRANGER = "stranger"
    """It was there before: kept, and not ours to remove."""
    MISSING = "missing"
    """It should be removed and is gone already."""


@dataclass(frozen=True, slots=True)
class Step:
    """One file, what becomes of it, and what it should be (None if it is to go)."""

    place: str
    fate: Fate
    planned: PlannedFile | None = None

    @property
    def changes(self) -> bool:
        """Whether anything is written or removed."""
        return self.fate in (Fate.CREATE, Fate.REPLACE, Fate.REMOVE)


def survey(root: Root, record: Record, role: str, planned: Iterable[PlannedFile], *, force: bool) -> tuple[Step, ...]:
    """What installing ``planned`` for ``role`` would do. With ``force`` edited files are replaced, too."""
    wanted = {file.place: file for file in planned}
    steps = [Step(place, _fate(root, record, file, force=force), file) for place, file in wanted.items()]
    obsolete = [p for p, f in record.files.items() if f.roles == (role,) and p not in wanted]
    return (*steps, *survey_removal(root, record, obsolete, force=force))


def survey_removal(root: Root, record: Record, files: Iterable[str], *, force: bool) -> tuple[Step, ...]:
    """What removing ``files`` would do. With ``force`` edited ones go, too."""
    steps = []
    for place in files:
        content = _content(root.path(place))
        if content is None:
            fate = Fate.MISSING
        else:
            ours = checksum(content) == record.files[place].sha256
            fate = Fate.REMOVE if ours or force else Fate.EDITED
        steps.append(Step(place, fate))
    return tuple(steps)


def carry_out(root: Root, record: Record, role: str, steps: Iterable[Step]) -> Record:
    """Write and remove as ``steps`` say; returns the record of what is there then. Raises InvalidInput."""
    files, folders = dict(record.files), list(record.folders)
    for step in steps:
        if step.planned is None:
            if step.fate is Fate.REMOVE:
                _removing(root.path(step.place))
            if step.fate in (Fate.REMOVE, Fate.MISSING):
                files.pop(step.place, None)
        elif step.fate is not Fate.STRANGER:
            if step.changes:
                folders += [folder for folder in write(root, step.planned) if folder not in folders]
            files[step.place] = _noted(files, step, role)
    return replace(record, files=files, folders=tuple(folders))


def write(root: Root, file: PlannedFile) -> list[str]:
    """Write a file in one piece; returns the folders that were made for it, the outermost first."""
    path = root.path(file.place)
    try:
        made = _make_folders(root, path.parent)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(file.content)
            Path(temporary).chmod(file.mode)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise _explained(path, error) from error
    return made


def remove_folders(root: Root, folders: Iterable[str]) -> tuple[str, ...]:
    """Remove those that are empty, the innermost first; returns what is left."""
    left = []
    for folder in sorted(folders, key=len, reverse=True):
        try:
            root.path(folder).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            left.append(folder)
    return tuple(sorted(left))


def _fate(root: Root, record: Record, file: PlannedFile, *, force: bool) -> Fate:
    path = root.path(file.place)
    content, known = _content(path), record.files.get(file.place)
    if content is None:
        return Fate.CREATE
    if content == file.content.encode():  # ours even without a record: an installation was interrupted
        return Fate.UNCHANGED if path.stat().st_mode & 0o7777 == file.mode else Fate.REPLACE
    if known is None:
        return Fate.STRANGER
    return Fate.REPLACE if force or checksum(content) == known.sha256 else Fate.EDITED


def _noted(files: Mapping[str, WrittenFile], step: Step, role: str) -> WrittenFile:
    known = files.get(step.place)
    roles = tuple(sorted({*(known.roles if known is not None else ()), role}))
    if known is not None and step.fate is Fate.EDITED:
        return WrittenFile(known.sha256, roles)
    return WrittenFile(checksum(step.planned.content.encode() if step.planned is not None else b""), roles)


def _make_folders(root: Root, folder: Path) -> list[str]:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir()
        path.chmod(0o755)  # whatever the umask of who installs
    return ["/" + str(path.relative_to(root.folder)) for path in reversed(missing)]


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _explained(path, error) from error


def _removing(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _explained(path, error) from error


def _explained(path: Path, error: OSError) -> InvalidInput:
    remedy = "run this as root, or name another root folder with --root" if isinstance(error, PermissionError) else ""
    return InvalidInput.at(str(path), error.strerror or str(error), remedy)
