"""The ACL policies on a Consul that denies by default: what each role may do, and what it may not."""

from __future__ import annotations

import base64
import urllib.error
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from consul_process import ConsulProcess

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.core.model import ProcessBackend, ServiceSpec, Stack
from citadel_consul.errors import InvalidInput
from citadel_consul.rendering.policy import Role, policies_of, render_policy

STACK = Stack(
    name="main",
    services={
        "redis": ServiceSpec("redis", "cache", ("n1",), ProcessBackend(("x",))),
        "qdrant": ServiceSpec("qdrant", "database", ("n1", "n2"), ProcessBackend(("x",))),
        "worker": ServiceSpec("worker", "processing", ("n2",), ProcessBackend(("x",))),
    },
    edges=(),
)
SUBTREES = {
    "leader",
    "agents/n1",
    "agents/n2",
    "agents/n10",
    "specs/redis",
    "edges/redis/qdrant",
    "operations/1",
    "desired/n1",
    "observed/n1",
    "observed/n2",
    "observed/n10",
    "holds/service/redis",
    "incidents/redis",
    "notices/1/opened",
    "events/1",
    "stats/redis",
}
WRITABLE = {
    "operator": {"specs/redis", "edges/redis/qdrant", "operations/1", "holds/service/redis"},
    "orchestrator": {
        "leader",
        "operations/1",
        "desired/n1",
        "incidents/redis",
        "notices/1/opened",
        "events/1",
        "stats/redis",
    },
    "agent": {"agents/n1", "observed/n1", "events/1"},
    "read-only": set[str](),
}


@dataclass(frozen=True)
class Caller:
    """Someone with a token."""

    consul: ConsulProcess
    token: str

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        return self.consul.request(method, path, body, self.token)

    def may(self, method: str, path: str, body: object = None) -> bool:
        """Whether Consul allows it; any answer but yes and 403 is an error of the test."""
        try:
            self(method, path, body)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 403:
                    return False
                raise
        return True


@dataclass(frozen=True)
class Site:
    """A Consul with ACLs and one caller for each role of the stack; the agent is that of n1, the Consul's node."""

    root: Caller
    callers: dict[str, Caller]


