"""What is known of the embedded Consul from one run of its starter to the next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import orjson

from citadel_consul.consul.ports import Ports
from citadel_consul.consul.process import ProcessIdentity

_NAME = "embedded.json"


@dataclass(frozen=True, slots=True)
class Record:
    """The last run: Consul's ``version``, its ``ports``, its ``process``, and a ``fingerprint`` of all it was told."""

    version: str
    ports: Ports
    process: ProcessIdentity
    fingerprint: str

    @property
    def release(self) -> tuple[int, int]:
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @classmethod
    def load(cls, data_dir: Path) -> Self | None:
        """The record in ``data_dir``; ``None`` if there is none, or none that can be read: then nothing is known."""
        try:
            fields = orjson.loads((data_dir / _NAME).read_bytes())
            return cls(
                version=fields["version"],
                ports=Ports(**fields["ports"]),
                process=ProcessIdentity(**fields["process"]),
                fingerprint=fields["fingerprint"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, data_dir: Path) -> None:
        """Write it whole or not at all: its writer may be killed at any moment."""
        draft = data_dir / f".{_NAME}.new"
        draft.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))
        draft.replace(data_dir / _NAME)
