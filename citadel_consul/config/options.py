"""Every setting of citadel: its name, its variable, how it is read, what it is when nobody sets it.

A setting's name is its place in the configuration file (``recovery.attempts`` is ``attempts`` under ``recovery``)
and, with hyphens, its flag (``--recovery-attempts``). ``docs/settings.md`` holds this table; a test compares them.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar

from citadel_consul.config import values
from citadel_consul.config.addresses import HostPort
from citadel_consul.config.durations import format_duration
from citadel_consul.config.receivers import ONLY_THE_LOG, parse_receivers
from citadel_consul.core.healing.flapping import LAPSES_KEPT
from citadel_consul.core.names import MAX_LABEL

T_co = TypeVar("T_co", covariant=True)

DEFAULT_CONFIG_PATH = Path("/opt/citadel/config/orchestrator.yaml")
DEFAULT_CHECK_INTERVAL_SECONDS = 30.0
HOUR = 3600.0
DAY = 24 * HOUR


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class LogFormat(StrEnum):
    """``text`` for people, ``json`` for log collectors: one object a line."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Setting(Generic[T_co]):
    """One setting. ``default_from`` computes a default from the environment, which ``default_text`` describes.

    What is no single value has neither ``variable`` nor flag (``structured``): only the configuration file can hold it.
    """

    name: str
    variable: str
    parse: Callable[[object], T_co]
    default: T_co
    meaning: str
    secret: bool = False
    default_from: Callable[[Mapping[str, str]], T_co] | None = None
    default_text: str = ""

    @property
    def flag(self) -> str:
        """The flag; secrets have none, because every user of the machine can read command lines."""
        return "" if self.secret or self.structured else "--" + re.sub(r"[._]", "-", self.name)

    @property
    def structured(self) -> bool:
        """Whether it is more than a single value."""
        return not self.variable

    @property
    def key(self) -> str:
        """The name of the flag among the arguments of a program."""
        return self.name.replace(".", "_")

    def usual(self, environ: Mapping[str, str]) -> T_co:
        """The value when nobody sets it."""
        return self.default if self.default_from is None else self.default_from(environ)


def shown(value: object) -> str:
    """A setting's value as text, in the form in which it can be set; empty for none."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return format_duration(value)
        case _:
            return str(value)


def _host_label(_environ: Mapping[str, str]) -> str:
    """The host name's first label, as a valid name: what is not allowed in one becomes a hyphen."""
    label = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().partition(".")[0].lower())
    return label[:MAX_LABEL].strip("-") or "localhost"


