"""The links from services in Consul's UI to citadel, where this Consul knows such links."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from consul_validation import validate

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.embedded import EmbeddedConsul
from citadel_consul.consul.ports import Ports, free_ports
from citadel_consul.consul.server_config import server_config
from citadel_consul.rendering.resources import shipped

DASHBOARD = "http://127.0.0.1:8000/api/v1/orchestrator/health#{{Service.Name}}"
KNOWS_LINKS = (1, 9)


@pytest.mark.parametrize("release", [(1, 9), (1, 14), (1, 22)])
def test_a_consul_that_knows_links_is_told_where_services_link_to(release: tuple[int, int]) -> None:
    config = server_config(release, "n1", Ports(), ui=True, dashboard=DASHBOARD)
    assert config["ui_config"] == {"enabled": True, "dashboard_url_templates": {"service": DASHBOARD}}
    without = server_config(release, "n1", Ports(), ui=True)
    assert without["ui_config"] == {"enabled": True}


def test_a_consul_that_does_not_is_not() -> None:
    config = server_config((1, 8), "n1", Ports(), ui=True, dashboard=DASHBOARD)
    assert "ui_config" not in config
    assert config["ui"] is True


@pytest.mark.consul
async def test_the_consul_of_this_machine_serves_its_ui_with_what_it_is_told(
    consul_binary: ConsulBinary, tmp_path: Path
) -> None:
    async with (
        EmbeddedConsul(tmp_path / "data", consul_binary, ports=free_ports(), dashboard=DASHBOARD) as consul,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        page = await client.get(consul.ui_url or "", follow_redirects=True)
    assert page.status_code == 200


@pytest.mark.consul
def test_the_file_for_servers_is_one_for_the_versions_that_it_names(
    consul_binary: ConsulBinary, tmp_path: Path
) -> None:
    folder = Path(str(shipped("consul.d")))
    complaint = validate(consul_binary, tmp_path, folder / "server.hcl", folder / "ui" / "dashboard.hcl")
    if consul_binary.release >= KNOWS_LINKS:
        assert complaint == ""
    else:
        assert "invalid config key ui_config" in complaint, (
            "1.8 refuses it, which is why it lies in a folder of its own"
        )


def test_the_link_of_the_file_leads_to_what_the_api_has() -> None:
    from citadel_consul.api.views import router

    text = (Path(str(shipped("consul.d"))) / "ui" / "dashboard.hcl").read_text()
    (path,) = re.findall(r'service = "http://[^/]+(/[^#"]+)#\{\{Service\.Name\}\}"', text)
    assert path in {getattr(route, "path", "") for route in router.routes}
    assert path in DASHBOARD
