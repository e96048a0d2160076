"""What a service is told by its environment; there is no other configuration.

==================  ===================================================  =========================
variable            meaning                                              default
==================  ===================================================  =========================
PORT                the port to listen on                                required
HOST                the address to listen on                             127.0.0.1
NODE_NAME           the node this instance runs on                       the host's name
CONSUL_HTTP_ADDR    the Consul agent to ask for other services           127.0.0.1:8500
CONSUL_HTTP_TOKEN   its token, sent as a header                          none
DATA_DIR            where a service with a memory keeps it               the user's state folder
LOG_LEVEL           DEBUG, INFO, WARNING or ERROR                        INFO
==================  ===================================================  =========================
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class BadSetting(SystemExit):
    """A variable is missing or makes no sense: the process ends with the reason on stderr and status 1."""


def state_dir(service: str, environ: Mapping[str, str] = os.environ) -> Path:
    """The data folder of ``service`` when nobody names one: never inside the checkout or the installation."""
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".local" / "state")
    return Path(base) / "citadel" / "ai-platform" / service


def port_number(environ: Mapping[str, str], name: str = "PORT") -> int:
    """The port in variable ``name``. Raises BadSetting unless it is one to listen on."""
    text = environ.get(name, "")
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise BadSetting(f"{name} must be a port between 1 and 65535, got {text!r}")
    return int(text)


@dataclass(frozen=True, slots=True)
class Settings:
    """The environment of one service, read once."""

    service: str
    port: int
    host: str = "127.0.0.1"
    node: str = "localhost"
    consul_url: str = "http://127.0.0.1:8500"
    consul_token: str = field(default="", repr=False)
    data_dir: Path = Path()
    log_level: str = "INFO"
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, service: str, environ: Mapping[str, str] = os.environ) -> Settings:
        """The settings of ``service``. Raises BadSetting when a variable is missing or makes no sense."""
        consul = environ.get("CONSUL_HTTP_ADDR") or "127.0.0.1:8500"
        return cls(
            service=service,
            port=port_number(environ),
            host=environ.get("HOST", "127.0.0.1"),
            node=environ.get("NODE_NAME") or socket.gethostname(),
            consul_url=consul if "://" in consul else f"http://{consul}",
            consul_token=environ.get("CONSUL_HTTP_TOKEN", ""),
            data_dir=Path(environ.get("DATA_DIR") or state_dir(service, environ)),
            log_level=environ.get("LOG_LEVEL", "INFO").upper(),
            environ=dict(environ),
        )

    def number(self, name: str, default: float) -> float:
        """The number in variable ``name``. Raises BadSetting when it is none or not above zero."""
        text = self.environ.get(name)
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            raise BadSetting(f"{name} must be a number, got {text!r}") from None
        if not value > 0:
            raise BadSetting(f"{name} must be above zero, got {text!r}")
        return value

    def text(self, name: str, default: str = "") -> str:
        """The text in variable ``name``."""
        return self.environ.get(name) or default
