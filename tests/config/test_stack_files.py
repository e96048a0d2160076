"""Good stack files: what each part of them becomes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel
from stack_writing import stacks, written

from citadel_consul.config.source import parse_document
from citadel_consul.config.stackfile import load_stack, parse_stack, stack_json_schema
from citadel_consul.config.stackmodels import (
    CheckModel,
    CommandModel,
    DockerModel,
    EdgeModel,
    ProcessModel,
    RecoveryModel,
    ServiceModel,
    SystemdModel,
)
from citadel_consul.core.model import (
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
from citadel_consul.errors import InvalidInput

FULL = """\
version: 1
stack: ai-platform
x-health: &health {interval: 5s, timeout: 1s}
defaults:
  nodes: [hx-orc-01]
  start_timeout: 60s
  backend:
    env: {LANG: C.UTF-8, MODE: 0640}
services:
  qdrant:
    type: database
    critical: false
    nodes: [hx-orc-01, hx-orc-02]
    endpoint: http://{{ node.address }}:6333
    backend:
      kind: process
      command: ["{{ python }}", -m, services.vector_store, --port, 6333]
      env: {KEY: value, VERSION: 1.10}
      cwd: ../data
      user: qdrant
      stop_signal: SIGINT
      reload_signal: SIGHUP
      logs: {max_bytes: 1MiB, files: 2}
    checks:
      - http: http://127.0.0.1:6333/health
        name: ready
        <<: *health
        method: HEAD
        headers: {X-A: [b, c], X-D: 5}
        tls_skip_verify: true
        success_before_passing: 2
        failures_before_critical: 3
      - tcp: 127.0.0.1:6334
      - grpc: 127.0.0.1:6334/my.Service
        timeout: 45s
      - ttl: 30s
      - script: [/usr/bin/check, --fast]
        interval: 2
    tags: [primary]
    meta: {team: search, tier: 1}
    metrics: {gpu_utilization: gpus.0.util}
    depends_on:
      redis: {condition: started, strength: milestone, min_instances: 1, on_recovery: reload}
      migrate:
    stop_timeout: 30s
    on_failure: rollback
    recovery:
      {enabled: true, attempts: 5, delay: 2s, max_delay: 5m, total: 30m, reset_after: 10m, restart_degraded: true}
    template: my-template.json.j2
  redis:
    type: cache
    backend: {command: [redis-server]}
    depends_on: [migrate]
  migrate:
    type: job
    oneshot: true
    start_timeout: 5m
    backend: {command: [migrate], env: {LANG: C}}
