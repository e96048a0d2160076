from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from consul_process import ConsulProcess, ConsulSpace

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.errors import ConsulRefused, NotFound
from citadel_consul.store.reading import checks_of_stack

pytestmark = pytest.mark.consul

WEB: dict[str, object] = {
    "Name": "web",
    "ID": "web-1",
    "Address": "127.0.0.1",
    "Port": 8080,
    "Tags": ["v1", "blue"],
    "Meta": {"version": "1"},
    "Weights": {"Passing": 10, "Warning": 1},
    "Checks": [
        {"CheckID": "web-1:a", "Name": "a", "TTL": "60s", "Status": "passing"},
        {"CheckID": "web-1:b", "Name": "b", "TTL": "60s"},
    ],
}


async def test_the_agent_says_who_it_is(client: ConsulClient, consul: ConsulSpace) -> None:
    agent = await client.agent_self()
    assert (agent.node, agent.datacenter, agent.server) == (consul.node, "dc1", True)
    assert agent.version.count(".") == 2
    assert agent.config
    assert agent.runs_scripts is False


async def test_the_cluster_has_a_leader_and_nodes(client: ConsulClient, consul: ConsulSpace) -> None:
    assert await client.status_leader()
    nodes = await client.catalog_nodes()
    assert [(node.name, node.address, node.datacenter) for node in nodes.value] == [(consul.node, "127.0.0.1", "dc1")]
    assert nodes.index > 0
    assert (await client.catalog_nodes(filter='Node == "nobody"')).value == ()


async def test_a_service_is_registered_with_all_that_the_library_lacks(client: ConsulClient) -> None:
    await client.register_service(WEB)
    service = (await client.agent_services())["web-1"]
    assert (service.name, service.address, service.port) == ("web", "127.0.0.1", 8080)
    assert (service.tags, service.meta) == (("v1", "blue"), {"version": "1"})
    assert list(await client.agent_services(filter='"green" in Tags')) == []
    checks = await client.agent_checks()
    # A check without a status starts critical.
    assert {check.check_id: check.status for check in checks.values()} == {
        "web-1:a": "passing",
        "web-1:b": "critical",
    }


async def test_registering_again_keeps_other_checks_unless_told_to_replace_them(client: ConsulClient) -> None:
    await client.register_service(WEB)
    again = {**WEB, "Checks": [{"CheckID": "web-1:c", "TTL": "60s", "Status": "passing"}]}
    await client.register_service(again)
    assert set(await client.agent_checks()) == {"web-1:a", "web-1:b", "web-1:c"}
    await client.register_service(again, replace_checks=True)
    assert set(await client.agent_checks()) == {"web-1:c"}


async def test_the_health_of_a_service_is_its_worst_check(client: ConsulClient) -> None:
    await client.register_service(WEB)

    async def status_after(a: str, b: str) -> str:
        await client.check_update("web-1:a", a)
        await client.check_update("web-1:b", b)
        index: int | None = None
        while True:
            answer = await client.health_service("web", index=index, wait_seconds=5)
            index = answer.index
            if answer.value:
                found = {check.check_id: check.status for check in answer.value[0].checks}
                if (found.get("web-1:a"), found.get("web-1:b")) == (a, b):
                    return answer.value[0].status

    async with asyncio.timeout(20):
        assert await status_after("passing", "passing") == "passing"
        assert await status_after("passing", "warning") == "warning"
        assert await status_after("critical", "warning") == "critical"
    assert (await client.health_service("web", passing=True)).value == ()
    assert (await client.health_service("web", tag="green")).value == ()
    assert (await client.health_service("web", filter='Service.ID == "web-2"')).value == ()
    (instance,) = (await client.health_service("web", near="_agent", tag="blue")).value
    assert (instance.address, instance.service.port) == ("127.0.0.1", 8080)
    assert (await client.catalog_services()).value["web"] == ("blue", "v1")
    assert (await client.node_services(instance.node.name, filter='Service == "web"')).keys() == {"web-1"}
    assert (await client.node_services("nowhere")) == {}
    (critical,) = (await client.health_state("critical")).value
    assert (critical.check_id, critical.service_id, critical.service_name) == ("web-1:a", "web-1", "web")
    assert critical.tags == ("v1", "blue")


async def test_the_checks_of_a_stack_are_chosen_among_those_of_all(client: ConsulClient) -> None:
    ids = {"shop.web.n1", "shop-2.web.n1", "other.shop.n1"}
    for service_id in ids:
        await client.register_service({"Name": "web", "ID": service_id, "Check": {"TTL": "60s", "Status": "critical"}})
    await _until_critical(client, ids)
    own = await client.health_state("critical", filter=checks_of_stack("shop"))
    assert {check.service_id for check in own.value} == {"shop.web.n1"}
    own = await client.health_state("critical", filter=checks_of_stack("shop-2"))
    assert {check.service_id for check in own.value} == {"shop-2.web.n1"}


