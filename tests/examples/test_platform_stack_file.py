"""The stack file of the example is valid, and says what the services need."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from ai_platform import EXAMPLE
from yaml import safe_load

from citadel_consul.config.stackfile import load_stack
from citadel_consul.core.model import CheckKind, OnRecovery, ProcessBackend, ServiceSpec, Stack, Strength


@pytest.fixture(scope="module")
def stack() -> Stack:
    return load_stack(EXAMPLE / "stack.yaml")


def program(spec: ServiceSpec) -> ProcessBackend:
    """What runs a service of the example: a program of the node agent's own."""
    assert isinstance(spec.backend, ProcessBackend)
    return spec.backend


def needs(stack: Stack, service: str) -> set[str]:
    return {edge.dependency for edge in stack.edges if edge.service == service}


def test_there_are_twelve_services_on_two_nodes(stack: Stack) -> None:
    assert len(stack.services) == 12
    assert {node for spec in stack.services.values() for node in spec.nodes} == {"hx-orc-01", "hx-db-01"}


def test_the_stores_need_nothing_and_their_users_need_them(stack: Stack) -> None:
    for store in ("qdrant", "redis", "postgresql"):
        assert needs(stack, store) == set()
    assert "qdrant" in needs(stack, "embedding-service")
    assert {"redis", "postgresql"} <= needs(stack, "batch-processor")
    assert {"qdrant", "embedding-service", "redis", "postgresql"} <= needs(stack, "api-gateway")


def test_every_strength_and_a_restart_are_shown(stack: Stack) -> None:
    assert {edge.strength for edge in stack.edges} == set(Strength)
    assert OnRecovery.RESTART in {edge.on_recovery for edge in stack.edges}


def test_every_service_listens_where_its_endpoint_and_its_check_say(stack: Stack) -> None:
    for spec in stack.services.values():
        endpoint = urlsplit(spec.endpoint or "")
        assert endpoint.hostname == "127.0.0.1"
        assert str(endpoint.port) == program(spec).env["PORT"]
        (check,) = spec.checks
        assert check.kind in (CheckKind.HTTP, CheckKind.TCP)
        assert f"127.0.0.1:{endpoint.port}" in check.target


def test_every_command_names_a_service_that_exists_in_its_folder(stack: Stack) -> None:
    for spec in stack.services.values():
        assert program(spec).cwd == str(EXAMPLE)
        module = program(spec).command[-1]
        assert (EXAMPLE / f"{module.replace('.', '/')}.py").is_file()


def test_the_smoke_request_goes_to_the_gateway_with_the_key_that_exists(stack: Stack) -> None:
    smoke = safe_load((EXAMPLE / "smoke.yaml").read_text())
    assert smoke["url"].startswith(f"{stack.services['api-gateway'].endpoint}/")
    key = program(stack.services["auth-service"]).env["BOOTSTRAP_API_KEY"]
    assert smoke["headers"]["authorization"] == f"Bearer {key}"
