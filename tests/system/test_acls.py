"""Everything under Consul's ACLs: each role with the policy that is shipped for it, and nobody with more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from consul_process import ConsulProcess
from real_world import MARK, TINY, World, free_port

from citadel_consul.rendering.policy import Role, render_policy

pytestmark = [pytest.mark.consul, pytest.mark.slow]

STACK = "guarded"
MASTER = "0b1e3a5c-1111-4222-8333-123456789abc"


@dataclass(frozen=True)
class Guarded:
    """A stack on a Consul that denies what no token allows, and a token for each role."""

    world: World
    tokens: dict[Role, str]

    def citadel(self, role: Role | None, *args: str) -> subprocess.CompletedProcess[str]:
        """Run the command line with the token of ``role``, or with none."""
        environ = {**self.world.environ, "CONSUL_HTTP_ADDR": self.world.consul, "CITADEL_STACK": STACK}
        if role is not None:
            environ["CONSUL_HTTP_TOKEN"] = self.tokens[role]
        command = [sys.executable, "-m", "citadel_consul", *args]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def _token(consul: ConsulProcess, role: Role) -> str:
    rules = render_policy(role, STACK, "n1" if role is Role.AGENT else None)
    name = f"citadel-{role}"
    consul.request("PUT", "/v1/acl/policy", {"Name": name, "Rules": rules}, MASTER)
    made: str = consul.request("PUT", "/v1/acl/token", {"Policies": [{"Name": name}]}, MASTER)["SecretID"]
    return made


@pytest.fixture
def guarded(
    new_consul: Callable[..., ConsulProcess], role_environment: dict[str, str], tmp_path: Path
) -> Iterator[Guarded]:
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER, "agent": MASTER}}
    consul = new_consul(node="n1", config={"acl": acl})
    tokens = {role: _token(consul, role) for role in Role}
    with World(consul.address, tmp_path, STACK, role_environment) as world:
        yield Guarded(world, tokens)


def _stack_file(folder: Path) -> Path:
    port = free_port()
    command = [sys.executable, "-S", "-E", str(TINY), str(port), "0.05", str(folder / "web.lives")]
    web = {
        "type": "gateway",
        "nodes": ["n1"],
        "endpoint": f"tcp://127.0.0.1:{port}",
        "backend": {"kind": "process", "command": command, "env": MARK},
        "checks": [{"tcp": f"127.0.0.1:{port}", "interval": "1s"}],
    }
    path = folder / "stack.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "stack": STACK, "services": {"web": web}}))
    return path


def test_each_role_gets_along_with_its_policy_and_no_further(guarded: Guarded) -> None:
    world, tokens = guarded.world, guarded.tokens
    orchestrator = world.orchestrator("n1", CONSUL_HTTP_TOKEN=tokens[Role.ORCHESTRATOR])
    agent = world.agent("n1", CONSUL_HTTP_TOKEN=tokens[Role.AGENT])
    path = str(_stack_file(world.folder))

    refused = guarded.citadel(Role.READ_ONLY, "apply", path)
    assert refused.returncode == 4, refused.stderr
    assert "not allowed" in refused.stderr

    applied = guarded.citadel(Role.OPERATOR, "apply", path)
    assert applied.returncode == 0, applied.stderr
    up = guarded.citadel(Role.OPERATOR, "up")
    assert up.returncode == 0, f"{up.stdout}{up.stderr}{orchestrator.log.read_text()}{agent.log.read_text()}"
    assert len(world.running_pids()["web"]) == 1

    assert guarded.citadel(Role.READ_ONLY, "down").returncode == 4
    assert len(world.running_pids()["web"]) == 1
    down = guarded.citadel(Role.OPERATOR, "down")
    assert down.returncode == 0, down.stderr
    assert world.running_pids()["web"] == []


def test_without_a_token_nothing_can_be_asked_for(guarded: Guarded) -> None:
    refused = guarded.citadel(None, "apply", str(_stack_file(guarded.world.folder)))
    assert refused.returncode == 4, refused.stdout
    assert "token" in refused.stderr or "not allowed" in refused.stderr.lower()