async def test_the_checks_of_nodes_are_chosen_with_those_of_a_stack(client: ConsulClient) -> None:
    await client.register_check({"ID": "disk", "Name": "disk", "TTL": "60s", "Status": "critical"})
    await _until_critical(client, {""})
    (own,) = (await client.health_state("critical", filter=checks_of_stack("shop"))).value
    assert own.check_id == "disk"


async def test_what_does_not_pass_on_a_node_is_chosen_among_its_checks(client: ConsulClient) -> None:
    for service_id, status in (("web.n1", "passing"), ("db.n1", "critical"), ("mail.n1", "warning")):
        await client.register_service({"Name": "web", "ID": service_id, "Check": {"TTL": "60s", "Status": status}})
    await _until_critical(client, {"db.n1"})
    node = (await client.agent_self()).node
    every = {check.service_id for check in (await client.health_node(node)).value}
    assert every >= {"web.n1", "db.n1", "mail.n1"}
    found = (await client.health_node(node, filter='Status != "passing"')).value
    assert {check.service_id for check in found if check.service_id} == {"db.n1", "mail.n1"}


async def _until_critical(client: ConsulClient, service_ids: set[str]) -> None:
    """Wait until the servers know of critical checks of all these: the agent tells them a moment later."""
    index: int | None = None
    found: set[str] = set()
    async with asyncio.timeout(20):
        while not service_ids <= found:
            answer = await client.health_state("critical", index, 5.0)
            index, found = answer.index, {check.service_id for check in answer.value}


async def test_an_unknown_state_is_a_mistake_and_not_an_empty_list(client: ConsulClient) -> None:
    with pytest.raises(ValueError, match="healthy"):
        await client.health_state("healthy")


async def test_a_check_of_a_service_comes_and_goes(client: ConsulClient) -> None:
    await client.register_service({"Name": "web"})
    await client.register_check({"ID": "extra", "Name": "extra", "ServiceID": "web", "TTL": "60s"})
    await client.check_update("extra", "passing", "all is well")
    check = (await client.agent_checks())["extra"]
    assert (check.status, check.output, check.service_id) == ("passing", "all is well", "web")
    assert list(await client.agent_checks(filter='Status == "critical"')) == []
    await client.deregister_check("extra")
    await client.deregister_check("extra")
    with pytest.raises(ConsulRefused):
        await client.register_check({"Name": "without a kind"})


async def test_feeding_a_check_that_the_agent_does_not_have_is_told_from_an_outage(client: ConsulClient) -> None:
    with pytest.raises(NotFound, match="no-such-check"):
        await client.check_update("no-such-check", "passing")


async def test_what_is_not_registered_can_be_deregistered(client: ConsulClient) -> None:
    await client.register_service(WEB)
    await client.deregister_service("web-1")
    await client.deregister_service("web-1")
    assert await client.agent_services() == {}
    assert await client.agent_checks() == {}


async def test_maintenance_takes_a_service_or_the_node_out_and_puts_it_back(client: ConsulClient) -> None:
    await client.register_service({"Name": "web"})
    await client.service_maintenance("web", True, "being moved & more")
    await client.node_maintenance(True, "new disks")
    assert set(await client.agent_checks()) == {"_service_maintenance:web", "_node_maintenance"}
    await client.service_maintenance("web", False)
    await client.node_maintenance(False)
    assert await client.agent_checks() == {}
    with pytest.raises(NotFound):
        await client.service_maintenance("no-such-service", True)


async def test_an_event_can_be_fired(client: ConsulClient, consul: ConsulSpace) -> None:
    await client.register_service({"Name": "web"})
    event = await client.event_fire("deploy", b"now", service="web")
    listed = None
    async with asyncio.timeout(10):
        while listed is None:  # it comes back by gossip
            await asyncio.sleep(0.01)
            listed = next((item for item in consul.request("GET", "/v1/event/list") if item["ID"] == event), None)
    assert (listed["Name"], listed["Payload"], listed["ServiceFilter"]) == ("deploy", "bm93", "web")


async def test_a_dev_agent_forgets_its_registrations_in_a_restart_and_the_pool_finds_it_again(
    new_consul: Callable[..., ConsulProcess],
) -> None:
    server = new_consul()
    async with ConsulClient(parse_address(server.address)) as client:
        await client.register_service(WEB)
        server.kill()
        server.start()
        assert await client.agent_services() == {}
        with pytest.raises(NotFound):
            await client.check_update("web-1:a", "passing")
