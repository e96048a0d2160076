"""Specs keep their backend, of whatever kind, on their way through the KV store."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from citadel_consul.core.model import ProcessBackend, ServiceSpec, SystemdBackend
from citadel_consul.store.documents import SPEC, UndecodableError

sys.path.append(str(Path(__file__).parents[1] / "config"))

from stack_writing import services

UNIT = ServiceSpec("redis", "cache", ("n1",), SystemdBackend("redis-server.service"))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault of a spec
@given(services("web", 80))
def test_what_is_read_is_what_was_written(spec: ServiceSpec) -> None:
    assert SPEC.decode(SPEC.encode(spec)) == spec


def test_a_process_is_written_without_its_kind_as_it_always_was() -> None:
    spec = ServiceSpec("web", "t", ("n1",), ProcessBackend(("serve",)))
    assert json.loads(SPEC.encode(spec))["backend"] == {"command": ["serve"]}


def test_any_other_kind_is_written() -> None:
    assert json.loads(SPEC.encode(UNIT))["backend"] == {"kind": "systemd", "unit": "redis-server.service"}


@pytest.mark.parametrize(
    ("backend", "problem"),
    [
        ({"kind": "nomad"}, "backend.kind: 'nomad' is not one of process, systemd, docker, command"),
        ({"kind": ["x"]}, "backend.kind: ['x'] is not one of process, systemd, docker, command"),
        ({"kind": "systemd"}, "backend.unit: Field required"),
        ({"unit": "x.service"}, "backend.command: Field required"),
        (7, "backend.ProcessBackend: Input should be a dictionary or an instance of ProcessBackend"),
    ],
)
def test_a_backend_that_makes_no_sense_is_named(backend: object, problem: str) -> None:
    raw = {"v": 1, "name": "x", "type": "t", "nodes": ["n1"], "backend": backend}
    with pytest.raises(UndecodableError) as caught:
        SPEC.decode(json.dumps(raw).encode())
    assert str(caught.value) == problem
