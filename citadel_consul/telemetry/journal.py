"""Logging into systemd's journal, each record with its fields.

The native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL) is a datagram of fields to a well-known socket. Unlike
lines on standard error it keeps the priority, keeps a traceback in one entry, and lets ``journalctl LOGGER=…`` and
``CITADEL_NODE=…`` choose. It is used only if standard error is a stream into the journal already, which is what the
variable ``JOURNAL_STREAM`` tells (``systemd.exec(5)``): whoever redirected it gets the log there.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from citadel_consul.telemetry.fields import fields_of

SOCKET = "/run/systemd/journal/socket"
LONGEST_MESSAGE = 48_000
"""Characters. What does not fit a datagram would have to be passed as a file; an entry of this length is a mistake."""

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def is_journal(environ: Mapping[str, str], descriptor: int) -> bool:
    """Whether ``descriptor`` goes into the journal."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def priority(level: int) -> int:
    """The syslog priority of a level of :mod:`logging`."""
    return next((number for least, number in _PRIORITIES if level >= least), 7)


def encode(fields: Mapping[str, str]) -> bytes:
    """Fields as the journal takes them; a value with a newline is preceded by its length."""
    return b"".join(_field(name, value.encode(errors="replace")) for name, value in fields.items())


def _field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(value)), value)


class JournalHandler(logging.Handler):
    """Sends each record to the journal with ``fields``; to standard error, with its priority, if that fails."""

    def __init__(self, fields: Mapping[str, str], path: str = SOCKET) -> None:
        super().__init__()
        self._fields = dict(fields)
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """Send ``record``."""
        try:
            fields = {**self._fields, **dict(self._of(record))}
            try:
                self._socket.sendto(encode(fields), self._path)
            except OSError:  # the journal is being restarted: its stream is kept open for us, and takes lines
                lines = fields["MESSAGE"].splitlines() or [""]
                print(*(f"<{fields['PRIORITY']}>{line}" for line in lines), sep="\n", file=sys.stderr)
        except Exception:  # noqa: BLE001  # what logging does: a log never ends the program
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

    def _of(self, record: logging.LogRecord) -> Iterator[tuple[str, str]]:
        message = self.format(record)
        yield "MESSAGE", message[:LONGEST_MESSAGE]
        yield "PRIORITY", str(priority(record.levelno))
        yield "LOGGER", record.name
        yield "CODE_FILE", Path(record.pathname).name
        yield "CODE_LINE", str(record.lineno)
        yield "CODE_FUNC", record.funcName or ""
        for name, value in fields_of(record).items():
            yield f"CITADEL_{name.upper()}", value
