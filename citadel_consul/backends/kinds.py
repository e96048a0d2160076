"""The kinds of backends that a spec can name, and how one of each is made. Nothing is imported before it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from citadel_consul.backends.base import Backend

Maker = Callable[[Path, str], Backend]
"""Makes the backend for a state folder and a stack."""


def _process(state_dir: Path, stack: str) -> Backend:
    from citadel_consul.backends.process import ProcessBackend

    return ProcessBackend(state_dir, stack)


def _docker(state_dir: Path, stack: str) -> Backend:
    from citadel_consul.backends.docker.backend import DockerBackend

    return DockerBackend(state_dir, stack)


def _command(state_dir: Path, stack: str) -> Backend:
    from citadel_consul.backends.command import CommandBackend

    return CommandBackend(state_dir, stack)


def _systemd(state_dir: Path, stack: str) -> Backend:
    from citadel_consul.backends.systemd.backend import SystemdBackend

    return SystemdBackend(state_dir, stack)


MAKERS: Mapping[str, Maker] = {
    "process": _process,
    "systemd": _systemd,
    "docker": _docker,
    "command": _command,
}