@pytest.fixture(scope="module")
def site(consul_binary: ConsulBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    token = str(uuid.uuid4())
    name = "initial_management" if consul_binary.release >= (1, 11) else "master"  # the same thing, renamed
    acl = {"enabled": True, "default_policy": "deny", "tokens": {name: token, "agent": token}}
    consul = ConsulProcess(consul_binary, tmp_path_factory.mktemp("consul"), "n1", {"acl": acl})
    consul.start()
    try:
        root = Caller(consul, token)
        policies = dict(policies_of(STACK))
        policies["wide"] = render_policy(Role.AGENT, "main", "n1")
        tokens = {policy: _token(root, policy, rules) for policy, rules in policies.items()}
        names = {role.value: f"citadel-main-{role}" for role in Role if role is not Role.AGENT}
        names |= {"agent": "citadel-main-agent-n1", "other-agent": "citadel-main-agent-n2", "wide-agent": "wide"}
        yield Site(root, {role: Caller(consul, tokens[policy]) for role, policy in names.items()})
    finally:
        consul.end()


def _token(root: Caller, policy: str, rules: str) -> str:
    root("PUT", "/v1/acl/policy", {"Name": policy, "Rules": rules})
    token: str = root("PUT", "/v1/acl/token", {"Policies": [{"Name": policy}]})["SecretID"]
    return token


pytestmark = pytest.mark.consul


@pytest.mark.parametrize("role", WRITABLE)
def test_each_role_writes_its_own_part_of_the_stack_and_nothing_else(site: Site, role: str) -> None:
    caller = site.callers[role]
    allowed = {key for key in SUBTREES if caller.may("PUT", f"/v1/kv/citadel/main/{key}", b"1")}
    assert allowed == WRITABLE[role]


@pytest.mark.parametrize("role", WRITABLE)
def test_each_role_reads_its_stack_and_no_other(site: Site, role: str) -> None:
    for stack in ("main", "main2", "other"):
        for key in SUBTREES:
            site.root("PUT", f"/v1/kv/citadel/{stack}/{key}", b"1")
    visible = {entry["Key"] for entry in site.callers[role]("GET", "/v1/kv/citadel/main/?recurse")}
    assert visible == {f"citadel/main/{key}" for key in SUBTREES}
    for stack in ("main2", "other"):
        assert not site.callers[role].may("GET", f"/v1/kv/citadel/{stack}/specs/redis")
        assert not site.callers[role].may("PUT", f"/v1/kv/citadel/{stack}/events/1", b"1")
    assert not site.callers[role].may("PUT", "/v1/kv/elsewhere", b"1")


@pytest.mark.parametrize("role", WRITABLE)
def test_no_role_reaches_consuls_own_administration(site: Site, role: str) -> None:
    caller = site.callers[role]
    assert not caller.may("PUT", "/v1/acl/token", {"Policies": []})
    assert not caller.may("GET", "/v1/operator/raft/configuration")
    assert not caller.may("PUT", "/v1/agent/leave")
    assert not caller.may("PUT", "/v1/agent/reload")
    assert not caller.may("PUT", "/v1/agent/maintenance?enable=true")
    node = {"Node": "n9", "Address": "192.0.2.9"}
    assert not caller.may("PUT", "/v1/catalog/register", node)


def test_every_role_sees_health_and_who_answers(site: Site) -> None:
    service = {"Name": "redis", "ID": "main.redis.n1", "Check": {"TTL": "1h", "Status": "passing"}}
    site.root("PUT", "/v1/agent/service/register", service)
    for role in WRITABLE:
        caller = site.callers[role]
        assert caller.may("GET", "/v1/agent/self"), role
        assert [entry["Service"]["ID"] for entry in caller("GET", "/v1/health/service/redis")] == ["main.redis.n1"]
        assert "main.redis.n1" in caller("GET", "/v1/agent/services")
        assert "redis" in caller("GET", "/v1/catalog/services")
        assert [node["Node"] for node in caller("GET", "/v1/catalog/nodes")] == ["n1"]


def test_the_orchestrators_lock_is_taken_checked_and_given_back(site: Site) -> None:
    leader = site.callers["orchestrator"]
    check = {"Name": "citadel-orchestrator", "ID": "citadel-main-n1", "Check": {"TTL": "1h", "Status": "passing"}}
    leader("PUT", "/v1/agent/service/register?replace-existing-checks=true", check)
    leader("PUT", "/v1/agent/check/update/service:citadel-main-n1", {"Status": "passing"})
    session = leader("PUT", "/v1/session/create", {"LockDelay": "0s", "TTL": "10s", "NodeChecks": ["serfHealth"]})["ID"]
    lock = {"Verb": "lock", "Key": "citadel/main/leader", "Value": _b64("x"), "Session": session}
    assert leader("PUT", "/v1/txn", [{"KV": lock}])["Errors"] is None
    fence = {"Verb": "check-session", "Key": "citadel/main/leader", "Session": session}
    desired = {"Verb": "set", "Key": "citadel/main/desired/n2", "Value": _b64("x")}
    assert leader("PUT", "/v1/txn", [{"KV": fence}, {"KV": desired}])["Errors"] is None
    # Not the agent of the same node: Consul's session rules know nodes, not who made a session.
    for role in ("operator", "other-agent", "read-only"):
        assert not site.callers[role].may("PUT", f"/v1/session/destroy/{session}"), role
    assert leader("PUT", f"/v1/session/destroy/{session}") is True


def test_the_fence_does_not_widen_what_an_orchestrator_may_write(site: Site) -> None:
    leader = site.callers["orchestrator"]
    spec = {"Verb": "set", "Key": "citadel/main/specs/redis", "Value": _b64("x")}
    with pytest.raises(urllib.error.HTTPError, match="409") as refused:  # a transaction's way to say 403
        leader("PUT", "/v1/txn", [{"KV": spec}])
    with refused.value as answer:
        assert "Permission denied" in answer.read().decode()


@pytest.mark.parametrize("role", WRITABLE)
def test_only_orchestrators_tell_dependents_by_a_user_event_and_only_of_their_own_stack(site: Site, role: str) -> None:
    caller = site.callers[role]
    assert caller.may("PUT", "/v1/event/fire/citadel-main-recovered", b"{}") is (role == "orchestrator")
    assert not caller.may("PUT", "/v1/event/fire/citadel-main2-recovered", b"{}")
    assert not caller.may("PUT", "/v1/event/fire/deploy", b"{}")


def test_an_agent_locks_and_fences_its_own_node_alone(site: Site) -> None:
    agent, other = site.callers["agent"], site.callers["other-agent"]
    session = agent("PUT", "/v1/session/create", {"LockDelay": "0s"})["ID"]
    assert agent("PUT", f"/v1/kv/citadel/main/agents/n1?acquire={session}", b"1") is True
    fence = {"Verb": "check-session", "Key": "citadel/main/agents/n1", "Session": session}
    observed = {"Verb": "set", "Key": "citadel/main/observed/n1", "Value": _b64("x")}
    assert agent("PUT", "/v1/txn", [{"KV": fence}, {"KV": observed}])["Errors"] is None
    assert not other.may("PUT", "/v1/session/create", {"LockDelay": "0s"})  # on the node n1
    assert not other.may("PUT", f"/v1/kv/citadel/main/agents/n1?release={session}", b"1")
    assert not other.may("PUT", "/v1/kv/citadel/main/observed/n1", b"1")
    agent("PUT", f"/v1/session/destroy/{session}")


def test_an_agent_registers_the_services_of_its_node_and_no_others(site: Site) -> None:
    agent = site.callers["agent"]
    for name, allowed in {"redis": True, "qdrant": True, "worker": False, "citadel-orchestrator": False}.items():
        body = {"Name": name, "ID": f"main.{name}.n1", "Check": {"TTL": "1h", "Status": "passing"}}
        assert agent.may("PUT", "/v1/agent/service/register", body) is allowed, name
    agent("PUT", "/v1/agent/check/update/service:main.redis.n1", {"Status": "warning"})
    agent("PUT", "/v1/agent/service/maintenance/main.redis.n1?enable=true")
    agent("PUT", "/v1/agent/service/deregister/main.redis.n1")
    assert site.callers["wide-agent"].may("PUT", "/v1/agent/service/register", {"Name": "worker"})


@pytest.mark.parametrize("role", ["operator", "orchestrator", "read-only"])
def test_only_agents_register_the_stacks_services(site: Site, role: str) -> None:
    caller = site.callers[role]
    assert not caller.may("PUT", "/v1/agent/service/register", {"Name": "redis", "ID": f"by-{role}"})
    if role != "orchestrator":
        assert not caller.may("PUT", "/v1/session/create", {"LockDelay": "0s"})


def test_there_is_one_policy_a_role_and_one_a_node() -> None:
    policies = policies_of(STACK)
    assert set(policies) == {
        "citadel-main-operator",
        "citadel-main-orchestrator",
        "citadel-main-read-only",
        "citadel-main-agent-n1",
        "citadel-main-agent-n2",
    }
    assert 'service "worker"' in policies["citadel-main-agent-n2"]
    assert 'service "worker"' not in policies["citadel-main-agent-n1"]


@pytest.mark.parametrize("name", ['x" { policy = "write" }', "", "UPPER", "a/b", "a" * 64])
def test_a_name_that_could_break_out_of_the_rules_is_bad_input(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a name"):
        render_policy(Role.OPERATOR, name)
    with pytest.raises(InvalidInput, match="is not a name"):
        render_policy(Role.AGENT, "main", name)
    with pytest.raises(InvalidInput, match="is not a name"):
        render_policy(Role.AGENT, "main", "n1", [name])


def test_an_agents_policy_needs_its_node_and_no_other_policy_has_one() -> None:
    with pytest.raises(InvalidInput, match="for one node"):
        render_policy(Role.AGENT, "main")
    with pytest.raises(InvalidInput, match="for one node"):
        render_policy(Role.OPERATOR, "main", "n1")


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
