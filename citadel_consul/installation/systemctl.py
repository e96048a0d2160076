"""systemd's command line, as far as installing needs it. Below another root folder only enabling works, and is all."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from citadel_consul.errors import BackendError, BackendUnavailable
from citadel_consul.installation.places import Root

CALL_SECONDS = 60.0
START_SECONDS = 20.0
"""How long a start is waited for. It goes on by itself: a unit waits for Consul as long as it takes."""


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of a unit: ``load`` (loaded, not-found, …), ``active`` and ``enabled``."""

    load: str
    active: str
    enabled: str

    @property
    def is_active(self) -> bool:
        """Whether it runs, or is on its way there."""
        return self.active in ("active", "activating", "reloading")


class Systemctl:
    """Calls ``systemctl`` for one root folder. Raises BackendError for what it refuses."""

    def __init__(self, root: Root) -> None:
        self._root = root

    @property
    def is_there(self) -> bool:
        """Whether there is a systemctl to call."""
        return shutil.which("systemctl") is not None

    def enable(self, unit: str) -> None:
        """Have ``unit`` started at boot."""
        self._call("enable", "--quiet", unit)

    def disable(self, unit: str) -> None:
        """Have ``unit`` not started at boot; one that runs goes on."""
        self._call("disable", "--quiet", unit)

    def enablement(self, unit: str) -> str:
        """What ``systemctl is-enabled`` says: enabled, disabled, static, masked, …; empty if there is no such unit."""
        return self._ask("is-enabled", unit).stdout.strip()

    def state(self, unit: str) -> UnitState:
        """How ``unit`` is."""
        done = self._ask("show", "--property=LoadState,ActiveState,UnitFileState", unit)
        values = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
        found: Mapping[str, str] = values
        return UnitState(found.get("LoadState", ""), found.get("ActiveState", ""), found.get("UnitFileState", ""))

    def reload(self) -> None:
        """Have systemd read its unit files again."""
        self._call("daemon-reload")

    def start(self, unit: str, *, again: bool) -> bool:
        """Start ``unit``, or restart it if it runs; returns whether it was ready in time."""
        try:
            self._call("restart" if again else "start", unit, seconds=START_SECONDS)
        except BackendUnavailable:
            return False
        return True

    def stop(self, unit: str) -> None:
        """Stop ``unit``; fine if it is not there."""
        if self.state(unit).load != "not-found":
            self._call("stop", unit)

    def forget_failure(self, unit: str) -> None:
        """Have systemd forget that ``unit`` ever failed."""
        self._ask("reset-failed", unit)

    def _words(self, words: Sequence[str]) -> list[str]:
        root = () if self._root.is_machine else (f"--root={self._root.folder}",)
        return ["systemctl", *root, *words]

    def _call(self, *words: str, seconds: float = CALL_SECONDS) -> None:
        done = self._ask(*words, seconds=seconds)
        if done.returncode != 0:
            said = done.stderr.strip() or f"exit status {done.returncode}"
            raise BackendError(f"{' '.join(self._words(words))}: {said}")

    def _ask(self, *words: str, seconds: float = CALL_SECONDS) -> subprocess.CompletedProcess[str]:
        return run(self._words(words), seconds)


def run(words: Sequence[str], seconds: float = CALL_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a program of the system. Raises BackendError if there is none, BackendUnavailable if it does not end."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds, env=environment)
    except FileNotFoundError:
        raise BackendError(f"{words[0]} is not on this machine") from None
    except subprocess.TimeoutExpired:
        raise BackendUnavailable(f"{' '.join(words)} did not end within {seconds:g} s") from None
