"""Fixtures over Docker engines: the machine's, and one of the tests' own that they may break."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import docker_engine
import pytest
from docker_engine import Containers, PrivateEngine, engine_host
from docker_harness import ComposeHarness, ContainerHarness
from engine_proxy import EngineProxy


@pytest.fixture(scope="session")
def containers_can_run(request: pytest.FixtureRequest) -> None:
    """Skip, visibly, where no engine answers or the kernel forbids containers; fail with ``--required``."""
    with docker_engine.client() as engine:
        reason = docker_engine.why_not(engine)
    if reason is not None:
        _cannot(request, reason)


@pytest.fixture
def containers(containers_can_run: None) -> Iterator[Containers]:
    """The machine's engine."""
    with docker_engine.client() as engine:
        made = Containers(engine, secrets.token_hex(4))
        yield made
        made.clear()


@pytest.fixture
async def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EngineProxy]:
    """What the backend reaches the machine's engine through, and can be cut off by."""
    async with EngineProxy(engine_host().removeprefix("unix://"), tmp_path / "engine.sock") as made:
        monkeypatch.setenv("DOCKER_HOST", made.host)
        yield made


@pytest.fixture
def single(containers: Containers, proxy: EngineProxy, tmp_path: Path) -> ContainerHarness:
    """Single containers."""
    return ContainerHarness(tmp_path, containers, proxy=proxy)


@pytest.fixture
def composed(containers: Containers, proxy: EngineProxy, tmp_path: Path) -> Iterator[ComposeHarness]:
    """Services of compose files."""
    harness = ComposeHarness(tmp_path, containers, proxy=proxy)
    yield harness
    harness.clear()


@pytest.fixture(scope="session")
def private_engine(
    request: pytest.FixtureRequest, containers_can_run: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateEngine]:
    """An engine that tests may kill and freeze; they leave it running."""
    if shutil.which("dockerd") is None:
        _cannot(request, "dockerd is not installed here, so no engine can be broken")
    # The path of a socket may have 107 characters, and the engine's own ones are some folders deeper.
    with PrivateEngine(Path("/tmp") / f"citadel-engine-{secrets.token_hex(4)}") as engine:
        with docker_engine.client(engine.host) as client:
            reason = docker_engine.why_not(client)
        if reason is not None:
            _cannot(request, f"an engine of the test's own: {reason}")
        yield engine


@pytest.fixture
def breakable(
    private_engine: PrivateEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ContainerHarness]:
    """Single containers of the engine that may be broken."""
    if not private_engine.answers():  # the test before has left it dead
        private_engine.stop()
        private_engine.start()
    monkeypatch.setenv("DOCKER_HOST", private_engine.host)
    with docker_engine.client(private_engine.host) as client:
        made = Containers(client, secrets.token_hex(4))
        yield ContainerHarness(tmp_path, made, quiet_seconds=1.0)
        made.clear()


def _cannot(request: pytest.FixtureRequest, reason: str) -> None:
    if request.config.getoption("--required", default=False):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
