"""Definitions as files: what `citadel render --out` writes, and Consul's own opinion of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from consul_validation import validate

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.core.model import Check, CheckKind, ProcessBackend, ServiceSpec, Stack
from citadel_consul.errors import BackendError, InvalidInput
from citadel_consul.rendering.definition import render_definition
from citadel_consul.rendering.files import render_files
from citadel_consul.rendering.scope import NodeContext

N1 = NodeContext(name="n1", address="192.0.2.1", stack="main")
N2 = NodeContext(name="n2", address="192.0.2.2", stack="main")
HOSTILE = 'x"}]\n\\ é </script>'
CHECKS = (
    Check("web", CheckKind.HTTP, "http://{{ node.address }}:80/", headers={"Accept": ("a",)}, tls_skip_verify=True),
    Check("port", CheckKind.TCP, "{{ node.address }}:80", failures_before_critical=3, success_before_passing=2),
    Check("rpc", CheckKind.GRPC, "{{ node.address }}:81/health", tls_skip_verify=True),
    Check("beat", CheckKind.TTL),
    Check("script", CheckKind.SCRIPT, args=("true", HOSTILE)),
)


def spec(name: str, type_: str, *nodes: str) -> ServiceSpec:
    backend = ProcessBackend(command=("x",))
    endpoint = "http://{{ node.address }}:80"
    meta = {"note": HOSTILE}
    return ServiceSpec(name, type_, nodes, backend, endpoint=endpoint, checks=CHECKS, tags=(HOSTILE,), meta=meta)


STACK = Stack(
    name="main",
    services={
        s.name: s
        for s in (
            spec("qdrant", "database", "n1", "n2"),
            spec("redis", "cache", "n1"),
            spec("embedding-service", "ai_service", "n2"),
            spec("api-gateway", "gateway", "n1"),
            spec("batch-processor", "processing", "n2"),
            spec("mailer", "other", "n1"),
        )
    },
    edges=(),
)


def test_several_nodes_have_a_folder_each(tmp_path: Path) -> None:
    written = render_files(STACK, tmp_path, [N1, N2])
    assert sorted(str(path.relative_to(tmp_path)) for path in written) == [
        "n1/api-gateway.json",
        "n1/mailer.json",
        "n1/qdrant.json",
        "n1/redis.json",
        "n2/batch-processor.json",
        "n2/embedding-service.json",
        "n2/qdrant.json",
    ]
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(written)
    definition = json.loads((tmp_path / "n2/qdrant.json").read_text("utf-8"))
    assert definition == render_definition(STACK.services["qdrant"], N2)


def test_one_node_needs_no_folder_and_writing_again_replaces(tmp_path: Path) -> None:
    (tmp_path / "redis.json").write_text("old")
    (tmp_path / "own.hcl").write_text("# not ours")
    render_files(STACK, tmp_path, [N1])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"api-gateway.json", "mailer.json", "qdrant.json", "redis.json", "own.hcl"}
    assert json.loads((tmp_path / "redis.json").read_text("utf-8"))["service"]["id"] == "main.redis.n1"


def test_bad_input_writes_nothing_and_reports_every_service_once(tmp_path: Path) -> None:
    broken = {}
    for name in ("qdrant", "redis"):
        broken[name] = replace(STACK.services[name], tags=("{{ nobody }}",))
    stack = replace(STACK, services={**STACK.services, **broken})
    with pytest.raises(InvalidInput) as caught:
        render_files(stack, tmp_path / "out", [N1, N2])
    assert [problem.place for problem in caught.value.problems] == ["services.qdrant.tags[0]", "services.redis.tags[0]"]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match=r"file/api-gateway\.json|file/qdrant\.json"):
        render_files(STACK, tmp_path / "file", [N1])


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "qdrant.json" / "in-the-way").mkdir(parents=True)
    with pytest.raises(BackendError, match=r"qdrant\.json"):
        render_files(STACK, tmp_path, [N1])
    assert [path.name for path in tmp_path.iterdir()] == ["qdrant.json"]


@pytest.mark.consul
def test_consul_accepts_every_file(consul_binary: ConsulBinary, tmp_path: Path) -> None:
    written = render_files(STACK, tmp_path / "out", [N1, N2])
    for node in ("n1", "n2"):
        files = [path for path in written if path.parent.name == node]
        assert validate(consul_binary, tmp_path, *files) == ""


@pytest.mark.consul
def test_consul_refuses_what_is_no_definition(consul_binary: ConsulBinary, tmp_path: Path) -> None:
    (written,) = (path for path in render_files(STACK, tmp_path, [N1]) if path.name == "redis.json")
    written.write_text(written.read_text("utf-8").replace('"weights"', '"wheights"'))
    assert "invalid config key service.wheights" in validate(consul_binary, tmp_path, written)
