"""What an embedded Consul writes to its standard output and error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_ROTATE_BYTES = 10 * 1024 * 1024
_TIME = re.compile(r"\s*\d{4}[-/]\d\d[-/]\d\d[T ]")
_MARKS = ("[ERR", "==> ")
_LINES = 8


@dataclass(frozen=True, slots=True)
class ServerLog:
    """The log at ``path``, to which each run appends."""

    path: Path

    def rotate(self) -> None:
        """Put a log that has grown past 10 MiB aside as ``.1``, of which one is kept."""
        if self.size > _ROTATE_BYTES:
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def since(self, begin: int) -> str:
        """What was written from byte ``begin`` on."""
        with self.path.open("rb") as file:
            file.seek(begin)
            return file.read().decode(errors="replace")

    def complaint(self, begin: int) -> str:
        """The last errors since byte ``begin``, or the last lines if there are none, for a message to a person."""
        lines = self.since(begin).splitlines()
        errors: list[str] = []
        in_error = False
        for line in lines:
            # What follows an error and has no time of its own belongs to it.
            in_error = any(mark in line for mark in _MARKS) or (in_error and not _TIME.match(line))
            if in_error and line.strip():
                errors.append(line.rstrip())
        return "\n  ".join([f"The end of {self.path}:", *(errors or lines)[-_LINES:]])
