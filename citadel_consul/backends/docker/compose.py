"""Making the container of a compose service, by compose itself: there is no library of it.

Compose is asked to *make* a container and never to start one: ``up --no-start --no-deps`` makes it, or makes it anew if
its definition or its image has changed, and does nothing else. Starting and stopping is the engine's part. So what
compose's own ``depends_on`` names is never started with it, and a restart does not wait for a program that takes half a
second to begin. The same words mean the same in ``docker compose`` (v2) and ``docker-compose`` (1.29), and nothing
that they print is read by a program.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from citadel_consul.backends import errand
from citadel_consul.backends.spawn import Program
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError, BackendUnavailable

# Compose may have to pull or to build an image; an operator who does not want to wait for that does it before.
MAKE_SECONDS = 600.0
_ASK_SECONDS = 20.0
# Each is a program of its own, of dozens of megabytes and half a second of a processor; more at once are not faster.
AT_ONCE = 4

# Secrets of citadel's own, which no compose file has to see.
_WITHHELD = ("CITADEL_", "CONSUL_")
# What was named to us in other words counts, whatever the agent's environment says.
_OVERRULED = frozenset({"COMPOSE_FILE", "COMPOSE_PROJECT_NAME"})

_NOT_IN_PROJECT = re.compile(r"[^-_a-z0-9]")
_NAME_LINE = re.compile(r"""^name:\s*(["']?)([^"'#\s]+)\1\s*(?:#.*)?$""", re.MULTILINE)


class Compose:
    """The compose command of this machine."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._env = dict(os.environ if environment is None else environment)
        self._words: tuple[str, ...] | None = None
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def make(self, instance: Instance, file: Path, project: str, service: str) -> None:
        """Make the container of a service, or make it anew if it has to be another one. Nothing is started.

        Raises:
            BackendError: there is no such file, no compose, or compose says no.
            BackendUnavailable: it took too long.
        """
        if not changed_at(file):
            raise BackendError(f"{instance}: backend.file: there is no file {file}")
        words = await self._command(instance)
        command = (*words, "--ansi", "never", "-p", project, "-f", str(file))
        command += ("up", "--no-start", "--no-deps", "--scale", f"{service}=1", service)
        name = " ".join(words)
        async with self._turns:
            ended, said = await errand.run(self._program(instance, command, file.parent), MAKE_SECONDS)
        if ended is None:
            raise BackendUnavailable(f"{instance}: {name} did not make its container in {MAKE_SECONDS:g} s: {said}")
        if not ended.succeeded:
            raise BackendError(
                f"{instance}: backend.service: {name} cannot make {service!r} of {file} ({ended.detail}): {said}"
            )

    async def _command(self, instance: Instance) -> tuple[str, ...]:
        """The words that run compose. Looked for again until it is found, since it may be installed meanwhile."""
        if self._words is None:
            for words in (("docker", "compose"), ("docker-compose",)):
                if shutil.which(words[0], path=self._env.get("PATH")) and await self._answers(instance, words):
                    self._words = words
                    break
            else:
                raise BackendError(
                    f"{instance}: backend.file: there is neither 'docker compose' nor 'docker-compose' in PATH "
                    f"({self._env.get('PATH')}): install the compose plugin, or make the container by hand and name it "
                    f"in backend.container"
                )
        return self._words

    async def _answers(self, instance: Instance, words: tuple[str, ...]) -> bool:
        ended, _ = await errand.run(self._program(instance, (*words, "version"), Path("/")), _ASK_SECONDS)
        return ended is not None and ended.succeeded

    def _program(self, instance: Instance, command: tuple[str, ...], folder: Path) -> Program:
        env = {
            name: value
            for name, value in self._env.items()
            if not name.startswith(_WITHHELD) and name not in _OVERRULED
        }
        return Program(instance, command, env, str(folder), None, "backend.file")


def project_of(file: Path, named: str | None) -> str:
    """The project's name, by compose's own rule: what was said, what the file says, or the name of its folder."""
    if named:
        return named
    try:
        found = _NAME_LINE.search(file.read_text())
    except (OSError, UnicodeDecodeError):
        found = None
    if found is not None:
        return found[2]
    return _NOT_IN_PROJECT.sub("", file.absolute().parent.name.lower()).lstrip("-_") or "default"


def changed_at(file: Path) -> float:
    """When a compose file, or the ``.env`` beside it, was last written (unix seconds); 0 if there is no such file."""
    written = _written(file)
    return max(written, _written(file.parent / ".env")) if written else 0.0


def _written(path: Path) -> float:
    try:
        status = path.stat()
    except OSError:
        return 0.0
    return status.st_mtime if stat.S_ISREG(status.st_mode) else 0.0
