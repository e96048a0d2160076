"""Calling Vagrant, and reading what it notes of its machines."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from . import layout
from .command import failure, run
from .errors import LabError

UP_SECONDS = 1800.0
_FRAME = re.compile(r"^\S+\.rb:\d+:in ")  # of a Ruby backtrace
ENVIRONMENT = {"VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_CWD": str(layout.HOME)}


def vagrant(words: Sequence[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Vagrant on the lab's Vagrantfile; what it prints goes to a log as well. Raises LabError if it fails."""
    layout.STATE.mkdir(parents=True, exist_ok=True)
    done = run(["vagrant", *words], env=ENVIRONMENT, cwd=layout.HOME, check=False, timeout_seconds=UP_SECONDS)
    with layout.VAGRANT_LOG.open("a") as log:
        log.write(f"$ vagrant {' '.join(words)}\n{done.stdout}{done.stderr}")
    if check and done.returncode != 0:
        text = "\n".join(line for line in (done.stderr.strip() or done.stdout).splitlines() if not _FRAME.match(line))
        raise LabError(f"{failure(['vagrant', *words], done.returncode, text)}\n  all of it: {layout.VAGRANT_LOG}")
    return done


def machine_id(name: str, provider: str) -> str | None:
    """The provider's id of a machine, as Vagrant noted it; None if it made none."""
    try:
        return (layout.MACHINES / name / provider / "id").read_text().strip() or None
    except FileNotFoundError:
        return None


def machine_states() -> dict[str, str]:
    """Machine name -> state, in the provider's words."""
    return parse_states(vagrant(["status", "--machine-readable"]).stdout)


def parse_states(text: str) -> dict[str, str]:
    """Read ``vagrant status --machine-readable``: lines of time, machine, kind and value."""
    rows = (line.split(",") for line in text.splitlines())
    return {row[1]: row[3] for row in rows if len(row) >= 4 and row[2] == "state"}
