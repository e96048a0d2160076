"""The fixtures themselves: other tests rely on a clean Consul and on finding what was left behind."""

from __future__ import annotations

import subprocess
import urllib.error
import uuid
from collections.abc import Callable

import pytest
from consul_process import ConsulProcess, ConsulSpace, clear, processes_marked

from citadel_consul.consul.binary import ConsulBinary

pytestmark = pytest.mark.consul


def test_the_shared_consul_gives_sessions_at_once(consul: ConsulSpace) -> None:
    session = consul.request("PUT", "/v1/session/create", {"LockDelay": "0s"})["ID"]
    assert consul.request("PUT", f"/v1/kv/{consul.prefix}leader?acquire={session}", b"x") is True


def test_clearing_leaves_no_key_service_check_or_session(consul: ConsulSpace) -> None:
    consul.request("PUT", f"/v1/kv/{consul.prefix}a", b"1")
    consul.request("PUT", "/v1/agent/service/register", {"Name": "redis", "Check": {"TTL": "30s"}})
    consul.request("PUT", "/v1/agent/check/register", {"Name": "own", "TTL": "30s"})
    consul.request("PUT", "/v1/session/create", {})
    clear(consul.server)
    assert consul.request("GET", "/v1/agent/services") == {}
    assert consul.request("GET", "/v1/agent/checks") == {}
    assert consul.request("GET", "/v1/session/list") == []
    with pytest.raises(urllib.error.HTTPError, match="404") as missing:
        consul.request("GET", "/v1/kv/?recurse")
    missing.value.close()


def test_a_consul_that_is_started_again_has_its_address_but_no_memory(
    new_consul: Callable[..., ConsulProcess],
) -> None:
    server = new_consul()
    address = server.address
    server.request("PUT", "/v1/kv/a", b"1")
    server.kill()
    server.start()
    assert server.address == address
    with pytest.raises(urllib.error.HTTPError, match="404") as missing:
        server.request("GET", "/v1/kv/a")
    missing.value.close()


def test_a_consul_with_acls_can_be_had(consul_binary: ConsulBinary, new_consul: Callable[..., ConsulProcess]) -> None:
    token = str(uuid.uuid4())
    root = "initial_management" if consul_binary.release >= (1, 11) else "master"  # the same thing, renamed
    server = new_consul(config={"acl": {"enabled": True, "default_policy": "deny", "tokens": {root: token}}})
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        server.request("PUT", "/v1/kv/a", b"1")
    refused.value.close()
    assert server.request("PUT", "/v1/kv/a", b"1", token=token) is True


def test_an_orphan_in_a_session_of_its_own_is_found_by_its_mark() -> None:
    mark = uuid.uuid4().hex
    with subprocess.Popen(
        ["sleep", "60"], env={"MARK": mark, "PATH": "/usr/bin:/bin"}, start_new_session=True
    ) as child:
        assert list(processes_marked("MARK", mark)) == [child.pid]
        child.kill()
