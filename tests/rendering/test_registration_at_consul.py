"""What a real Consul makes of a rendered definition, by file and by its API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

import httpx
import pytest
from consul_process import ConsulProcess

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.embedded import EmbeddedConsul
from citadel_consul.consul.ports import free_ports
from citadel_consul.core.model import Check, CheckKind, ProcessBackend, ServiceSpec
from citadel_consul.rendering.definition import render_definition
from citadel_consul.rendering.registration import to_agent_api
from citadel_consul.rendering.scope import NodeContext

pytestmark = pytest.mark.consul

NewConsul = Callable[..., ConsulProcess]
CONTEXT = NodeContext(name="test", address="127.0.0.1", stack="main")
WAIT_SECONDS = 20.0
REGISTER = "/v1/agent/service/register?replace-existing-checks=true"


class Target(ThreadingHTTPServer):
    """A service to be checked: it remembers how Consul asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = Event()
        self.request: tuple[str, str | None] = ("", None)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        target = cast("Target", self.server)
        target.request = (self.command, self.headers["X-Probe"])
        self.send_response(204)
        self.end_headers()
        target.asked.set()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature is the base class's
        """Tests print nothing."""


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def spec(port: int, **changes: Any) -> ServiceSpec:
    checks = (
        Check("web", CheckKind.HTTP, f"http://127.0.0.1:{port}/", method="POST", headers={"X-Probe": ('a "b"',)}),
        Check("port", CheckKind.TCP, f"127.0.0.1:{port}", success_before_passing=2, failures_before_critical=3),
        Check("rpc", CheckKind.GRPC, f"127.0.0.1:{port}/health", tls_skip_verify=True, timeout_seconds=0.5),
        Check("beat", CheckKind.TTL, ttl_seconds=60),
        Check("script", CheckKind.SCRIPT, args=("test", "a  b", "=", "a  b")),
    )
    settings: dict[str, Any] = {
        "endpoint": f"http://127.0.0.1:{port}",
        "checks": checks,
        "tags": ('quote " and\nnewline',),
        "meta": {"note": '"},\n{"'},
    }
    backend = ProcessBackend(command=("x",))
    return ServiceSpec("embedding-service", "ai_service", ("test",), backend, **{**settings, **changes})


def test_a_registration_reads_back_as_it_was_rendered(new_consul: NewConsul, target: Target) -> None:
    consul = new_consul(config={"enable_script_checks": True})
    definition = render_definition(spec(target.server_port), CONTEXT)
    rendered = cast("dict[str, Any]", definition["service"])
    consul.request("PUT", REGISTER, to_agent_api(definition, "passing"))

    service = consul.request("GET", "/v1/agent/service/main.embedding-service.test")
    assert service["Service"] == rendered["name"]
    assert service["Tags"] == rendered["tags"]
    assert service["Meta"] == rendered["meta"]
    assert (service["Address"], service["Port"]) == (rendered["address"], rendered["port"])
    assert service["Weights"] == {"Passing": 10, "Warning": 0}
    checks = consul.request("GET", "/v1/agent/checks")
    for check in rendered["checks"]:
        registered = checks[check["id"]]
        assert (registered["Name"], registered["Notes"]) == (check["name"], check["notes"])
        assert registered["ServiceID"] == rendered["id"]
        assert registered["Status"] == "passing"
    assert {checks[check["id"]]["Type"] for check in rendered["checks"]} == {"http", "tcp", "grpc", "ttl", "script"}


def test_consul_runs_the_checks_as_they_were_rendered(new_consul: NewConsul, target: Target) -> None:
    consul = new_consul(config={"enable_script_checks": True})
    checks = tuple(_every_second(check) for check in spec(target.server_port).checks if check.kind is not CheckKind.TTL)
    body = to_agent_api(render_definition(spec(target.server_port, checks=checks), CONTEXT), "warning")
    consul.request("PUT", REGISTER, body)
    assert target.asked.wait(WAIT_SECONDS)
    assert target.request == ("POST", 'a "b"')
    expected = {"web": "passing", "port": "passing", "rpc": "critical", "script": "passing"}
    assert _eventual_states(consul, expected) == expected


