"""What all tests share: a real Consul, and the watch for processes that a test left behind."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from consul_process import ConsulProcess, ConsulSpace, clear, new_space, processes_marked

from citadel_consul.consul.binary import ConsulBinary, find_consul

# Every process that a test starts inherits it, also one that was orphaned or made a session of its own.
_MARK = "CITADEL_TEST_RUN"
_GRACE_SECONDS = 3.0

# How coverage gets into child processes. It costs each Python about 0.2 s at its start, which would be most of the time
# that a test of many small services takes, and would make every measured time a lie. So only roles of ours have it.
_COVERAGE = "COVERAGE_PROCESS_CONFIG"
_coverage: dict[str, str] = {}

NewConsul = Callable[..., ConsulProcess]

# A shell makes its background jobs ignore SIGINT, and every process inherits that. Tests of Ctrl-C need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def consul_binary() -> ConsulBinary:
    """The Consul of this machine, fetched if it has none."""
    return find_consul()


@pytest.fixture(scope="session")
def consul_server(consul_binary: ConsulBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulProcess]:
    """The Consul that tests share. A test that ends, suspends or configures it takes `new_consul`."""
    server = ConsulProcess(consul_binary, tmp_path_factory.mktemp("consul"))
    server.start()
    try:
        yield server
    finally:
        server.end()


@pytest.fixture
def consul(consul_server: ConsulProcess) -> Iterator[ConsulSpace]:
    """A stack of the test's own in the shared Consul, which is empty before and after it."""
    yield new_space(consul_server)
    clear(consul_server)


@pytest.fixture
def new_consul(consul_binary: ConsulBinary, tmp_path: Path) -> Iterator[NewConsul]:
    """Makes Consuls for this test alone: ``new_consul(node="a", config={…})`` is started and can be killed."""
    servers: list[ConsulProcess] = []

    def make(node: str = "test", config: dict[str, Any] | None = None) -> ConsulProcess:
        server = ConsulProcess(consul_binary, tmp_path, node, config)
        server.start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.end()


@pytest.fixture(scope="session")
def role_environment() -> dict[str, str]:
    """The environment for a ``citadel`` process that a test starts: ours, with its coverage measured if ours is."""
    return {**os.environ, **_coverage}


def pytest_configure() -> None:
    os.environ[_MARK] = uuid.uuid4().hex
    if _COVERAGE in os.environ:
        _coverage[_COVERAGE] = os.environ.pop(_COVERAGE)
    # How long an example takes says something of the machine, and nothing of what it is an example of.
    hypothesis.settings.register_profile("citadel", deadline=None)
    hypothesis.settings.load_profile("citadel")
    # The environment of who runs the tests must not decide what they see.
    for name in [name for name in os.environ if name.startswith(("CONSUL_", "ORCHESTRATOR_"))]:
        del os.environ[name]


@pytest.hookimpl(trylast=True)  # after the fixtures of the session were torn down, also when it was interrupted
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if any process that it started still lives."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while (left := processes_marked(_MARK, os.environ[_MARK])) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid, command in left.items():
        print(f"\nleft behind by the tests, and ended now: {pid} {command}")
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
