"""What an embedded Consul writes to its standard output and error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_ROTATE_BYTES = 10 * 1024 * 1024
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
        errors = [line for line in lines if any(mark in line for mark in _MARKS)] or lines
        return "\n  ".join([f"The end of {self.path}:", *(line.strip() for line in errors[-_LINES:])])
