"""The terminal of ``citadel dev``: the log kept out of its way, and what to do when it is gone.

The control plane logs while a live table is drawn, so its log goes into a file. A terminal or pipe that is gone makes
every write fail; what would be shown goes into the log file from then on, so that an ordered stop is not cut short by
the lack of somebody to watch it.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import click

from citadel_consul.cli.progress import Display, Lines, display_for
from citadel_consul.core.operation import Operation
from citadel_consul.errors import InvalidInput

LOG_BYTES = 5_000_000
LOG_FILES = 2


def open_log(path: Path, *, take_over: bool) -> None:
    """See that ``path`` can be written to and, with ``take_over``, send the log there instead of to standard error.

    From level INFO on, whatever the settings say. Raises InvalidInput.
    """
    from citadel_consul.telemetry.logs import TextFormatter

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1)
    except OSError as error:
        raise InvalidInput.at(
            "--data-dir", f"{path} cannot be written: {error.strerror}", "choose a folder that this user may write to"
        ) from error
    if not take_over:
        handler.close()
        return
    handler.setFormatter(TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(min(logging.INFO, root.level))


class Terminal:
    """Where ``citadel dev`` speaks. ``on_loss`` is called once, when nobody can hear it any more."""

    def __init__(self, log_file: Path, *, live: bool, on_loss: Callable[[], None] = lambda: None) -> None:
        self._log_file = log_file
        self._live = live
        self.on_loss = on_loss
        self._lost = False

    def say(self, text: str = "") -> None:
        """A line, to whoever still listens."""
        try:
            click.echo(text)
        except OSError:
            self.lose()
            click.echo(text)

    def display(self) -> Display:
        """Shows an operation: live if a person looks, else line by line."""
        if self._live and not self._lost and sys.stdout.isatty():
            return _Surviving(display_for("table"), self)
        return Lines(self.say)

    def lose(self) -> None:
        """Take the terminal as gone: what is said from now on goes into the log file."""
        if self._lost:
            return
        self._lost = True
        descriptor = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(descriptor, stream.fileno())
        finally:
            os.close(descriptor)
        self.on_loss()


class _Surviving:
    """A live display that goes quiet, instead of raising, when its terminal is gone."""

    def __init__(self, display: Display, terminal: Terminal) -> None:
        self._display = display
        self._terminal = terminal

    def __enter__(self) -> Self:
        self._try(lambda: self._display.__enter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._try(lambda: self._display.__exit__(kind, error, trace))

    def show(self, operation: Operation) -> None:
        self._try(lambda: self._display.show(operation))

    def _try(self, draw: Callable[[], object]) -> None:
        try:
            draw()
        except OSError:
            self._terminal.lose()
