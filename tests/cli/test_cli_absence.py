"""What happens when something is missing: Consul, a leader, a right, or whoever reads the output."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from command_line import THREE, CommandLine, Lines
from consul_process import ConsulProcess
from real_world import World

from citadel_consul.cli import following
from citadel_consul.core.operation import Kind

pytestmark = pytest.mark.consul

ASKING = [
    "status", "services", "health", "explain base", "deps", "deps add top base", "deps remove top middle",
    "plan up", "up", "down", "restart all", "recover base", "ops list", "ops show 20250101T000000000000-aaaa",
    "ops cancel 20250101T000000000000-aaaa", "events", "logs base", "render",
]  # fmt: skip


@pytest.mark.parametrize("line", ASKING)
def test_without_a_consul_every_question_ends_at_once_with_status_3_and_a_hint(cli: CommandLine, line: str) -> None:
    cli.monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    began = time.monotonic()
    result = cli(*line.split())
    assert time.monotonic() - began < 5.0
    assert result.status == 3, result
    assert "127.0.0.1:1" in result.err
    assert "Is Consul running there? CONSUL_HTTP_ADDR or --consul-address says where it is" in result.err
    assert result.err.count("error:") == 1, "said once, however many questions were asked side by side"
    assert result.out == ""


def test_applying_without_a_consul_ends_the_same_way(cli: CommandLine) -> None:
    path = cli.write(THREE)
    cli.monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    result = cli("apply", str(path))
    assert (result.status, result.out, result.err.count("error:")) == (3, "", 1), result


def test_an_operation_that_nobody_takes_ends_with_status_3_and_stays_requested(cli: CommandLine) -> None:
    cli.monkeypatch.setattr(following, "LEADER_SECONDS", 1.5)
    cli.monkeypatch.setattr(following, "QUIET_SECONDS", 0.2)
    cli.apply(THREE)
    result = cli("up")
    assert result.status == 3, result
    assert "no orchestrator has taken it yet; waiting up to 1.5 s for one" in result.err
    assert "it stays requested, and goes on as soon as one leads" in result.err
    operation = cli.json("ops", "list")["operations"][0]
    assert operation["state"] == "pending"
    assert f"citadel ops cancel {operation['id']}" in result.err
    status = cli.ok("status").out
    assert "no orchestrator leads: nothing is started or stopped" in status
    assert "waits for an orchestrator to take it" in status


@pytest.mark.slow
def test_an_operation_whose_leader_is_gone_is_given_up_and_goes_on_with_the_next(
    cli: CommandLine, world: World
) -> None:
    world.apply([world.tiny("slow", delay=2.5)])
    leader = world.orchestrator()
    world.agent()
    cli.monkeypatch.setenv("CITADEL_STACK", world.stack)
    operation = cli.ok("up", "--detach").out.strip()
    world.until(lambda: world.lives("slow"), what="the start")
    leader.kill()
    world.until(lambda: world.leader() is None, what="the lock to be free")
    cli.monkeypatch.setattr(following, "LEADER_SECONDS", 1.0)
    cli.monkeypatch.setattr(following, "QUIET_SECONDS", 0.2)
    result = cli("ops", "show", operation, "--follow")
    assert result.status == 3, result
    assert f"no orchestrator works on operation {operation} within 1 s" in result.err
    world.orchestrator("o2")
    cli.monkeypatch.setattr(following, "LEADER_SECONDS", 90.0)
    assert "startup succeeded" in cli.ok("ops", "show", operation, "--follow").out
    assert len(world.lives("slow")) == 1


@pytest.mark.slow
def test_a_consul_that_goes_away_and_comes_back_is_waited_out(
    cli: CommandLine, new_consul: Callable[..., ConsulProcess], role_environment: dict[str, str]
) -> None:
    own = new_consul()
    cli.monkeypatch.setenv("CONSUL_HTTP_ADDR", own.address)
    with World(own.address, cli.folder, cli.stack, role_environment) as world:
        world.apply([world.tiny("slow", delay=2.0)])
        world.orchestrator()
        world.agent()
        world.until_led()
        with Lines(cli.spawn("up", env={**role_environment, **cli.environ, "CONSUL_HTTP_ADDR": own.address})) as up:
            world.until(lambda: world.lives("slow"), what="the start")
            own.suspend()
            time.sleep(1.0)
            own.resume()
            assert "startup succeeded" in up.until("startup succeeded", 40.0)
        assert world.operate(Kind.SHUTDOWN).ended


def test_what_a_token_may_not_is_refused_with_a_hint(
    cli: CommandLine, new_consul: Callable[..., ConsulProcess]
) -> None:
    own = new_consul(
        config={"acl": {"enabled": True, "default_policy": "deny", "tokens": {"master": "root-of-the-test"}}}
    )
    cli.monkeypatch.setenv("CONSUL_HTTP_ADDR", own.address)
    result = cli("up")
    assert result.status == 4, result
    assert "403" in result.err
    assert "CONSUL_HTTP_TOKEN_FILE" in result.err
    token = cli.folder / "token"
    token.write_text("root-of-the-test\n")
    applied = cli("apply", str(cli.write(THREE)), "--consul-token-file", str(token))
    assert applied.status == 0, applied
    assert "root-of-the-test" not in applied.out + applied.err


@pytest.mark.parametrize("line", ["config", "deps --tree", "status", "schema", "--help"])
def test_a_reader_that_goes_away_is_no_reason_to_complain(cli: CommandLine, line: str) -> None:
    cli.apply(THREE)
    assert _status_and_complaint(cli, line) in [(141, ""), (0, "")]


def test_a_reader_that_goes_away_ends_what_would_never_end(cli: CommandLine) -> None:
    cli.apply(THREE)
    assert _status_and_complaint(cli, "status --watch") == (141, "")


def _status_and_complaint(cli: CommandLine, line: str) -> tuple[int, str]:
    """The exit status and the standard error of ``citadel … | head -c 1``."""
    process = cli.spawn(*line.split())
    reader = subprocess.Popen([shutil.which("head") or "head", "-c", "1"], stdin=process.stdout, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    reader.communicate(timeout=20)
    said = process.stderr.read()
    process.stderr.close()
    return process.wait(20), said


def test_the_package_is_a_program_too(cli: CommandLine) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "citadel_consul", "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout == cli.ok("--help").out
