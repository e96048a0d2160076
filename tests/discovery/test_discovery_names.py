"""Names of hosts, variables of the environment, slots: small rules as tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from citadel_consul.discovery.environment import consul_from_environment
from citadel_consul.discovery.naming import ServiceName, service_named
from citadel_consul.discovery.slots import IDLE_SECONDS, Slots
from citadel_consul.errors import InvalidInput


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("web.consul", ServiceName("web")),
        ("web.service.consul", ServiceName("web")),
        ("canary.web.service.consul", ServiceName("web", "canary")),
        ("service.consul", ServiceName("service")),
        ("example.org", None),
        ("consul", None),
        ("web.node.consul", None),
        ("web.service.dc2.consul", None),
        ("notconsul", None),
        (".consul", None),
        (".service.consul", None),
    ],
)
def test_a_host_below_the_domain_is_a_service_as_in_dns(host: str, expected: ServiceName | None) -> None:
    assert service_named(host) == expected


def test_the_domain_can_be_another_one() -> None:
    assert service_named("web.service.corp.internal", "corp.internal") == ServiceName("web")
    assert service_named("web.consul", "corp.internal") is None


def test_without_variables_consul_is_the_agent_of_this_host() -> None:
    assert str(consul_from_environment({})) == "http://127.0.0.1:8500"


def test_the_variables_of_consuls_own_tools_are_read(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    address = consul_from_environment(
        {
            "CONSUL_HTTP_ADDR": "consul.internal:8501",
            "CONSUL_HTTP_SSL": "true",
            "CONSUL_HTTP_TOKEN": "from-variable",
            "CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "token"),
            "CONSUL_HTTP_SSL_VERIFY": "0",
            "CONSUL_CACERT": "/ca.pem",
            "CONSUL_TLS_SERVER_NAME": "server.dc1.consul",
        }
    )
    assert str(address) == "https://consul.internal:8501"
    assert (address.token, address.verify, address.cacert) == ("from-file", False, "/ca.pem")
    assert address.tls_server_name == "server.dc1.consul"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CONSUL_HTTP_ADDR", "ftp://consul"),
        ("CONSUL_HTTP_SSL", "perhaps"),
        ("CONSUL_HTTP_TOKEN_FILE", "/no/such/file"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(variable: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=variable):
        consul_from_environment({variable: value})


def test_there_are_no_more_blocking_queries_than_slots() -> None:
    slots = Slots(2, candidates=3)
    assert [slots.grant(name, 0.0) for name in ("a", "b", "c", "a")] == [True, True, False, True]
    slots.leave("a")
    assert slots.grant("c", 0.0)


def test_a_slot_goes_to_another_only_when_its_holder_is_idle_and_slots_are_scarce() -> None:
    slots = Slots(1, candidates=1)
    assert slots.grant("a", 10 * IDLE_SECONDS)  # nobody else wants it
    slots.candidates = 2
    assert slots.grant("a", IDLE_SECONDS - 1)
    assert not slots.grant("b", 0.0)
    assert not slots.grant("a", IDLE_SECONDS)
    assert slots.grant("b", 0.0)
