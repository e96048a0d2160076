"""``citadel resolve`` beside a real Consul's HTTP API and DNS."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from command_line import CommandLine
from consul_process import ConsulProcess, ConsulSpace, clear

pytestmark = pytest.mark.consul


@pytest.fixture(autouse=True)
def _an_empty_consul(consul: ConsulSpace) -> None:
    """Nothing that other tests have registered, before the test and after it."""
    clear(consul.server)


def register(consul: ConsulProcess, number: int, status: str = "passing", **fields: object) -> None:
    """An instance of the service web, which the catalog knows when this returns."""
    body = {
        "ID": f"web-{number}", "Name": "web", "Address": f"127.0.1.{number}", "Port": 8000 + number,
        "Check": {"TTL": "1h", "Status": status}, **fields,
    }  # fmt: skip
    consul.request("PUT", "/v1/agent/service/register", body)
    deadline = time.monotonic() + 20.0
    while (f"web-{number}", status) not in catalogued(consul):
        assert time.monotonic() < deadline, f"the catalog does not show web-{number}"
        time.sleep(0.01)


def catalogued(consul: ConsulProcess) -> set[tuple[str, str]]:
    """The instances of web in the catalog, each with the status of its own check."""
    entries = consul.request("GET", "/v1/health/service/web")
    return {(e["Service"]["ID"], c["Status"]) for e in entries for c in e["Checks"] if c["ServiceID"]}


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in text.splitlines() if line.startswith("web-")}


def test_both_sides_are_shown_and_agree(cli: CommandLine) -> None:
    for number, status in enumerate(("passing", "critical", "warning"), 1):
        register(cli.consul, number, status, Tags=["canary"] if number == 1 else [])
    result = cli.ok("resolve", "web")
    shown = rows(result.out)
    assert shown["web-1"][2:] == ["127.0.1.1:8001", "passing", "yes", "yes", "canary"]
    assert shown["web-2"][3:] == ["critical", "-", "-"]
    assert shown["web-3"][3:] == ["warning", "yes", "yes"], "DNS hands out what warns, unless it is told otherwise"
    assert "web.service.consul: 2 addresses, 2 SRV records, TTL 0 s" in result.out
    assert result.err == ""


def test_what_only_passes_can_be_shown_alone(cli: CommandLine) -> None:
    for number, status in enumerate(("passing", "critical", "warning"), 1):
        register(cli.consul, number, status)
    result = cli.ok("resolve", "web", "--passing")
    assert set(rows(result.out)) == {"web-1"}
    assert "only in DNS" not in result.out
    assert result.err == ""


def test_programs_get_both_sides_too(cli: CommandLine) -> None:
    register(cli.consul, 1, Weights={"Passing": 7, "Warning": 1})
    register(cli.consul, 2, "critical")
    answer: dict[str, Any] = cli.json("resolve", "web", "--passing")
    assert answer["passing"] == 1
    assert [one["id"] for one in answer["instances"]] == ["web-1"]
    assert answer["dns"]["addresses"] == ["127.0.1.1"]
    assert answer["dns"]["services"] == [{"address": "127.0.1.1", "port": 8001, "weight": 7}]
    assert answer["differences"] == []
    assert cli.json("resolve", "web", "--no-dns")["dns"] is None


def test_a_tag_is_asked_for_on_both_sides(cli: CommandLine) -> None:
    register(cli.consul, 1, Tags=["canary"])
    register(cli.consul, 2)
    answer = cli.json("resolve", "web", "--tag", "canary")
    assert answer["dns"]["name"] == "canary.web.service.consul"
    assert [one["id"] for one in answer["instances"]] == ["web-1"]
    assert answer["dns"]["addresses"] == ["127.0.1.1"]
    assert answer["differences"] == []


@pytest.mark.parametrize("status", ["critical", "warning"])
def test_the_exit_status_is_1_if_nothing_passes(cli: CommandLine, status: str) -> None:
    register(cli.consul, 1, status)
    result = cli("resolve", "web")
    assert result.status == 1
    assert "no instance of web passes" in result.err


def test_a_service_that_is_not_there_is_answered_with_the_one_that_was_meant(cli: CommandLine) -> None:
    register(cli.consul, 1)
    result = cli("resolve", "wbe")
    assert result.status == 1
    assert "did you mean web?" in result.err


def test_a_difference_is_said_once_it_has_lasted(cli: CommandLine, new_consul: Callable[..., ConsulProcess]) -> None:
    other = new_consul(node="other")
    register(cli.consul, 1)
    register(cli.consul, 2)
    register(other, 2)
    register(other, 3)
    result = cli("resolve", "web", "--dns-server", f"127.0.0.1:{other.ports.dns}")
    assert result.status == 0
    assert "warning: DNS has no SRV and no A record of web-1 (127.0.1.1:8001), which is passing" in result.err
    assert "warning: DNS hands out 127.0.1.3:8003 (SRV), which the catalog would not" in result.err
    assert "warning: DNS hands out 127.0.1.3 (A or AAAA), which the catalog would not" in result.err
    assert result.err.count("warning") == 3
    assert "127.0.1.3:8003  only in DNS" in result.out


def test_answers_that_udp_cuts_short_are_told_from_a_difference(cli: CommandLine) -> None:
    for number in range(1, 61):
        register(cli.consul, number)
    result = cli("resolve", "web")
    assert result.status == 0
    assert "asked by UDP, DNS leaves records out" in result.err
    assert result.err.count("warning") == 1
    assert all(row[4:6] == ["yes", "yes"] for row in rows(result.out).values())


def test_a_silent_dns_is_a_warning(cli: CommandLine) -> None:
    register(cli.consul, 1)
    result = cli("resolve", "web", "--dns-server", "127.0.0.1:1")
    assert result.status == 0
    assert "warning: DNS at 127.0.0.1:1" in result.err


def test_the_settings_of_consul_s_dns_are_followed(cli: CommandLine, new_consul: Callable[..., ConsulProcess]) -> None:
    strict = new_consul(node="strict", config={"domain": "corp", "dns_config": {"only_passing": True}})
    cli.monkeypatch.setenv("CONSUL_HTTP_ADDR", strict.address)
    register(strict, 1)
    register(strict, 2, "warning")
    answer = cli.json("resolve", "web")
    assert answer["dns"]["name"] == "web.service.corp"
    assert answer["dns"]["addresses"] == ["127.0.1.1"]
    assert answer["differences"] == []


@pytest.mark.parametrize("words", [("a/b",), ("web.service.consul",), ("web", "--dns-server", "somewhere")])
def test_what_cannot_be_meant_is_bad_input(cli: CommandLine, words: tuple[str, ...]) -> None:
    assert cli("resolve", *words).status == 2


def test_addresses_of_ipv6_and_names_are_compared_as_dns_has_them(cli: CommandLine) -> None:
    register(cli.consul, 1, Address="::1")
    register(cli.consul, 2, Address="db.example.com")
    register(cli.consul, 3)
    answer = cli.json("resolve", "web")
    assert answer["differences"] == []
    assert {s["address"] for s in answer["dns"]["services"]} == {"::1", "db.example.com", "127.0.1.3"}
