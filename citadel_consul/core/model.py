"""What a stack is made of: services, their checks, their edges, their policies.

Everything here is immutable and holds no behaviour beyond what follows from its own fields. Times are floats in
seconds. The defaults are those of the stack file; see ``docs/stack-file.md`` for what each means to a user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Instance(NamedTuple):
    """A service on a node: the unit that is started, stopped and observed."""

    service: str
    node: str

    def __str__(self) -> str:
        return f"{self.service}@{self.node}"


class Condition(StrEnum):
    """What a dependency has to be before its dependent may start."""

    STARTED = "started"
    HEALTHY = "healthy"
    COMPLETED = "completed"


class Strength(StrEnum):
    """How much a dependent needs its dependency.

    ``hard``: to start and to stay up. ``milestone``: to start only. ``soft``: order alone, and only if the
    dependency is being started anyway.
    """

    HARD = "hard"
    SOFT = "soft"
    MILESTONE = "milestone"


class OnRecovery(StrEnum):
    """What a dependent does after its dependency was recovered."""

    RESTART = "restart"
    RELOAD = "reload"
    NOTIFY = "notify"
    NONE = "none"


class OnFailure(StrEnum):
    """What a startup does when a service fails to start.

    ``rollback``: stop, in reverse order, what this operation started. ``keep``: start nothing more, leave running
    what runs. ``continue``: start everything that does not depend on the failed service.
    """

    ROLLBACK = "rollback"
    KEEP = "keep"
    CONTINUE = "continue"


class CheckKind(StrEnum):
    HTTP = "http"
    TCP = "tcp"
    GRPC = "grpc"
    TTL = "ttl"
    SCRIPT = "script"


@dataclass(frozen=True, slots=True)
class Check:
    """One health check of a service, as Consul runs it and as the node agent probes it.

    ``target`` is a URL for http, ``host:port`` for tcp, ``host:port[/service]`` for grpc, and empty otherwise.
    ``args`` is the argument list of a script check. Strings may be Jinja templates over ``node`` and ``service``.
    """

    name: str
    kind: CheckKind
    target: str = ""
    args: tuple[str, ...] = ()
    interval_seconds: float = 10.0
    timeout_seconds: float = 5.0
    ttl_seconds: float = 30.0
    method: str = "GET"
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tls_skip_verify: bool = False
    success_before_passing: int = 0
    failures_before_critical: int = 0


@dataclass(frozen=True, slots=True)
class ProcessBackend:
    """A program that the node agent runs itself. ``command`` is an argument list; there is no shell.

    Strings may be Jinja templates over ``node``, ``service`` and ``stack``. ``log_bytes`` and ``log_files`` bound
    the rotated output of one instance.
    """

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    user: str | None = None
    stop_signal: str = "SIGTERM"
    reload_signal: str | None = None
    log_bytes: int = 10 * 1024 * 1024
    log_files: int = 3
    kind: str = "process"


@dataclass(frozen=True, slots=True)
class SystemdBackend:
    """A unit of systemd, on the system's bus or on that of a user (``bus``: ``system`` or ``user``).

    ``unit`` is its whole name (``redis-server.service``, ``embedding@1.service``), and may be a Jinja template over
    ``node``, ``service`` and ``stack``. ``restarts`` says who starts it again after an end that nobody asked for, if
    the unit itself has ``Restart=``: ``citadel`` (what systemd has planned is cancelled) or ``systemd`` (an end is told
    only when systemd gives up).
    """

    unit: str
    bus: str = "system"
    restarts: str = "citadel"
    kind: str = "systemd"


@dataclass(frozen=True, slots=True)
class DockerBackend:
    """A container: either ``container``, an existing one by name, or ``service`` of the compose file ``file``.

    ``project`` is compose's project name; compose derives it from the folder of the file if it is None. Nothing that
    compose's own ``depends_on`` names is started with it.
    """

    container: str | None = None
    file: str | None = None
    service: str | None = None
    project: str | None = None
    reload_signal: str | None = None
    kind: str = "docker"


@dataclass(frozen=True, slots=True)
class CommandBackend:
    """Anything that has commands to start, stop and look at it. Each is an argument list; there is no shell.

    ``status`` has to end with 0 while the service runs and with 3 (as ``systemctl is-active`` and LSB scripts do) when
    it does not; it is asked every ``poll_seconds``. ``timeout_seconds`` bounds each command but ``stop``, which is
    bounded by the stop's own time-out.
    """

    start: tuple[str, ...]
    stop: tuple[str, ...]
    status: tuple[str, ...]
    reload: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    user: str | None = None
    poll_seconds: float = 1.0
    timeout_seconds: float = 30.0
    kind: str = "command"


Backend = ProcessBackend | SystemdBackend | DockerBackend | CommandBackend

BACKEND_KINDS = ("process", "systemd", "docker", "command")


@dataclass(frozen=True, slots=True)
class RecoveryPolicy:
    """How failures of a service are recovered; ``None`` takes the orchestrator's setting.

    The first attempt after a healthy period is immediate. The delay before attempt n is drawn from
    ``[0, min(max_delay_seconds, delay_seconds * 2**(n-2))]`` (full jitter). ``attempts`` and ``total_seconds``
    bound one bout; a bout ends, and the budget is whole again, after ``reset_after_seconds`` of health.
    """

    enabled: bool | None = None
    attempts: int | None = None
    delay_seconds: float | None = None
    max_delay_seconds: float = 300.0
    total_seconds: float = 1800.0
    reset_after_seconds: float = 600.0
    restart_degraded: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """``service`` depends on ``dependency``. ``min_instances`` is k of n; ``None`` means all."""

    service: str
    dependency: str
    condition: Condition = Condition.HEALTHY
    strength: Strength = Strength.HARD
    min_instances: int | None = None
    on_recovery: OnRecovery = OnRecovery.NOTIFY

    @property
    def needed_to_start(self) -> bool:
        """Whether the dependent cannot start without it (hard and milestone edges)."""
        return self.strength is not Strength.SOFT

    @property
    def needed_to_run(self) -> bool:
        """Whether the dependent cannot stay up without it (hard edges)."""
        return self.strength is Strength.HARD


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What the stack file says of one service, without its edges (those are keys of their own).

    ``endpoint`` is a URL whose scheme, host and port are what clients are told and what Consul is given as address
    and port. A ``oneshot`` service is expected to exit with status 0, after which it is ``completed``.
    ``template`` names a Jinja template instead of the one chosen by ``type``. Consul knows a service by its own
    name, so that ``<name>.service.consul`` is what a DNS client asks for.
    """

    name: str
    type: str
    nodes: tuple[str, ...]
    backend: Backend
    critical: bool = True
    oneshot: bool = False
    endpoint: str | None = None
    health_endpoint: str | None = None
    checks: tuple[Check, ...] = ()
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    start_timeout_seconds: float | None = None
    stop_timeout_seconds: float | None = None
    drain_timeout_seconds: float | None = None
    on_failure: OnFailure = OnFailure.CONTINUE
    recovery: RecoveryPolicy = field(default_factory=RecoveryPolicy)
    template: str | None = None

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The instances of this service, one a node, in the order of the stack file."""
        return tuple(Instance(self.name, node) for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Stack:
    """A whole stack as its file describes it: what ``citadel apply`` writes."""

    name: str
    services: Mapping[str, ServiceSpec]
    edges: tuple[Edge, ...]
