"""The translation from configuration-file form to the body of Consul's API."""

from __future__ import annotations

import pytest

from citadel_consul.errors import InvalidInput
from citadel_consul.rendering.registration import to_agent_api

FULL: dict[str, object] = {
    "service": {
        "id": "main.web.n1",
        "name": "web",
        "tags": ["a"],
        "address": "10.0.0.1",
        "port": 80,
        "meta": {"snake_key": "kept_as_it_is"},
        "enable_tag_override": True,
        "weights": {"passing": 3, "warning": 2},
        "tagged_addresses": {"lan_side": {"address": "10.0.0.1", "port": 80}},
        "checks": [
            {
                "id": "c1",
                "name": "one",
                "notes": "n",
                "status": "warning",
                "http": "http://10.0.0.1/",
                "method": "PUT",
                "header": {"x-snake_case": ["v"]},
                "body": "b",
                "interval": "10s",
                "timeout": "5s",
                "tls_skip_verify": True,
                "success_before_passing": 2,
                "failures_before_critical": 3,
                "deregister_critical_service_after": "90m",
            },
            {"id": "c2", "name": "two", "grpc": "h:1/s", "grpc_use_tls": True, "interval": "1s"},
            {"id": "c3", "name": "three", "ttl": "30s"},
            {"id": "c4", "name": "four", "args": ["true"], "interval": "1s"},
            {"id": "c5", "name": "five", "tcp": "h:1", "interval": "1s"},
        ],
    }
}


def test_every_field_is_spelled_as_the_api_wants_it() -> None:
    assert to_agent_api(FULL) == {
        "ID": "main.web.n1",
        "Name": "web",
        "Tags": ["a"],
        "Address": "10.0.0.1",
        "Port": 80,
        "Meta": {"snake_key": "kept_as_it_is"},
        "EnableTagOverride": True,
        "Weights": {"Passing": 3, "Warning": 2},
        "TaggedAddresses": {"lan_side": {"Address": "10.0.0.1", "Port": 80}},
        "Checks": [
            {
                "CheckID": "c1",
                "Name": "one",
                "Notes": "n",
                "Status": "warning",
                "HTTP": "http://10.0.0.1/",
                "Method": "PUT",
                "Header": {"x-snake_case": ["v"]},
                "Body": "b",
                "Interval": "10s",
                "Timeout": "5s",
                "TLSSkipVerify": True,
                "SuccessBeforePassing": 2,
                "FailuresBeforeCritical": 3,
                "DeregisterCriticalServiceAfter": "90m",
            },
            {"CheckID": "c2", "Name": "two", "GRPC": "h:1/s", "GRPCUseTLS": True, "Interval": "1s"},
            {"CheckID": "c3", "Name": "three", "TTL": "30s"},
            {"CheckID": "c4", "Name": "four", "Args": ["true"], "Interval": "1s"},
            {"CheckID": "c5", "Name": "five", "TCP": "h:1", "Interval": "1s"},
        ],
    }


def test_a_given_status_is_that_of_every_check() -> None:
    checks = to_agent_api(FULL, status="passing")["Checks"]
    assert isinstance(checks, list)
    assert [check["Status"] for check in checks] == ["passing"] * 5


def test_a_single_check_is_one_of_the_checks() -> None:
    body = to_agent_api({"service": {"name": "web", "check": {"name": "c", "ttl": "1s"}}})
    assert body == {"Name": "web", "Checks": [{"Name": "c", "TTL": "1s"}]}


def test_an_alias_may_name_service_and_node() -> None:
    check = {"name": "c", "alias_service": "db", "alias_node": "n2"}
    body = to_agent_api({"service": {"name": "web", "check": check}})
    assert body["Checks"] == [{"Name": "c", "AliasService": "db", "AliasNode": "n2"}]


@pytest.mark.parametrize(
    ("service", "place"),
    [
        ({"conect": {}}, "service.conect"),
        ({"connect": {"native": True}}, "service.connect"),
        ({"token": "t"}, "service.token"),
        ({"ID": "x"}, "service.ID"),
        ({"weights": {"passing": 1, "critical": 0}}, "service.weights.critical"),
        ({"weights": 1}, "service.weights"),
        ({"tagged_addresses": {"lan": {"host": "a"}}}, "service.tagged_addresses.lan.host"),
        ({"checks": {}}, "service.checks"),
        ({"checks": ["x"]}, "service.checks[0]"),
        ({"checks": [{"name": "c", "ttl": "1s", "intervall": "1s"}]}, "service.checks[0].intervall"),
        ({"checks": [{"name": "c", "ttl": "1s", "token": "t"}]}, "service.checks[0].token"),
    ],
)
def test_nothing_is_lost_silently(service: dict[str, object], place: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        to_agent_api({"service": service})
    assert caught.value.problems[0].place == place
