"""Stacks at random, and a writer of stack files: what is read has to be what was written."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

from hypothesis import strategies as st

from citadel_consul.config.durations import format_duration
from citadel_consul.core.model import (
    Backend,
    Check,
    CheckKind,
    CommandBackend,
    Condition,
    DockerBackend,
    Edge,
    OnFailure,
    OnRecovery,
    ProcessBackend,
    RecoveryPolicy,
    ServiceSpec,
    Stack,
    Strength,
    SystemdBackend,
)

names = st.text("abz09", min_size=1, max_size=6) | st.sampled_from(["a-b", "redis", "x" * 60])
words = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P"], exclude_characters="{}#%"), min_size=1, max_size=8
)
periods = st.integers(1000, 10**7).map(lambda milliseconds: milliseconds / 1000)
positive = st.integers(1, 10**7).map(lambda milliseconds: milliseconds / 1000)
paths = st.lists(st.text("abZ09_-", min_size=1, max_size=4), min_size=1, max_size=3).map(".".join)
keys = st.text("ABZ_", min_size=1, max_size=5)


@st.composite
def checks(draw: st.DrawFn, name: str) -> Check:
    kind = draw(st.sampled_from(CheckKind))
    check = Check(name, kind)
    if kind is CheckKind.TTL:
        return replace(check, ttl_seconds=draw(periods), interval_seconds=30.0)
    interval = draw(periods)
    check = replace(
        check,
        interval_seconds=interval,
        timeout_seconds=draw(positive.filter(lambda timeout: timeout <= interval)),
        success_before_passing=draw(st.integers(0, 9)),
        failures_before_critical=draw(st.integers(0, 9)),
    )
    if kind is CheckKind.SCRIPT:
        return replace(check, args=tuple(draw(st.lists(words, min_size=1, max_size=3))))
    if kind is CheckKind.HTTP:
        headers = draw(st.dictionaries(keys, st.lists(words, min_size=1, max_size=2).map(tuple), max_size=2))
        target = f"https://h{draw(names)}:{draw(st.integers(1, 65535))}/health"
        return replace(check, target=target, method="PUT", headers=headers, tls_skip_verify=draw(st.booleans()))
    return replace(check, target=f"h{draw(names)}:{draw(st.integers(1, 65535))}")


@st.composite
def processes(draw: st.DrawFn) -> ProcessBackend:
    return ProcessBackend(
        command=tuple(draw(st.lists(words, min_size=1, max_size=3))),
        env=draw(st.dictionaries(keys, words, max_size=2)),
        cwd=draw(st.none() | names.map(lambda folder: f"/srv/{folder}")),
        user=draw(st.none() | names),
        stop_signal="SIGINT",
        reload_signal=draw(st.none() | st.just("SIGHUP")),
        log_bytes=draw(st.integers(4096, 10**9)),
        log_files=draw(st.integers(1, 9)),
    )


@st.composite
def commands(draw: st.DrawFn) -> CommandBackend:
    arguments = st.lists(words, min_size=1, max_size=3).map(tuple)
    return CommandBackend(
        start=draw(arguments),
        stop=draw(arguments),
        status=draw(arguments),
        reload=draw(st.none() | arguments),
        env=draw(st.dictionaries(keys, words, max_size=2)),
        cwd=draw(st.none() | names.map(lambda folder: f"/srv/{folder}")),
        user=draw(st.none() | names),
        poll_seconds=draw(positive),
        timeout_seconds=draw(positive),
    )


def backends() -> st.SearchStrategy[Backend]:
    """A backend of any kind."""
    units = st.builds(
        SystemdBackend,
        names.map("{}.service".format) | names.map("x@{}.service".format),
        st.sampled_from(["system", "user"]),
        st.sampled_from(["citadel", "systemd"]),
    )
    containers = st.builds(DockerBackend, container=names)
    composed = st.builds(DockerBackend, file=names.map("/srv/{}.yaml".format), service=names, project=st.none() | names)
    return processes() | units | containers | composed | commands()


@st.composite
def services(draw: st.DrawFn, name: str, port: int) -> ServiceSpec:
    oneshot = draw(st.booleans())
    check_names = () if oneshot else draw(st.lists(names, unique=True, max_size=2))
    own = tuple(draw(checks(check)) for check in check_names)
    first_http = next((check.target for check in own if check.kind is CheckKind.HTTP), None)
    delay = draw(positive)
    return ServiceSpec(
        name=name,
        type=draw(names),
        nodes=tuple(draw(st.lists(names, min_size=1, max_size=3, unique=True))),
        backend=draw(
            backends().filter(lambda backend: not (oneshot and getattr(backend, "restarts", "") == "systemd"))
        ),
        critical=draw(st.booleans()),
        oneshot=oneshot,
        endpoint=draw(st.none() | st.just(f"redis://127.0.0.1:{port}")),
        health_endpoint=draw(st.just("http://h:1/x") if first_http is None else st.just(first_http)),
        checks=own,
        tags=tuple(draw(st.lists(words, unique=True, max_size=2))),
        meta=draw(st.dictionaries(names, words, max_size=2)),
        metrics=draw(st.dictionaries(st.text("abc_", min_size=1, max_size=5).map("x{}".format), paths, max_size=2)),
        start_timeout_seconds=draw(st.none() | positive),
        stop_timeout_seconds=draw(st.none() | positive),
        drain_timeout_seconds=draw(st.none() | st.just(0.0) | positive),
        on_failure=draw(st.sampled_from(OnFailure)),
        recovery=RecoveryPolicy(
            enabled=draw(st.none() | st.booleans()),
            attempts=draw(st.none() | st.integers(1, 99)),
            delay_seconds=delay,
            max_delay_seconds=delay * 2,
            total_seconds=draw(positive),
            reset_after_seconds=draw(positive),
            restart_degraded=draw(st.booleans()),
        ),
        template=draw(st.none() | names),
    )


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    """Valid stacks of up to four services, each depending on some of those before it."""
    labels = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    specs = [draw(services(name, 7000 + index)) for index, name in enumerate(labels)]
    edges = []
    for index, spec in enumerate(specs):
        for dependency in draw(
            st.lists(st.sampled_from(specs[:index]), unique_by=lambda s: s.name) if index else st.just([])
        ):
            last = Condition.COMPLETED if dependency.oneshot else Condition.HEALTHY
            edges.append(
                Edge(
                    spec.name,
                    dependency.name,
                    draw(st.sampled_from([Condition.STARTED, last])),
                    draw(st.sampled_from(Strength)),
                    draw(st.none() | st.integers(1, len(dependency.nodes))),
                    draw(st.sampled_from(OnRecovery)),
                )
            )
    return Stack(draw(names), {spec.name: spec for spec in specs}, tuple(edges))


def written(stack: Stack) -> str:
    """A stack file that says everything of ``stack``; JSON, which is YAML too."""
    services = {name: _service(spec, stack) for name, spec in stack.services.items()}
    return json.dumps({"version": 1, "stack": stack.name, "services": services}, ensure_ascii=False)


def _given(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _seconds(value: float | None) -> str | None:
    return None if value is None else format_duration(value)


def _service(spec: ServiceSpec, stack: Stack) -> dict[str, object]:
    edges = {
        edge.dependency: _given(
            condition=edge.condition,
            strength=edge.strength,
            min_instances=edge.min_instances,
            on_recovery=edge.on_recovery,
        )
        for edge in stack.edges
        if edge.service == spec.name
    }
    return _given(
        type=spec.type,
        critical=spec.critical,
        nodes=spec.nodes,
        endpoint=spec.endpoint,
        health_endpoint=spec.health_endpoint,
        oneshot=spec.oneshot,
        backend=_backend(spec.backend),
        checks=[_check(check) for check in spec.checks],
        tags=spec.tags,
        meta=spec.meta,
        metrics=spec.metrics,
        depends_on=edges,
        start_timeout=_seconds(spec.start_timeout_seconds),
        stop_timeout=_seconds(spec.stop_timeout_seconds),
        drain_timeout=_seconds(spec.drain_timeout_seconds),
        on_failure=spec.on_failure,
        recovery=_recovery(spec.recovery),
        template=spec.template,
    )


def _backend(backend: Backend) -> dict[str, object]:
    fields = {name: value for name, value in dataclasses.asdict(backend).items() if value is not None}
    if isinstance(backend, ProcessBackend):
        fields["logs"] = {"max_bytes": fields.pop("log_bytes"), "files": fields.pop("log_files")}
    if isinstance(backend, CommandBackend):
        fields |= {name: _seconds(fields.pop(f"{name}_seconds")) for name in ("poll", "timeout")}
    return fields


def _recovery(policy: RecoveryPolicy) -> dict[str, object]:
    return _given(
        enabled=policy.enabled,
        attempts=policy.attempts,
        delay=_seconds(policy.delay_seconds),
        max_delay=_seconds(policy.max_delay_seconds),
        total=_seconds(policy.total_seconds),
        reset_after=_seconds(policy.reset_after_seconds),
        restart_degraded=policy.restart_degraded,
    )


def _check(check: Check) -> dict[str, object]:
    if check.kind is CheckKind.TTL:
        return {"name": check.name, "ttl": check.ttl_seconds}
    fields = _given(
        name=check.name,
        interval=check.interval_seconds,
        timeout=_seconds(check.timeout_seconds),
        success_before_passing=check.success_before_passing,
        failures_before_critical=check.failures_before_critical,
    )
    fields[check.kind] = check.args if check.kind is CheckKind.SCRIPT else check.target
    if check.kind is CheckKind.HTTP:
        fields |= {"method": check.method, "headers": check.headers, "tls_skip_verify": check.tls_skip_verify}
    return fields
