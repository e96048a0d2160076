"""The lab's nodes and addresses."""

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
from citadel_lab import layout  # type: ignore[import-not-found,unused-ignore]
from citadel_lab.errors import LabError, UsageError  # type: ignore[import-not-found,unused-ignore]
from citadel_lab.topology import (  # type: ignore[import-not-found,unused-ignore]
    PROVIDERS,
    SUBNET_VARIABLE,
    load_topology,
    unit_name,
)


@pytest.fixture(autouse=True)
def _usual_subnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SUBNET_VARIABLE, raising=False)


def test_the_lab_has_three_servers_with_orchestrators_and_two_clients() -> None:
    topology = load_topology("docker")
    assert [node.orchestrator for node in topology.nodes if node.role == "server"] == [True] * 3
    assert [node.orchestrator for node in topology.nodes if node.role == "client"] == [False] * 2


def test_both_dns_recipes_are_in_use() -> None:
    nodes = json.loads(layout.TOPOLOGY.read_text())["nodes"]
    assert {node["dns"] for node in nodes} == {"dnsmasq", "resolved"}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_node_has_an_address_of_its_own_in_the_labs_network(provider: str) -> None:
    topology = load_topology(provider)
    addresses = {ipaddress.ip_address(node.address) for node in topology.nodes}
    assert len(addresses) == len(topology.nodes)
    assert all(address in topology.subnet for address in addresses)
    assert topology.with_address(topology.nodes[0].address) == topology.nodes[0]
    assert topology.with_address("10.77.0.250") is None


def test_the_subnet_can_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SUBNET_VARIABLE, "10.99.3.0/24")
    assert load_topology("docker").node("server-1").address == "10.99.3.11"


@pytest.mark.parametrize("subnet", ["8.8.8.0/24", "10.0.0.0/16", "10.77.0.1/24", "nonsense"])
def test_a_subnet_that_is_no_private_24_is_refused(monkeypatch: pytest.MonkeyPatch, subnet: str) -> None:
    monkeypatch.setenv(SUBNET_VARIABLE, subnet)
    with pytest.raises(UsageError, match=SUBNET_VARIABLE):
        load_topology("docker")


def test_a_mistyped_node_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"'sever-1': did you mean server-1\?"):
        load_topology("docker").node("sever-1")


def test_an_unknown_node_gets_the_list() -> None:
    with pytest.raises(UsageError, match="there are server-1, server-2"):
        load_topology("docker").node("zzz")


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(UsageError, match="there are docker, libvirt, virtualbox"):
        load_topology("hyperv")


def test_a_broken_description_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    path.write_text("{")
    with pytest.raises(LabError, match=r"lab\.json"):
        load_topology("docker", path)


def test_picked_nodes_come_once_and_in_the_labs_order() -> None:
    topology = load_topology("docker")
    assert [node.name for node in topology.pick(["client-1", "server-1", "client-1"])] == ["server-1", "client-1"]
    assert topology.pick([]) == topology.nodes


def test_a_node_is_cut_off_from_all_others_unless_told_from_whom() -> None:
    topology = load_topology("docker")
    node = topology.node("client-1")
    assert [other.name for other in topology.others(node, [])] == ["server-1", "server-2", "server-3", "client-2"]
    assert [other.name for other in topology.others(node, ["server-2"])] == ["server-2"]


def test_a_node_cannot_be_cut_off_from_itself() -> None:
    topology = load_topology("docker")
    with pytest.raises(UsageError, match="itself"):
        topology.others(topology.node("client-1"), ["client-1", "client-2"])


@pytest.mark.parametrize(
    ("said", "unit"),
    [
        ("consul", "consul.service"),
        ("agent", "citadel-agent.service"),
        ("orchestrator", "citadel-orchestrator.service"),
        ("dnsmasq", "dnsmasq.service"),
        ("apt-daily.timer", "apt-daily.timer"),
    ],
)
def test_units_go_by_short_names_or_as_systemd_names_them(said: str, unit: str) -> None:
    assert unit_name(said) == unit


def test_orchestrators_run_where_the_description_says() -> None:
    topology: Any = load_topology("docker")
    assert "citadel-orchestrator.service" in topology.node("server-1").units
    assert "citadel-orchestrator.service" not in topology.node("client-1").units