def test_a_second_registration_takes_the_place_of_the_first(new_consul: NewConsul, target: Target) -> None:
    consul = new_consul()
    first = (Check("old", CheckKind.TTL), Check("kept", CheckKind.TTL))
    for checks in (first, (Check("kept", CheckKind.TTL), Check("new", CheckKind.TTL))):
        definition = render_definition(spec(target.server_port, checks=checks), CONTEXT)
        consul.request("PUT", REGISTER, to_agent_api(definition, "passing"))
    names = sorted(check["Name"] for check in consul.request("GET", "/v1/agent/checks").values())
    assert names == ["kept", "new"]


async def test_a_consul_with_a_disk_keeps_every_field_of_a_check(
    consul_binary: ConsulBinary, tmp_path: Path, target: Target
) -> None:
    (tmp_path / "scripts.json").write_text('{"enable_script_checks": true}')
    body = to_agent_api(render_definition(spec(target.server_port), CONTEXT), "passing")
    embedded = EmbeddedConsul(
        tmp_path / "data",
        consul_binary,
        ui=False,
        dns=False,
        ports=free_ports(),
        config_files=[tmp_path / "scripts.json"],
    )
    async with embedded as consul, httpx.AsyncClient(base_url=consul.url) as client:
        (await client.put(REGISTER, json=body)).raise_for_status()
        kept = [json.loads(file.read_text()) for file in (tmp_path / "data").glob("*/checks/*")]
    types = {entry["Check"]["Name"]: entry["ChkType"] for entry in kept}
    assert types["web"]["Method"] == "POST"
    assert types["web"]["Header"] == {"X-Probe": ['a "b"']}
    assert _seconds(types["web"]["Interval"]) == 10.0
    assert _seconds(types["rpc"]["Timeout"]) == 0.5
    assert (types["rpc"]["GRPCUseTLS"], types["rpc"]["TLSSkipVerify"]) == (True, True)
    assert (types["port"]["SuccessBeforePassing"], types["port"]["FailuresBeforeCritical"]) == (2, 3)
    assert types["script"]["ScriptArgs"] == ["test", "a  b", "=", "a  b"]
    assert _seconds(types["beat"]["TTL"]) == 60.0


def test_a_consul_agent_loads_the_same_definition_from_a_file(new_consul: NewConsul, target: Target) -> None:
    definition = render_definition(spec(target.server_port), CONTEXT)
    consul = new_consul(config=definition)
    (loaded,) = consul.request("GET", "/v1/agent/self")["DebugConfig"]["Services"]
    rendered = cast("dict[str, Any]", definition["service"])
    assert (loaded["ID"], loaded["Name"], loaded["Tags"]) == (rendered["id"], rendered["name"], rendered["tags"])
    assert loaded["Meta"] == rendered["meta"]
    assert {check["CheckID"] for check in loaded["Checks"]} == {check["id"] for check in rendered["checks"]}
    (port,) = (check for check in loaded["Checks"] if check["Name"] == "port")
    assert (port["SuccessBeforePassing"], port["FailuresBeforeCritical"]) == (2, 3)


def _every_second(check: Check) -> Check:
    return Check(
        check.name,
        check.kind,
        check.target,
        check.args,
        interval_seconds=1.0,
        timeout_seconds=0.5,
        method=check.method,
        headers=check.headers,
        tls_skip_verify=check.tls_skip_verify,
    )


def _eventual_states(consul: ConsulProcess, expected: dict[str, str]) -> dict[str, str]:
    deadline = time.monotonic() + WAIT_SECONDS
    states: dict[str, str] = {}
    while states != expected and time.monotonic() < deadline:
        time.sleep(0.1)
        checks = consul.request("GET", "/v1/agent/checks").values()
        states = {check["Name"]: check["Status"] for check in checks}
    return states


def _seconds(persisted: str | int) -> float:
    """A duration as Consul's files have it: nanoseconds, or text such as ``1m0s`` and ``500ms``."""
    if isinstance(persisted, int):
        return persisted / 1e9
    if persisted.endswith("ms"):
        return float(persisted[:-2]) / 1000
    minutes, _, seconds = persisted.rstrip("s").rpartition("m")
    return float(minutes or 0) * 60 + float(seconds)
