"""The record of an installation: what was written, so that it can be told from what was not.

It holds the checksum of each file as it was written. A file that differs from it was edited by somebody: it is neither
replaced nor removed unless that is asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from citadel_consul.errors import InvalidInput
from citadel_consul.installation import places
from citadel_consul.installation.places import Root

VERSION = 1


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file as it was written, and the roles that it is for."""

    sha256: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InstalledRole:
    """The choices of a role's installation, and the version that made it."""

    version: str
    units: tuple[str, ...] = ()
    docker: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that ``citadel install`` did here.

    ``folders`` were made for the files. ``taken_over`` are units that were started at boot before, with what
    ``systemctl is-enabled`` said of them. ``user_made`` says whether the account was not there before.
    """

    user: str = places.ACCOUNT
    user_made: bool = False
    roles: Mapping[str, InstalledRole] = field(default_factory=dict)
    files: Mapping[str, WrittenFile] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    taken_over: Mapping[str, str] = field(default_factory=dict)

    def without_role(self, role: str) -> Record:
        """The record once ``role`` is gone; a file that no role needs any more is not in it."""
        files = {p: replace(f, roles=tuple(r for r in f.roles if r != role)) for p, f in self.files.items()}
        return replace(
            self,
            roles={name: installed for name, installed in self.roles.items() if name != role},
            files={p: f for p, f in files.items() if f.roles},
        )


def checksum(content: bytes) -> str:
    """What a record says of a content."""
    return hashlib.sha256(content).hexdigest()


def read_record(root: Root) -> Record | None:
    """The record of ``root``, None if nothing is installed. Raises InvalidInput if it cannot be read."""
    path = root.path(places.RECORD)
    try:
        return _decode(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInput.at(str(path), error.strerror or str(error), "run this as root") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        remedy = "restore it from a backup: without it nobody knows what was installed"
        raise InvalidInput.at(str(path), f"is no record of this version ({error})", remedy) from error


def encode(record: Record) -> str:
    """A record as it is stored."""
    return json.dumps({"v": VERSION, **asdict(record)}, indent=2) + "\n"


def _decode(value: dict[str, Any]) -> Record:
    if value.pop("v") != VERSION:
        raise ValueError("another version")
    return Record(
        user=str(value["user"]),
        user_made=bool(value["user_made"]),
        roles={
            name: InstalledRole(str(role["version"]), tuple(role["units"]), bool(role["docker"]))
            for name, role in value["roles"].items()
        },
        files={path: WrittenFile(str(f["sha256"]), tuple(f["roles"])) for path, f in value["files"].items()},
        folders=tuple(value["folders"]),
        taken_over=dict(value["taken_over"]),
    )