"""

MINIMAL = "version: 1\nstack: s\nservices:\n  web: {type: t, nodes: [n1], backend: {command: [serve]}}\n"

VALIDATOR = jsonschema.Draft202012Validator(stack_json_schema())


def parse(text: str) -> Stack:
    return parse_stack(text, "s.yaml", folder=Path("/srv/app"))


def test_every_field_reaches_the_stack() -> None:
    assert parse(FULL).services["qdrant"] == ServiceSpec(
        name="qdrant",
        type="database",
        critical=False,
        nodes=("hx-orc-01", "hx-orc-02"),
        endpoint="http://{{ node.address }}:6333",
        health_endpoint="http://127.0.0.1:6333/health",
        backend=ProcessBackend(
            command=("{{ python }}", "-m", "services.vector_store", "--port", "6333"),
            env={"LANG": "C.UTF-8", "MODE": "0640", "KEY": "value", "VERSION": "1.10"},
            cwd="/srv/data",
            user="qdrant",
            stop_signal="SIGINT",
            reload_signal="SIGHUP",
            log_bytes=2**20,
            log_files=2,
        ),
        checks=(
            Check(
                "ready",
                CheckKind.HTTP,
                "http://127.0.0.1:6333/health",
                interval_seconds=5,
                timeout_seconds=1,
                method="HEAD",
                headers={"X-A": ("b", "c"), "X-D": ("5",)},
                tls_skip_verify=True,
                success_before_passing=2,
                failures_before_critical=3,
            ),
            Check("tcp", CheckKind.TCP, "127.0.0.1:6334", interval_seconds=30, timeout_seconds=5),
            Check("grpc", CheckKind.GRPC, "127.0.0.1:6334/my.Service", interval_seconds=45, timeout_seconds=45),
            Check("ttl", CheckKind.TTL, interval_seconds=30, ttl_seconds=30),
            Check("script", CheckKind.SCRIPT, args=("/usr/bin/check", "--fast"), interval_seconds=2, timeout_seconds=2),
        ),
        tags=("primary",),
        meta={"team": "search", "tier": "1"},
        metrics={"gpu_utilization": "gpus.0.util"},
        start_timeout_seconds=60,
        stop_timeout_seconds=30,
        on_failure=OnFailure.ROLLBACK,
        recovery=RecoveryPolicy(True, 5, 2, 300, 1800, 600, True),
        template="my-template.json.j2",
    )


def test_dependencies_become_edges_in_the_order_of_the_file() -> None:
    assert parse(FULL).edges == (
        Edge("qdrant", "redis", Condition.STARTED, Strength.MILESTONE, 1, OnRecovery.RELOAD),
        Edge("qdrant", "migrate", Condition.COMPLETED),
        Edge("redis", "migrate", Condition.COMPLETED),
    )


def test_the_defaults_of_the_file_are_those_of_the_model() -> None:
    backend = ProcessBackend(("serve",))
    assert parse(MINIMAL) == Stack("s", {"web": ServiceSpec("web", "t", ("n1",), backend)}, ())
    text = MINIMAL + "  api: {type: t, nodes: [n1], backend: {command: [serve]}, depends_on: {web: {}}}\n"
    assert parse(text).edges == (Edge("api", "web"),)


def test_the_defaults_shown_by_the_schema_are_those_of_the_model() -> None:
    pairs: list[tuple[type[BaseModel], object]] = [
        (ServiceModel, ServiceSpec("x", "t", (), ProcessBackend(()))),
        (ProcessModel, ProcessBackend(())),
        (SystemdModel, SystemdBackend("")),
        (CommandModel, CommandBackend((), (), ())),
        (CheckModel, Check("x", CheckKind.HTTP)),
        (EdgeModel, Edge("a", "b")),
        (RecoveryModel, RecoveryPolicy()),
    ]
    compared = 0
    for model, value in pairs:
        for name, field in model.model_fields.items():
            for suffix in ("", "_seconds"):
                shown = field.default is not None and not field.is_required() and field.default_factory is None
                if shown and hasattr(value, name + suffix):
                    assert getattr(value, name + suffix) == field.default, (model, name)
                    compared += 1
    assert compared >= 18
    logs = ProcessModel().logs
    assert (logs.max_bytes, logs.files) == (ProcessBackend(()).log_bytes, ProcessBackend(()).log_files)


def test_the_models_have_every_field_of_the_stack() -> None:
    spec = {field.name.removesuffix("_seconds") for field in dataclasses.fields(ServiceSpec)} - {"name"}
    assert spec | {"depends_on"} == set(ServiceModel.model_fields)
    pairs: list[tuple[type[BaseModel], type]] = [
        (RecoveryModel, RecoveryPolicy),
        (SystemdModel, SystemdBackend),
        (DockerModel, DockerBackend),
        (CommandModel, CommandBackend),
    ]
    for model, kind in pairs:
        assert {field.name.removesuffix("_seconds") for field in dataclasses.fields(kind)} == set(model.model_fields)


OTHER_KINDS = """
version: 1
stack: mixed
services:
  redis: {type: cache, nodes: [n1], backend: {kind: systemd, unit: redis-server.service, restarts: systemd}}
  shard: {type: cache, nodes: [n1], backend: {kind: systemd, unit: "shard@{{ node.name }}.service", bus: user}}
  web: {type: web, nodes: [n1], backend: {kind: docker, container: web}}
  db: {type: database, nodes: [n1], backend: {kind: docker, file: compose.yaml, service: db, project: shop}}
  vpn:
    type: vpn
    nodes: [n1]
    backend:
      kind: command
      start: [vpn, up, 1]
      stop: [vpn, down]
      status: [vpn, check]
      reload: [vpn, reload]
      env: {A: b}
      cwd: vpn
      user: vpn
      poll: 500ms
      timeout: 5s
