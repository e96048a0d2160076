"""What the fault tests share: options, a cluster of Consul, and worlds whose own questions outlive its faults."""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cluster import NODES, Cluster
from consul_process import ConsulProcess
from roles import Crew, NewCrew, PatientWorld

from citadel_consul.consul.binary import ConsulBinary


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    rounds = int(os.environ.get("CITADEL_FAULT_ROUNDS", "200"))
    group.addoption("--rounds", type=int, default=rounds, help="rounds of random faults (CITADEL_FAULT_ROUNDS)")
    seed = os.environ.get("CITADEL_FAULT_SEED")
    group.addoption("--seed", default=seed, help="seed of the random faults (CITADEL_FAULT_SEED); default: a new one")
    group.addoption(
        "--lanes", type=int, default=2, help="how many stacks on each of two clusters the rounds are spread over"
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--seed"):
        config.option.seed = secrets.token_hex(4)


def pytest_report_header(config: pytest.Config) -> str:
    return f"random faults: --rounds {config.getoption('--rounds')} --seed {config.getoption('--seed')}"


@pytest.fixture(scope="session")
def shared_cluster(consul_binary: ConsulBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(consul_binary, tmp_path_factory.mktemp("cluster"), NODES) as made:
        yield made


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """Three Consul servers and a client agent on each node of :data:`NODES`; whole again after each test."""
    yield shared_cluster
    shared_cluster.heal()


@pytest.fixture
def new_crew(role_environment: dict[str, str], tmp_path: Path) -> Iterator[NewCrew]:
    """Makes stacks with processes of their own: ``new_crew(consul_addresses, **environment)``."""
    with ExitStack() as stack:

        def make(*consuls: str, **environ: str) -> Crew:
            folder = tmp_path / uuid.uuid4().hex[:8]
            folder.mkdir()
            world = PatientWorld(
                consuls[0], folder, f"f{uuid.uuid4().hex[:8]}", {**role_environment, **environ}, consuls=consuls
            )
            stack.enter_context(world)
            return stack.enter_context(Crew(world))

        yield make


@pytest.fixture
def crew(consul_server: ConsulProcess, new_crew: NewCrew) -> Crew:
    """A stack of the test's own on the Consul that tests share."""
    return new_crew(consul_server.address)
