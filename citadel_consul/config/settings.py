"""The settings of citadel's own processes: flag over environment over configuration file over default.

Everything that is given is checked, also what something nearer overrides, and all problems are reported at once.
No pydantic here: settings are loaded by each run of the command line, where its import would be felt.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from citadel_consul.config import options
from citadel_consul.config.addresses import HostPort, is_loopback
from citadel_consul.config.options import LogFormat, LogLevel
from citadel_consul.config.precedence import Effective, Sources
from citadel_consul.config.receivers import ONLY_THE_LOG, Receivers
from citadel_consul.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """What a service's recovery policy falls back to, and what is too much. ``brake_share`` is from 0 to 1."""

    enabled: bool
    attempts: int
    delay_seconds: float
    flap_limit: int
    flap_half_life_seconds: float
    brake_share: float
    brake_services: int
    brake_window_seconds: float


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Where the HTTP API listens, and by which other names. TLS files come as a pair or not at all."""

    bind: HostPort
    hosts: tuple[str, ...]
    tls_cert: Path | None
    tls_key: Path | None
    allow_insecure_bind: bool


@dataclass(frozen=True, slots=True)
class ConsulSettings:
    """How to reach Consul, as Consul's own tools are told; ``address`` is as it was given."""

    address: str
    token: str | None = field(repr=False)
    token_file: Path | None
    ssl: bool
    ssl_verify: bool
    cacert: Path | None
    capath: Path | None
    client_cert: Path | None
    client_key: Path | None
    tls_server_name: str | None

    def read_token(self) -> str | None:
        """The ACL token: what the token file holds or, if that is empty or not set, ``token``.

        Consul's own tools do the same. Raises InvalidInput if the file cannot be read.
        """
        if self.token_file is None:
            return self.token
        try:
            written = self.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            place, remedy = f"setting {options.CONSUL_TOKEN_FILE.name}", "check the path and its permissions"
            raise InvalidInput.at(place, f"{self.token_file} cannot be read: {reason}", remedy) from error
        return written or self.token


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting with its effective value. ``stack`` None: the only one in Consul, or ``default``."""

    stack: str | None
    node: str
    node_address: str | None
    state_dir: Path
    template_dir: Path | None
    config_path: Path
    log_level: LogLevel
    log_format: LogFormat
    health_check_interval_seconds: float
    startup_timeout_seconds: float
    shutdown_timeout_seconds: float
    drain_timeout_seconds: float
    recovery: RecoverySettings
    service_discovery_enabled: bool
    metrics_enabled: bool
    notification_enabled: bool
    notification_delay_seconds: float
    leader_check_ttl_seconds: float
    session_ttl_seconds: float
    api: ApiSettings
    consul: ConsulSettings
    agent_bind: HostPort | None = None
    receivers: Receivers = ONLY_THE_LOG
    _effective: tuple[Effective, ...] = field(default=(), repr=False, compare=False)

    def origins(self) -> tuple[Effective, ...]:
        """A row for each setting: its name, its value as text (secrets masked), and where that came from."""
        return self._effective


def load_settings(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    config_path: Path | None = None,
) -> Settings:
    """The effective settings.

    ``flags`` are by name (``recovery.attempts``) or key (``recovery_attempts``), None for those not given;
    ``environ`` is the process's own by default; ``config_path`` is the file that ``--config`` names. A file that is
    named has to exist, the default one need not. Raises InvalidInput with every problem found.
    """
    sources = Sources.open(flags or {}, os.environ if environ is None else environ, config_path)
    consul = _consul(sources)
    api = _api(sources)
    settings = Settings(
        stack=sources.value(options.STACK),
        node=sources.value(options.NODE),
        node_address=sources.value(options.NODE_ADDRESS),
        state_dir=sources.value(options.STATE_DIR),
        template_dir=sources.value(options.TEMPLATES),
        config_path=sources.value(options.CONFIG),
        log_level=sources.value(options.LOG_LEVEL),
        log_format=sources.value(options.LOG_FORMAT),
        health_check_interval_seconds=sources.value(options.CHECK_INTERVAL),
        startup_timeout_seconds=sources.value(options.STARTUP_TIMEOUT),
        shutdown_timeout_seconds=sources.value(options.SHUTDOWN_TIMEOUT),
        drain_timeout_seconds=sources.value(options.DRAIN_TIMEOUT),
        recovery=RecoverySettings(
            sources.value(options.RECOVERY_ENABLED),
            sources.value(options.RECOVERY_ATTEMPTS),
            sources.value(options.RECOVERY_DELAY),
            sources.value(options.FLAP_LIMIT),
            sources.value(options.FLAP_HALF_LIFE),
            sources.value(options.BRAKE_SHARE).share,
            sources.value(options.BRAKE_SERVICES),
            sources.value(options.BRAKE_WINDOW),
        ),
        service_discovery_enabled=sources.value(options.DISCOVERY_ENABLED),
        metrics_enabled=sources.value(options.METRICS_ENABLED),
        notification_enabled=sources.value(options.NOTIFICATION_ENABLED),
        notification_delay_seconds=sources.value(options.NOTIFICATION_DELAY),
        leader_check_ttl_seconds=_check_ttl(sources),
        session_ttl_seconds=sources.value(options.SESSION_TTL),
        api=api,
        consul=consul,
        agent_bind=sources.value(options.AGENT_BIND),
        receivers=sources.value(options.NOTIFICATION_RECEIVERS),
        _effective=sources.effective(),
    )
    sources.raise_problems()
    return settings


def _check_ttl(sources: Sources) -> float:
    check, session = sources.value(options.CHECK_TTL), sources.value(options.SESSION_TTL)
    if check >= session:
        message = f"has to be shorter than the session's ({options.shown(session)}), which is the last resort"
        sources.object_to(options.CHECK_TTL, message, "lower it, or raise leader.session_ttl")
    return check


def _api(sources: Sources) -> ApiSettings:
    api = ApiSettings(
        bind=sources.value(options.API_BIND),
        hosts=sources.value(options.API_HOSTS),
        tls_cert=sources.value(options.API_TLS_CERT),
        tls_key=sources.value(options.API_TLS_KEY),
        allow_insecure_bind=sources.value(options.API_ALLOW_INSECURE_BIND),
    )
    sources.require_pair(options.API_TLS_CERT, options.API_TLS_KEY)
    if api.tls_cert is None and not api.allow_insecure_bind and not is_loopback(api.bind.host):
        message = f"{api.bind} is not loopback: without TLS, tokens and requests would cross the network in the clear"
        remedy = "set api.tls_cert and api.tls_key, or allow it with api.allow_insecure_bind"
        sources.object_to(options.API_BIND, message, remedy)
    return api


def _consul(sources: Sources) -> ConsulSettings:
    if sources.is_given(options.CONSUL_TOKEN_FILE) and sources.is_nearer(
        options.CONSUL_TOKEN, options.CONSUL_TOKEN_FILE
    ):
        # Given in the same way, the file wins, as with Consul's own tools; a nearer token wins over a farther file.
        sources.set_aside(options.CONSUL_TOKEN_FILE, "consul.token is nearer")
    consul = ConsulSettings(
        address=sources.value(options.CONSUL_ADDRESS),
        token=sources.value(options.CONSUL_TOKEN),
        token_file=sources.value(options.CONSUL_TOKEN_FILE),
        ssl=sources.value(options.CONSUL_SSL),
        ssl_verify=sources.value(options.CONSUL_SSL_VERIFY),
        cacert=sources.value(options.CONSUL_CACERT),
        capath=sources.value(options.CONSUL_CAPATH),
        client_cert=sources.value(options.CONSUL_CLIENT_CERT),
        client_key=sources.value(options.CONSUL_CLIENT_KEY),
        tls_server_name=sources.value(options.CONSUL_TLS_SERVER_NAME),
    )
    sources.require_pair(options.CONSUL_CLIENT_CERT, options.CONSUL_CLIENT_KEY)
    return consul
