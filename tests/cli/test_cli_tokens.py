"""``citadel whoami`` and ``citadel doctor`` where Consul controls access: rights are told, secrets are not."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from command_line import CommandLine
from consul_process import ConsulProcess, ConsulSpace, clear

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.core.model import ProcessBackend, ServiceSpec, Stack
from citadel_consul.rendering.policy import policies_of

pytestmark = pytest.mark.consul


@pytest.fixture(autouse=True)
def _an_empty_consul(consul: ConsulSpace) -> None:
    """Nothing that other tests have registered, before the test and after it."""
    clear(consul.server)


STACK = Stack("main", {"redis": ServiceSpec("redis", "cache", ("n1",), ProcessBackend(("x",)))}, ())
NOBODY = "99999999-aaaa-bbbb-cccc-222222222222"
CAN = {
    "operator": {"look", "describe", "operate", "hold", "hand-over"},
    "orchestrator": {"look", "operate", "hand-over", "orchestrate"},
    "agent-n1": {"look", "run-agent"},
    "read-only": {"look"},
}


@dataclass(frozen=True)
class Guarded:
    """A Consul that denies by default, with a token for each policy of the stack."""

    consul: ConsulProcess
    root: str
    secrets: dict[str, str]


@pytest.fixture(scope="module")
def guarded(consul_binary: ConsulBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    root = str(uuid.uuid4())
    name = "initial_management" if consul_binary.release >= (1, 11) else "master"  # the same thing, renamed
    acl = {"enabled": True, "default_policy": "deny", "tokens": {name: root, "agent": root}}
    consul = ConsulProcess(consul_binary, tmp_path_factory.mktemp("consul"), "n1", {"acl": acl})
    consul.start()
    try:
        policies = {name.removeprefix("citadel-main-"): rules for name, rules in policies_of(STACK).items()}
        policies["blind"] = 'key_prefix "citadel/other/" { policy = "read" } agent_prefix "" { policy = "read" }'
        yield Guarded(consul, root, {name: secret_of(consul, root, name, rules) for name, rules in policies.items()})
    finally:
        consul.end()


def secret_of(consul: ConsulProcess, root: str, name: str, rules: str) -> str:
    consul.request("PUT", "/v1/acl/policy", {"Name": name, "Rules": rules}, root)
    body = {"Description": f"for {name}", "Policies": [{"Name": name}]}
    secret: str = consul.request("PUT", "/v1/acl/token", body, root)["SecretID"]
    return secret


@pytest.fixture
def with_token(cli: CommandLine, guarded: Guarded) -> CommandLine:
    """A command line at the Consul that controls access."""
    cli.monkeypatch.setenv("CONSUL_HTTP_ADDR", guarded.consul.address)
    cli.monkeypatch.setenv("CITADEL_STACK", "main")
    cli.monkeypatch.setenv("CITADEL_NODE", "n1")
    return cli


def use(cli: CommandLine, secret: str) -> None:
    cli.monkeypatch.setenv("CONSUL_HTTP_TOKEN", secret)


def findings(document: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for report in document["reports"]:
        for finding in report["findings"]:
            found.setdefault(finding["code"], []).append(finding["message"])
    return found


@pytest.mark.parametrize("role", CAN)
def test_each_role_is_told_what_its_token_may_do(with_token: CommandLine, guarded: Guarded, role: str) -> None:
    use(with_token, guarded.secrets[role])
    answer = with_token.json("whoami")
    assert {ability["name"] for ability in answer["abilities"] if ability["allowed"]} == CAN[role]
    assert answer["token"]["policies"] == [role]
    assert answer["token"]["description"] == f"for {role}"
    assert answer["consul"]["node"] == "n1"
    assert answer["token_origin"] == "environment CONSUL_HTTP_TOKEN"


def test_the_secret_is_shown_nowhere(with_token: CommandLine, guarded: Guarded) -> None:
    secret = guarded.secrets["operator"]
    use(with_token, secret)
    for words in (
        ("whoami",),
        ("whoami", "-o", "json"),
        ("doctor", "--skip", "dns"),
        ("doctor", "--skip", "dns", "-o", "yaml"),
    ):
        result = with_token.ok(*words)
        assert "accessor" in result.out
        assert secret not in result.out + result.err


def test_what_is_lacking_is_named_as_a_rule_of_consul_names_it(with_token: CommandLine, guarded: Guarded) -> None:
    use(with_token, guarded.secrets["read-only"])
    screen = with_token.ok("whoami").out
    assert '-  hold services, nodes, the stack: lacks key:write on "citadel/main/holds/stack"' in screen
    assert "✔  look at the stack" in screen
    assert "policies read-only (from environment CONSUL_HTTP_TOKEN)" in screen


def test_a_token_that_consul_does_not_know_is_said_to_be_so(with_token: CommandLine) -> None:
    use(with_token, NOBODY)
    screen = with_token.ok("whoami").out
    assert "not known to Consul (from environment CONSUL_HTTP_TOKEN)" in screen
    assert NOBODY not in screen


def test_without_access_control_no_token_is_needed(cli: CommandLine) -> None:
    assert "not needed: access control is off" in cli.ok("whoami").out
    answer = cli.json("whoami")
    assert (answer["acls"], answer["token"]) == (False, None)
    assert all(ability["allowed"] for ability in answer["abilities"])


def test_several_stacks_are_named_and_the_rest_is_told_all_the_same(cli: CommandLine) -> None:
    for stack in ("one", "two"):
        cli.consul.request("PUT", f"/v1/kv/citadel/{stack}/dev", b"{}")
    cli.monkeypatch.delenv("CITADEL_STACK")
    screen = cli.ok("whoami").out
    assert "there are several stacks (one, two)" in screen
    assert "Consul " in screen


@pytest.mark.parametrize("role", CAN)
def test_doctor_is_content_with_the_token_of_each_role(with_token: CommandLine, guarded: Guarded, role: str) -> None:
    use(with_token, guarded.secrets[role])
    document = with_token.json("doctor", "--skip", "dns", "--quick")
    assert findings(document) == {}
    assert not [report for report in document["reports"] if report["unknown"]]


def test_doctor_names_the_rights_that_are_missing_and_what_it_could_not_see(
    with_token: CommandLine, guarded: Guarded
) -> None:
    meta = {"citadel-stack": "main", "citadel-node": "n1"}
    body = {"ID": "main.redis.n1", "Name": "redis", "Meta": meta}
    guarded.consul.request("PUT", "/v1/agent/service/register", body, guarded.root)
    try:
        use(with_token, guarded.secrets["blind"])
        result = with_token("doctor", "--skip", "dns", "--quick", "-o", "json")
        assert result.status == 1
        assert 'lacks key:read on "citadel/main/"' in findings(result.json)["token-right-missing"]
        assert "ghost-registration" not in findings(result.json), "what may not be seen is not taken for gone"
        unknown = {report["area"] for report in result.json["reports"] if report["unknown"]}
        assert unknown == {"stack", "checks", "units"}
    finally:
        guarded.consul.request("PUT", "/v1/agent/service/deregister/main.redis.n1", token=guarded.root)


def test_doctor_with_a_token_that_consul_does_not_know_says_so_first(with_token: CommandLine) -> None:
    use(with_token, NOBODY)
    result = with_token("doctor", "--skip", "dns", "--quick", "-o", "json")
    assert result.status == 1
    assert list(findings(result.json)) == ["token-refused"]


def test_doctor_without_a_token_names_the_rights_that_are_missing(with_token: CommandLine) -> None:
    result = with_token("doctor", "--skip", "dns", "--quick", "-o", "json")
    assert result.status == 1
    assert list(findings(result.json)) == ["token-right-missing"]
    assert 'lacks key:read on "citadel/main/"' in findings(result.json)["token-right-missing"]