"""


def test_a_service_can_be_a_unit_a_container_or_whatever_has_commands() -> None:
    services = parse(OTHER_KINDS).services
    assert {name: spec.backend for name, spec in services.items()} == {
        "redis": SystemdBackend("redis-server.service", restarts="systemd"),
        "shard": SystemdBackend("shard@{{ node.name }}.service", bus="user"),
        "web": DockerBackend(container="web"),
        "db": DockerBackend(file="/srv/app/compose.yaml", service="db", project="shop"),
        "vpn": CommandBackend(
            start=("vpn", "up", "1"),
            stop=("vpn", "down"),
            status=("vpn", "check"),
            reload=("vpn", "reload"),
            env={"A": "b"},
            cwd="/srv/app/vpn",
            user="vpn",
            poll_seconds=0.5,
            timeout_seconds=5.0,
        ),
    }
    VALIDATOR.validate(parse_document(OTHER_KINDS, "s.yaml").data)


def test_a_backend_without_a_kind_is_of_the_kind_of_the_defaults() -> None:
    text = (
        "version: 1\nstack: s\n"
        "defaults: {type: t, nodes: [n], backend: {kind: systemd, unit: '{{ service.name }}.service'}}\n"
        "services:\n  a: {critical: true}\n  b: {backend: {unit: bee.service}}\n"
        "  c: {backend: {kind: process, command: [c]}}\n"
    )
    services = parse(text).services
    assert services["a"].backend == SystemdBackend("{{ service.name }}.service")
    assert services["b"].backend == SystemdBackend("bee.service")
    assert services["c"].backend == ProcessBackend(("c",))
    VALIDATOR.validate(parse_document(text, "s.yaml").data)


def test_defaults_are_merged_deeply_and_lists_are_replaced() -> None:
    stack = parse(
        "version: 1\nstack: s\n"
        "defaults:\n"
        "  type: t\n  nodes: [n1, n2]\n  tags: [a]\n"
        "  backend: {env: {A: 1, B: 1}, logs: {files: 9}, command: [serve]}\n"
        "  recovery: {attempts: 9}\n"
        "  depends_on: {db: {strength: soft, min_instances: 1}}\n"
        "services:\n"
        "  db: {depends_on: []}\n"
        "  api:\n"
        "    nodes: [n3]\n"
        "    backend: {env: {B: 2}, logs: {max_bytes: 8KiB}}\n"
        "    recovery: {delay: 1s}\n"
        "    depends_on: {db: {condition: started}}\n"
    )
    api, db = stack.services["api"], stack.services["db"]
    assert (api.type, api.nodes, api.tags) == ("t", ("n3",), ("a",))
    assert api.backend == ProcessBackend(("serve",), {"A": "1", "B": "2"}, log_bytes=8192, log_files=9)
    assert (api.recovery.attempts, api.recovery.delay_seconds) == (9, 1)
    assert db.nodes == ("n1", "n2")
    assert stack.edges == (Edge("api", "db", Condition.STARTED, Strength.SOFT, 1),)


def test_two_addresses_of_a_node_may_have_the_same_port() -> None:
    text = MINIMAL.replace("nodes: [n1]", "nodes: [n1], endpoint: 'http://127.0.0.1:80'")
    other = "  api: {type: t, nodes: [n1], backend: {command: [x]}, endpoint: 'http://10.0.0.1:80'}\n"
    assert len(parse(text + other).services) == 2
    elsewhere = other.replace("10.0.0.1", "127.0.0.1").replace("n1", "n2")
    assert len(parse(text + elsewhere).services) == 2


def test_the_interval_of_checks_without_one_is_a_setting() -> None:
    text = MINIMAL.replace("type: t", "type: t, checks: [{tcp: 'a:1'}]")
    (check,) = parse_stack(text, "s.yaml", check_interval_seconds=3).services["web"].checks
    assert (check.interval_seconds, check.timeout_seconds) == (3, 3)


def cwd_of(stack: Stack) -> str | None:
    """The working folder of the service ``web``."""
    backend = stack.services["web"].backend
    assert isinstance(backend, ProcessBackend)
    return backend.cwd


def test_a_working_folder_is_resolved_against_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stacks"
    folder.mkdir()
    (folder / "s.yaml").write_text(MINIMAL.replace("[serve]", "[serve], cwd: ./run"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert cwd_of(load_stack(Path("stacks/s.yaml"))) == str(folder / "run")


def test_a_templated_working_folder_stays_a_template() -> None:
    text = MINIMAL.replace("[serve]", '[serve], cwd: "run/{{ node.name }}"')
    assert cwd_of(parse(text)) == "/srv/app/run/{{ node.name }}"


def test_the_data_folder_of_a_service_is_absolute_already() -> None:
    text = MINIMAL.replace("[serve]", '[serve], cwd: "{{ data_dir }}/run"')
    assert cwd_of(parse(text)) == "{{ data_dir }}/run"


def test_problems_name_the_file_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("version: 1\nstack: s\nservices: {}\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=rf"{path}:3: services: is empty"):
        load_stack(path)


@pytest.mark.parametrize("text", [FULL, MINIMAL], ids=["full", "minimal"])
def test_the_json_schema_accepts_good_files(text: str) -> None:
    jsonschema.Draft202012Validator.check_schema(stack_json_schema())
    VALIDATOR.validate(parse_document(text, "s.yaml").data)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("version: 1", "version: 2"),
        ("stack: s", "stack: S"),
        ("web:", "Web_1:"),
        ("nodes: [n1]", "nodes: []"),
        ("nodes: [n1]", "node: [n1]"),
        ("type: t", "type: t, start_timeout: soon"),
        ("type: t", "type: t, checks: [{tcp: 'a:1', ttl: 5s}]"),
        ("type: t", "type: t, checks: [{interval: 5s}]"),
        ("type: t", "type: t, depends_on: {web: {condition: up}}"),
        ("type: t", "type: t, endpoint: null"),
        ("type: t", "type: t, meta: {citadel-x: y}"),
        ("[serve]", "serve"),
    ],
)
def test_the_json_schema_refuses_bad_files(good: str, bad: str) -> None:
    data = parse_document(MINIMAL.replace(good, bad), "s.yaml", [("services", "*", "endpoint")]).data
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(data)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(stacks())
def test_what_is_written_is_what_is_read(stack: Stack) -> None:
    text = written(stack)
    assert parse_stack(text, "s.yaml") == stack
    VALIDATOR.validate(parse_document(text, "s.yaml").data)