def _state_dir(environ: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/citadel")
    base = Path(environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():  # the XDG specification has relative paths ignored
        base = Path(environ.get("HOME") or Path.home()) / ".local" / "state"
    return base / "citadel"


_seconds_or_more = values.duration(1.0)
_NO_PATH: Path | None = None
_NO_TEXT: str | None = None
_NO_BIND: HostPort | None = None

CONFIG = Setting(
    "config", "ORCHESTRATOR_CONFIG_PATH", values.path, DEFAULT_CONFIG_PATH, "This configuration file. Flag or variable."
)
STACK: Setting[str | None] = Setting(
    "stack",
    "CITADEL_STACK",
    values.name,
    _NO_TEXT,
    "The stack to work on.",
    default_text="the only stack in Consul, or `default`",
)
NODE = Setting(
    "node",
    "CITADEL_NODE",
    values.name,
    "",
    "Name of this node in the stack file.",
    default_from=_host_label,
    default_text="the host name's first label",
)
NODE_ADDRESS: Setting[str | None] = Setting(
    "node_address",
    "CITADEL_NODE_ADDRESS",
    values.host,
    _NO_TEXT,
    "Address under which other nodes reach this one.",
    default_text="the address of the local Consul agent",
)
STATE_DIR = Setting(
    "state_dir",
    "CITADEL_STATE_DIR",
    values.path,
    Path(),
    "Folder of the node agent's own state and of the services' output.",
    default_from=_state_dir,
    default_text="`/var/lib/citadel` as root, else `${XDG_STATE_HOME:-~/.local/state}/citadel`",
)
TEMPLATES: Setting[Path | None] = Setting(
    "templates",
    "CITADEL_TEMPLATES",
    values.path,
    _NO_PATH,
    "Folder of registration templates that are preferred to the shipped ones.",
    default_text="only the shipped ones",
)
LOG_LEVEL = Setting(
    "log.level",
    "ORCHESTRATOR_LOG_LEVEL",
    values.choice(LogLevel, {"WARN": "WARNING"}),
    LogLevel.INFO,
    "Least severe messages that are logged: DEBUG, INFO, WARNING, ERROR, CRITICAL.",
)
LOG_FORMAT = Setting(
    "log.format",
    "CITADEL_LOG_FORMAT",
    values.choice(LogFormat),
    LogFormat.TEXT,
    "`text` for people, `json` for log collectors.",
)
CHECK_INTERVAL = Setting(
    "health.check_interval",
    "ORCHESTRATOR_HEALTH_CHECK_INTERVAL",
    _seconds_or_more,
    DEFAULT_CHECK_INTERVAL_SECONDS,
    "Interval of checks that have none in the stack file.",
)
STARTUP_TIMEOUT = Setting(
    "operations.startup_timeout",
    "ORCHESTRATOR_STARTUP_TIMEOUT",
    _seconds_or_more,
    300.0,
    "Longest startup of a stack; also of a service without a time-out of its own.",
)
SHUTDOWN_TIMEOUT = Setting(
    "operations.shutdown_timeout",
    "ORCHESTRATOR_SHUTDOWN_TIMEOUT",
    _seconds_or_more,
    120.0,
    "Longest shutdown of a stack; also of a service without a time-out of its own.",
)
DRAIN_TIMEOUT = Setting(
    "operations.drain_timeout",
    "ORCHESTRATOR_DRAIN_TIMEOUT",
    _seconds_or_more,
    30.0,
    "Longest drain of an instance before it is stopped, where one is asked for and the stack file says nothing.",
)
RECOVERY_ENABLED = Setting(
    "recovery.enabled",
    "ORCHESTRATOR_RECOVERY_ENABLED",
    values.boolean,
    True,
    "Whether failed services are recovered, unless the stack file says otherwise.",
)
RECOVERY_ATTEMPTS = Setting(
    "recovery.attempts",
    "ORCHESTRATOR_RECOVERY_ATTEMPTS",
    values.positive_int,
    3,
    "Attempts in one bout of recovery, unless the stack file says otherwise.",
)
RECOVERY_DELAY = Setting(
    "recovery.delay",
    "ORCHESTRATOR_RECOVERY_DELAY",
    values.duration(0.001, DAY),
    60.0,
    "Longest delay before the second attempt, doubled for each further one, unless the stack file says otherwise.",
)
FLAP_LIMIT = Setting(
    "recovery.flap_limit",
    "CITADEL_RECOVERY_FLAP_LIMIT",
    values.several(LAPSES_KEPT),
    5,
    "How often a service may fail and come back by itself, in quick succession, until it is put into quarantine "
    f"(2 to {LAPSES_KEPT}).",
)
FLAP_HALF_LIFE = Setting(
    "recovery.flap_half_life",
    "CITADEL_RECOVERY_FLAP_HALF_LIFE",
    values.duration(1.0, HOUR),
    300.0,
    "After this time such a failure counts half; a quarantine ends when what is left is few enough.",
)
BRAKE_SHARE = Setting(
    "recovery.brake_share",
    "CITADEL_RECOVERY_BRAKE_SHARE",
    values.percent,
    values.Percent(50),
    "If more than this share of the wanted services fails at once, recovery is frozen; at half of it, it goes on. "
    "`100%`: never.",
)
BRAKE_SERVICES = Setting(
    "recovery.brake_services",
    "CITADEL_RECOVERY_BRAKE_SERVICES",
    values.several(),
    3,
    "Fewer failing services than this never freeze recovery, whatever share they are.",
)
BRAKE_WINDOW = Setting(
    "recovery.brake_window",
    "CITADEL_RECOVERY_BRAKE_WINDOW",
    values.duration(1.0, HOUR),
    60.0,
    "What 'at once' means: failures within this time are counted together.",
)
DISCOVERY_ENABLED = Setting(
    "discovery.enabled",
    "ORCHESTRATOR_SERVICE_DISCOVERY_ENABLED",
    values.boolean,
    True,
    "Whether orchestrators and node agents register themselves in Consul's catalog.",
)
METRICS_ENABLED = Setting(
    "metrics.enabled", "ORCHESTRATOR_METRICS_ENABLED", values.boolean, True, "Whether the API serves `/metrics`."
)
NOTIFICATION_ENABLED = Setting(
    "notification.enabled",
    "ORCHESTRATOR_NOTIFICATION_ENABLED",
    values.boolean,
    True,
    "Whether failures and recoveries are notified.",
)
NOTIFICATION_DELAY = Setting(
    "notification.delay",
    "CITADEL_NOTIFICATION_DELAY",
    values.duration(0.0, 600.0),
    1.0,
    "How long a new incident is watched before it is told: what turns out to belong to another one is told with that.",
)
NOTIFICATION_RECEIVERS = Setting(
    "notification.receivers",
    "",
    parse_receivers,
    ONLY_THE_LOG,
    "Who is notified and how (see [notifications](notifications.md)). Configuration file only.",
    default_text="the orchestrator's log",
)
CHECK_TTL = Setting(
    "leader.check_ttl",
    "CITADEL_LEADER_CHECK_TTL",
    values.duration(0.5, 60.0),
    2.0,
    "A leader silent for this long loses the lock. 1s fails over faster, and wants a machine that never starves.",
)
SESSION_TTL = Setting(
    "leader.session_ttl",
    "CITADEL_LEADER_SESSION_TTL",
    values.duration(10.0, DAY),
    10.0,
    "TTL of the leader's session, the last resort. Consul takes 10s to 24h.",
)
API_BIND = Setting(
    "api.bind", "CITADEL_API_BIND", values.bind, HostPort("127.0.0.1", 8000), "Address and port of the HTTP API."
)
API_HOSTS = Setting(
    "api.hosts",
    "CITADEL_API_HOSTS",
    values.hosts,
    values.Hosts(),
    "Names by which clients reach the API besides the node's, the machine's and Consul's (a proxy, DNS of your own).",
)
API_TLS_CERT: Setting[Path | None] = Setting(
    "api.tls_cert", "CITADEL_API_TLS_CERT", values.path, _NO_PATH, "Certificate chain (PEM) of the HTTP API."
)
API_TLS_KEY: Setting[Path | None] = Setting(
    "api.tls_key", "CITADEL_API_TLS_KEY", values.path, _NO_PATH, "Its private key (PEM)."
)
API_ALLOW_INSECURE_BIND = Setting(
    "api.allow_insecure_bind",
    "CITADEL_API_ALLOW_INSECURE_BIND",
    values.boolean,
    False,
    "Allow the API on an address that is not loopback without TLS.",
)
AGENT_BIND: Setting[HostPort | None] = Setting(
    "agent.bind",
    "CITADEL_AGENT_BIND",
    values.bind,
    _NO_BIND,
    "Where the node agent shows what it measures, read-only and in the clear.",
    default_text="the node's address, a free port",
)
CONSUL_ADDRESS = Setting(
    "consul.address",
    "CONSUL_HTTP_ADDR",
    values.consul_address,
    "127.0.0.1:8500",
    "Consul's HTTP API: `host:port`, `http://…`, `https://…` or `unix:///…`.",
)
CONSUL_TOKEN: Setting[str | None] = Setting(
    "consul.token", "CONSUL_HTTP_TOKEN", values.text, _NO_TEXT, "ACL token.", secret=True
)
CONSUL_TOKEN_FILE: Setting[Path | None] = Setting(
    "consul.token_file",
    "CONSUL_HTTP_TOKEN_FILE",
    values.path,
    _NO_PATH,
    "File that holds the ACL token; wins over a token given in the same way.",
)
CONSUL_SSL = Setting(
    "consul.ssl", "CONSUL_HTTP_SSL", values.go_boolean, False, "Use HTTPS, also for an address that says `http://`."
)
CONSUL_SSL_VERIFY = Setting(
    "consul.ssl_verify", "CONSUL_HTTP_SSL_VERIFY", values.go_boolean, True, "Verify Consul's certificate."
)
CONSUL_CACERT: Setting[Path | None] = Setting(
    "consul.cacert", "CONSUL_CACERT", values.path, _NO_PATH, "CA certificate to verify Consul by."
)
CONSUL_CAPATH: Setting[Path | None] = Setting(
    "consul.capath", "CONSUL_CAPATH", values.path, _NO_PATH, "Folder of CA certificates to verify Consul by."
)
CONSUL_CLIENT_CERT: Setting[Path | None] = Setting(
    "consul.client_cert", "CONSUL_CLIENT_CERT", values.path, _NO_PATH, "Client certificate shown to Consul."
)
CONSUL_CLIENT_KEY: Setting[Path | None] = Setting(
    "consul.client_key", "CONSUL_CLIENT_KEY", values.path, _NO_PATH, "Its private key."
)
CONSUL_TLS_SERVER_NAME: Setting[str | None] = Setting(
    "consul.tls_server_name", "CONSUL_TLS_SERVER_NAME", values.host, _NO_TEXT, "Server name (SNI) to expect of Consul."
)

ALL: tuple[Setting[object], ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Setting) and value is not CONFIG
)
"""The settings that the configuration file may hold, in the order of the documentation."""
