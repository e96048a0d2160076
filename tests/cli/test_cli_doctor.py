"""``citadel doctor`` on a real Consul with real processes: what it finds, what it leaves alone, what it mends."""

from __future__ import annotations

import io
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, Result
from consul_process import ConsulSpace, clear, die_with_parent
from real_world import World, free_port

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.ports import free_ports
from citadel_consul.core.model import Check, CheckKind
from citadel_consul.core.operation import Kind
from citadel_consul.store.keys import Keys

pytestmark = pytest.mark.consul


@pytest.fixture(autouse=True)
def _an_empty_consul(consul: ConsulSpace) -> None:
    """Nothing that other tests have registered, before the test and after it."""
    clear(consul.server)


# Nothing of a test asks a resolver beyond this machine: forwarding is tried in a namespace, with the recipes.
EXAMINE = ("doctor", "--skip", "dns")


def findings(result: Result) -> list[dict[str, Any]]:
    return [finding for report in result.json["reports"] for finding in report["findings"]]


def codes(result: Result) -> set[str]:
    return {finding["code"] for finding in findings(result)}


def register_instance(cli: CommandLine, stack: str, service: str, node: str = "n1") -> str:
    """What a node agent registers; returns its id."""
    identifier = f"{stack}.{service}.{node}"
    meta = {"citadel-stack": stack, "citadel-node": node, "external-source": "citadel"}
    body = {"ID": identifier, "Name": service, "Port": 1, "Meta": meta, "Check": {"TTL": "1h", "Status": "passing"}}
    cli.consul.request("PUT", "/v1/agent/service/register", body)
    return identifier


def registered(cli: CommandLine) -> set[str]:
    return set(cli.consul.request("GET", "/v1/agent/services"))


@pytest.fixture
def counting_server() -> Iterator[int]:
    """The port of a service whose health answer is another one each time."""
    numbers = itertools.count()

    class Counting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"requests: {next(numbers)}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.long
def test_a_stack_that_runs_is_sound_but_for_an_output_that_changes(
    cli: CommandLine, world: World, counting_server: int
) -> None:
    world.orchestrator()
    world.agent()
    world.until_led()
    port = free_port()
    world.ports["sound"] = port
    # Outputs are watched for as long as the longest interval, which gives the other check time on a starved machine.
    check = Check("tcp", CheckKind.TCP, f"127.0.0.1:{port}", (), 5.0, 1.0, failures_before_critical=2)
    counting = Check("http", CheckKind.HTTP, f"http://127.0.0.1:{counting_server}/", (), 1.0, 1.0)
    volatile = world.tiny("volatile", checks=(counting,))
    world.apply([world.tiny("sound", checks=(check,)), volatile])
    assert world.operate(Kind.STARTUP).state == "succeeded"
    result = cli(*EXAMINE, "-o", "json")
    assert result.status == 0, result
    found = {(finding["code"], finding["place"]) for finding in findings(result)}
    assert found == {
        ("no-threshold", "volatile, check http"),
        ("volatile-output", "volatile@n1, check http"),
    }
    assert cli(*EXAMINE, "--quick", "--strict").status == 1, "warnings count if it is asked for"
    assert "volatile-output" not in codes(cli(*EXAMINE, "--quick", "-o", "json"))
    screen = cli.ok(*EXAMINE, "--quick").out
    assert f"stack          {world.stack}: 2 services, 0 edges, 1 node agents" in screen
    assert "0 errors, 1 warning" in screen


def test_what_runs_on_after_its_agent_died_is_no_ghost_and_what_ended_is(cli: CommandLine, world: World) -> None:
    world.orchestrator()
    agent = world.agent()
    world.until_led()
    world.apply([world.tiny("base")])
    world.operate(Kind.STARTUP)
    agent.kill()
    service = f"{world.stack}.base.n1"
    assert service not in {finding["place"] for finding in findings(cli(*EXAMINE, "--quick", "-o", "json"))}
    (pid,) = world.lives("base")
    os.kill(pid, signal.SIGKILL)
    world.until(lambda: not world.running_pids()["base"], what="the end of the service")

    def ghosts() -> set[str]:
        found = findings(cli(*EXAMINE, "--quick", "-o", "json"))
        return {finding["place"] for finding in found if finding["code"] == "ghost-registration"}

    # Its process is a child of nobody who would take note of its end, so the pid may live on as a zombie for a moment.
    world.until(lambda: service in ghosts(), what="the ghost")


def test_a_ghost_is_removed_by_the_command_that_is_shown(cli: CommandLine) -> None:
    ghost = register_instance(cli, "gone", "redis")
    result = cli(*EXAMINE, "--quick", "-o", "json")
    assert result.status == 1
    (finding,) = [f for f in findings(result) if f["code"] == "ghost-registration"]
    assert finding["place"] == ghost
    assert ghost in registered(cli), "nothing is changed unasked"
    program, *arguments = shlex.split(finding["command"])
    assert program == "consul"
    subprocess.run([cli.consul.binary.path, *arguments], check=True, capture_output=True)
    assert ghost not in registered(cli)
    assert "ghost-registration" not in codes(cli(*EXAMINE, "--quick", "-o", "json"))


