"""Where an installation lies on a machine, or below another root folder that is being prepared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from citadel_consul.config.options import DEFAULT_CONFIG_PATH

ROLES = ("agent", "orchestrator")
ACCOUNT = "citadel"

CONFIG = str(DEFAULT_CONFIG_PATH)
ENVIRONMENT = "/etc/citadel/citadel.env"
RECORD = "/etc/citadel/installed.json"
UNITS = "/etc/systemd/system"
SYSUSERS = "/etc/sysusers.d/citadel.conf"
POLKIT = "/etc/polkit-1/rules.d/50-citadel.rules"
STATE = "/var/lib/citadel"


def unit_of(role: str) -> str:
    """The name of a role's unit."""
    return f"citadel-{role}.service"


@dataclass(frozen=True, slots=True)
class Root:
    """The root folder that is installed into."""

    folder: Path

    @property
    def is_machine(self) -> bool:
        """Whether it is that of the running machine."""
        return self.folder.resolve() == Path("/")

    @property
    def is_booted(self) -> bool:
        """Whether systemd runs there, so that it can be told of what changed."""
        return self.is_machine and Path("/run/systemd/system").is_dir()

    def path(self, place: str) -> Path:
        """Where the absolute path ``place`` of the installed machine is from here."""
        return self.folder / place.lstrip("/")
