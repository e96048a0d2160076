"""From the models of a valid stack file to the types of ``core``."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from citadel_consul.config.stackmodels import (
    BackendModel,
    CheckModel,
    CommandModel,
    DockerModel,
    EdgeModel,
    ProcessModel,
    RecoveryModel,
    ServiceModel,
    SystemdModel,
)
from citadel_consul.config.templating import is_template
from citadel_consul.core.model import (
    Backend,
    Check,
    CheckKind,
    CommandBackend,
    Condition,
    DockerBackend,
    Edge,
    ProcessBackend,
    RecoveryPolicy,
    ServiceSpec,
    Stack,
    SystemdBackend,
)

DEFAULT_CHECK_TIMEOUT_SECONDS = 5.0
_ABSOLUTE_TEMPLATE = re.compile(r"\{\{-?\s*data_dir\b")
UNUSED_TTL_SECONDS = 30.0  # of a check that is not of kind ttl


def assemble(name: str, services: Mapping[str, ServiceModel], folder: Path, check_interval_seconds: float) -> Stack:
    """The stack made of ``services``, which every rule has passed.

    Relative working folders are resolved against ``folder``; ``check_interval_seconds`` is for checks without one.
    """
    return Stack(
        name,
        {service: _spec(service, model, folder, check_interval_seconds) for service, model in services.items()},
        tuple(edge for service, model in services.items() for edge in _edges(service, model, services)),
    )


def _spec(name: str, model: ServiceModel, folder: Path, check_interval_seconds: float) -> ServiceSpec:
    checks = tuple(_check(check, check_interval_seconds) for check in model.checks)
    first_http = next((check.target for check in checks if check.kind is CheckKind.HTTP), None)
    return ServiceSpec(
        name=name,
        type=model.type or "",
        nodes=tuple(model.nodes or ()),
        backend=_backend(model.backend or ProcessModel(), folder),
        critical=model.critical,
        oneshot=model.oneshot,
        endpoint=model.endpoint,
        health_endpoint=model.health_endpoint or first_http,
        checks=checks,
        tags=tuple(model.tags),
        meta=dict(model.meta),
        metrics=dict(model.metrics),
        start_timeout_seconds=model.start_timeout,
        stop_timeout_seconds=model.stop_timeout,
        drain_timeout_seconds=model.drain_timeout,
        on_failure=model.on_failure,
        recovery=_recovery(model.recovery),
        template=model.template,
    )


def _backend(model: BackendModel, folder: Path) -> Backend:
    match model:
        case ProcessModel():
            return _process(model, folder)
        case SystemdModel():
            return SystemdBackend(unit=model.unit or "", bus=model.bus, restarts=model.restarts)
        case DockerModel():
            return DockerBackend(
                container=model.container,
                file=_absolute(model.file, folder) if model.file is not None else None,
                service=model.service,
                project=model.project,
                reload_signal=model.reload_signal,
            )
        case CommandModel():
            return _command(model, folder)


def _process(model: ProcessModel, folder: Path) -> ProcessBackend:
    return ProcessBackend(
        command=tuple(model.command),
        env=dict(model.env),
        cwd=_absolute(model.cwd, folder) if model.cwd is not None else None,
        user=model.user,
        stop_signal=model.stop_signal,
        reload_signal=model.reload_signal,
        log_bytes=model.logs.max_bytes,
        log_files=model.logs.files,
    )


def _command(model: CommandModel, folder: Path) -> CommandBackend:
    return CommandBackend(
        start=tuple(model.start or ()),
        stop=tuple(model.stop or ()),
        status=tuple(model.status or ()),
        reload=tuple(model.reload) if model.reload is not None else None,
        env=dict(model.env),
        cwd=_absolute(model.cwd, folder) if model.cwd is not None else None,
        user=model.user,
        poll_seconds=model.poll,
        timeout_seconds=model.timeout,
    )


def _absolute(path: str, folder: Path) -> str:
    """A path of the file against ``folder``.

    Symbolic links stay: a link that is switched at a deployment has to be followed.
    """
    if _ABSOLUTE_TEMPLATE.match(path):
        return path
    joined = str(folder / path)
    return joined if is_template(path) else os.path.normpath(joined)


def _check(model: CheckModel, interval_seconds: float) -> Check:
    kind = next(kind for kind in CheckKind if getattr(model, kind.value) is not None)
    interval = max(interval_seconds, model.timeout or 0) if model.interval is None else model.interval
    timeout = min(DEFAULT_CHECK_TIMEOUT_SECONDS, interval) if model.timeout is None else model.timeout
    return Check(
        name=model.name or kind.value,
        kind=kind,
        target=model.http or model.tcp or model.grpc or "",
        args=tuple(model.script or ()),
        interval_seconds=interval,
        timeout_seconds=timeout,
        ttl_seconds=UNUSED_TTL_SECONDS if model.ttl is None else model.ttl,
        method=model.method,
        headers={name: tuple(values) for name, values in model.headers.items()},
        tls_skip_verify=model.tls_skip_verify,
        success_before_passing=model.success_before_passing,
        failures_before_critical=model.failures_before_critical,
    )


def _recovery(model: RecoveryModel) -> RecoveryPolicy:
    return RecoveryPolicy(
        enabled=model.enabled,
        attempts=model.attempts,
        delay_seconds=model.delay,
        max_delay_seconds=model.max_delay,
        total_seconds=model.total,
        reset_after_seconds=model.reset_after,
        restart_degraded=model.restart_degraded,
    )


def _edges(name: str, model: ServiceModel, services: Mapping[str, ServiceModel]) -> Iterator[Edge]:
    written = model.depends_on
    edges = written if isinstance(written, dict) else dict.fromkeys(written, EdgeModel())
    for dependency, edge in edges.items():
        edge = edge or EdgeModel()
        usual = Condition.COMPLETED if services[dependency].oneshot else Condition.HEALTHY
        yield Edge(
            service=name,
            dependency=dependency,
            condition=edge.condition or usual,
            strength=edge.strength,
            min_instances=edge.min_instances,
            on_recovery=edge.on_recovery,
        )
