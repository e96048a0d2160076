"""The program that units start: this very citadel."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import citadel_consul
from citadel_consul.errors import InvalidInput
from citadel_consul.installation import account

HOMES = ("/home", "/root", "/run/user")


def find_program() -> Path:
    """The ``citadel`` that belongs to the running interpreter. Raises InvalidInput if there is none."""
    found = Path(sysconfig.get_path("scripts")) / "citadel"
    if not found.is_file():
        remedy = "install the package with pip, into a virtual environment like /opt/citadel"
        raise InvalidInput.at("", f"there is no program {found}", remedy)
    return found


def protect_home(program: Path) -> str:
    """What ``ProtectHome=`` can be: read-only if citadel itself lies in somebody's home."""
    lying = (str(path) for path in _needed(program))
    return "read-only" if any(path.startswith(HOMES) for path in lying) else "yes"


def check_reachable(program: Path, user: str) -> None:
    """Raise InvalidInput if ``user``, who is in no group of consequence, cannot run ``program``."""
    if user == "root":
        return
    for path in _needed(program):
        blocked = account.blocked_at(path)
        if blocked is not None:
            remedy = "install citadel where everybody may read it, like /opt/citadel, or choose --user root"
            raise InvalidInput.at("", f"{user} cannot run {program}: {blocked} is not open to everybody", remedy)


def _needed(program: Path) -> tuple[Path, ...]:
    return program, Path(sys.base_prefix), Path(citadel_consul.__file__)