def test_fix_takes_out_ghosts_and_nothing_else(cli: CommandLine) -> None:
    ghosts = {register_instance(cli, "gone", "redis"), register_instance(cli, "gone", "web", "n2")}
    other = {"ID": "self-registered", "Name": "redis", "Meta": {"citadel-node": "n1"}}
    cli.consul.request("PUT", "/v1/agent/service/register", other)
    result = cli(*EXAMINE, "--quick", "--fix", "--yes", "-o", "json")
    assert result.status == 0, result
    assert codes(result) == set()
    assert ghosts.isdisjoint(registered(cli))
    assert "self-registered" in registered(cli)


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        return True


def test_fix_asks_about_each_ghost(cli: CommandLine) -> None:
    kept, gone = register_instance(cli, "gone", "aaa"), register_instance(cli, "gone", "bbb")
    cli.monkeypatch.setattr(sys, "stdin", Terminal("n\ny\n"))
    result = cli(*EXAMINE, "--quick", "--fix")
    assert result.status == 1, "one is still there"
    assert result.err.count("Take it out of Consul?") == 2
    assert f"taken out: {gone}" in result.err
    assert registered(cli) & {kept, gone} == {kept}


def test_fix_is_refused_where_nobody_can_be_asked(cli: CommandLine) -> None:
    result = cli(*EXAMINE, "--fix")
    assert result.status == 2
    assert "--yes" in result.err


def test_keys_and_edges_that_are_not_in_force_are_found_with_what_mends_them(cli: CommandLine) -> None:
    cli.apply("defaults: {nodes: [n1], type: t, backend: {command: [x]}}\nservices: {a: {}, b: {depends_on: [a]}}\n")
    cli.put("specs/broken", b"{")
    cli.put("edges/a/b", {"v": 1})
    result = cli(*EXAMINE, "--quick", "-o", "json")
    assert result.status == 1
    found = {(f["code"], f["command"]) for f in findings(result) if f["code"] in ("key-unreadable", "edge-refused")}
    assert found == {
        ("key-unreadable", f"consul kv delete {Keys(cli.stack).spec('broken')}"),
        ("edge-refused", "citadel deps remove a b"),
    }
    assert {"no-leader", "agent-missing"} <= codes(result)
    for _, command in found:
        program, *words = shlex.split(command)
        if program == "citadel":
            cli.ok(*words)
        else:
            environ = {**os.environ, "CONSUL_HTTP_ADDR": cli.consul.address}
            subprocess.run([cli.consul.binary.path, *words], check=True, capture_output=True, env=environ)
    assert {"key-unreadable", "edge-refused"}.isdisjoint(codes(cli(*EXAMINE, "--quick", "-o", "json")))


def test_a_consul_that_cannot_be_reached_is_a_finding_and_the_status_3(cli: CommandLine) -> None:
    cli.monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    result = cli(*EXAMINE, "-o", "json")
    assert result.status == 3
    assert codes(result) == {"consul-unreachable"}
    assert "CONSUL_HTTP_ADDR" in cli(*EXAMINE).out


@pytest.fixture
def leaderless(consul_binary: ConsulBinary, tmp_path: Path) -> Iterator[str]:
    """The address of a Consul server that waits for two others in vain."""
    ports = free_ports()
    folder = tmp_path / "leaderless"
    folder.mkdir()
    config = {
        "server": True, "bootstrap_expect": 3, "bind_addr": "127.0.0.1", "data_dir": str(folder / "data"),
        "ports": {
            "http": ports.http, "dns": ports.dns, "serf_lan": ports.serf, "server": ports.server, "serf_wan": -1,
            "grpc": -1,
        },
        "disable_update_check": True,
    }  # fmt: skip
    (folder / "consul.json").write_text(json.dumps(config))
    with (folder / "consul.log").open("wb") as log:
        command = [str(consul_binary.path), "agent", f"-config-file={folder / 'consul.json'}"]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)
    try:
        deadline = time.monotonic() + 30.0
        while not answers(ports.http):
            assert server.poll() is None, (folder / "consul.log").read_text()
            assert time.monotonic() < deadline, "it does not answer"
            time.sleep(0.05)
        yield f"127.0.0.1:{ports.http}"
    finally:
        server.kill()
        server.wait()


def answers(port: int) -> bool:
    """Whether a Consul agent answers on ``port``, be it with a leader or without."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/agent/self", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_cluster_without_a_leader_is_told_from_a_consul_that_does_not_answer(
    cli: CommandLine, leaderless: str
) -> None:
    cli.monkeypatch.setenv("CONSUL_HTTP_ADDR", leaderless)
    result = cli(*EXAMINE, "-o", "json")
    assert (result.status, codes(result)) == (1, {"consul-no-leader"}), result


def test_a_stack_file_is_judged_without_any_consul(cli: CommandLine) -> None:
    cli.monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    checks = "[{tcp: 127.0.0.1:9, interval: 5s, timeout: 2s, failures_before_critical: 0}]"
    file = cli.write(f"services:\n  a: {{type: t, nodes: [n1], checks: {checks}, backend: {{command: [x]}}}}\n")
    result = cli("doctor", "--file", str(file), "-o", "json")
    assert (result.status, codes(result)) == (0, {"no-threshold"})
    assert cli("doctor", "--file", str(file), "--strict").status == 1
    file.write_text(file.read_text().replace("critical: 0", "critical: 2"))
    assert "nothing is wrong" in cli.ok("doctor", "--file", str(file), "--strict").out
