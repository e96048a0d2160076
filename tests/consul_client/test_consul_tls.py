"""The other roads to the HTTP API: TLS, mutual TLS, a unix socket."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from consul_process import ConsulProcess

from citadel_consul.consul.address import ConsulAddress, parse_address
from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.ports import OFF, free_ports
from citadel_consul.errors import ConsulUnavailable, InvalidInput

pytestmark = pytest.mark.consul

NewConsul = Callable[..., ConsulProcess]
Secured = Callable[..., ConsulAddress]

# Made for this test; its password was thrown away.
LOCKED_KEY = """\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-256-CBC,CDF29FFFFF6DC4EE8D4D3A582A12FE6C

A3377nnxz0vlwtxLAuAMHrfWPeciElm/6f05izznytlzTUUMl057FP1YQB9H/Jpl
TJHdBk6o5L0LTfSPRUsV2KbDXVpKpcGEXsxCTMsT5NSnUYiVHmiXbUCk72GNCmbN
5Vo6DKrwURjB/twXEFrW2KRybv13XivHQo30ylPF65o=
-----END EC PRIVATE KEY-----
"""


@pytest.fixture(scope="module")
def certificates(consul_binary: ConsulBinary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA with a certificate for the server (server.dc1.consul, localhost, 127.0.0.1) and one for a client."""
    folder = tmp_path_factory.mktemp("tls")
    for arguments in (["ca", "create"], ["cert", "create", "-server"], ["cert", "create", "-client"]):
        subprocess.run([consul_binary.path, "tls", *arguments], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def secured(consul_binary: ConsulBinary, certificates: Path, tmp_path: Path) -> Iterator[Secured]:
    """Makes a Consul that speaks TLS beside plain HTTP, with options for its TLS; returns where."""
    servers: list[ConsulProcess] = []

    def make(**options: bool) -> ConsulAddress:
        https = free_ports().http
        server = ConsulProcess(consul_binary, tmp_path)
        files = {
            "ca_file": str(certificates / "consul-agent-ca.pem"),
            "cert_file": str(certificates / "dc1-server-consul-0.pem"),
            "key_file": str(certificates / "dc1-server-consul-0-key.pem"),
        }
        modern = consul_binary.release >= (1, 12)
        tls = (
            {"tls": {"defaults": files, "https": options}}
            if modern
            else {**files, **{f"{name}_https": value for name, value in options.items()}}
        )
        ports = {
            "http": server.ports.http,
            "https": https,
            "dns": server.ports.dns,
            "grpc": server.ports.grpc,
            "serf_lan": server.ports.serf,
            "serf_wan": OFF,
            "server": server.ports.server,
        }
        if consul_binary.release >= (1, 14):
            ports["grpc_tls"] = OFF
        server._config = {**tls, "ports": ports}
        servers.append(server)
        server.start()
        return replace(parse_address(f"https://127.0.0.1:{https}"), cacert=files["ca_file"])

    yield make
    for server in servers:
        server.end()


async def speaks(address: ConsulAddress) -> bool:
    async with ConsulClient(address) as client:
        return await client.kv_put("a", b"")


async def test_consul_is_spoken_to_over_tls_only_if_its_certificate_can_be_trusted(
    secured: Secured,
) -> None:
    address = secured()
    assert await speaks(address)
    assert await speaks(replace(address, tls_server_name="server.dc1.consul"))
    assert await speaks(replace(address, cacert=None, verify=False))
    for untrusted in (replace(address, cacert=None), replace(address, tls_server_name="consul.example.com")):
        with pytest.raises(ConsulUnavailable, match=r"(?i)certificate"):
            await speaks(untrusted)


async def test_a_client_certificate_is_shown_where_consul_asks_for_one(secured: Secured, certificates: Path) -> None:
    address = secured(verify_incoming=True)
    with pytest.raises(ConsulUnavailable):
        await speaks(address)
    assert await speaks(
        replace(
            address,
            client_cert=str(certificates / "dc1-client-consul-0.pem"),
            client_key=str(certificates / "dc1-client-consul-0-key.pem"),
        )
    )


def test_a_key_that_needs_a_password_is_refused_and_not_asked_about(certificates: Path, tmp_path: Path) -> None:
    key = tmp_path / "locked.pem"
    key.write_text(LOCKED_KEY)
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        ConsulClient(
            ConsulAddress(
                scheme="https",
                client_cert=str(certificates / "dc1-client-consul-0.pem"),
                client_key=str(key),
            )
        )


async def test_consul_is_spoken_to_over_a_unix_socket(new_consul: NewConsul, tmp_path: Path) -> None:
    socket = tmp_path / "consul.sock"
    server = new_consul()
    new_consul(config={"addresses": {"http": f"127.0.0.1 unix://{socket}"}})
    async with ConsulClient(parse_address(f"unix://{socket}")) as client:
        assert await client.kv_put("over-the-socket", b"")
    async with ConsulClient(parse_address(server.address)) as other:
        assert await other.kv_get("over-the-socket") is None
    async with ConsulClient(parse_address(f"unix://{tmp_path}/nobody.sock")) as nobody:
        with pytest.raises(ConsulUnavailable):
            await nobody.kv_get("a")
