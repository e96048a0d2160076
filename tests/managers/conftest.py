"""Machines for the tests of service managers: a Docker engine, an image built here, systemd as PID 1.

Where that is impossible (no engine, no right to use it, a kernel that forbids it) these tests are skipped, and the
reason is shown; with ``--required``, as CI has it, they fail instead.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

sys.path.append(str(Path(__file__).parents[1] / "backends"))

from machine_image import NoImage, ensure_image, ensure_wheels
from managed_machine import Machine, Network, NoMachine, sweep

from citadel_consul.consul.binary import find_consul

NewMachine = Callable[..., Machine]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--required", action="store_true", help="fail instead of skipping where no machine can run")


def _cannot(request: pytest.FixtureRequest, reason: str) -> NoReturn:
    if request.config.getoption("--required"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> str:
    """The version of the Docker engine, which is there and may be used."""
    try:
        words = ["docker", "version", "--format={{.Server.Version}}"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        _cannot(request, "docker is not installed: run bin/managers as root, or install Debian's docker.io")
    if done.returncode != 0:
        _cannot(request, f"no Docker engine can be used: {done.stderr.strip()}")
    return done.stdout.strip()


@pytest.fixture(scope="session")
def machine_image(request: pytest.FixtureRequest, engine: str) -> str:
    """The image of a machine, built if it is not there."""
    if os.geteuid() != 0:
        _cannot(request, "the bus of a machine is reached by way of /proc, which takes root")
    try:
        return ensure_image()
    except NoImage as error:
        _cannot(request, str(error))


@pytest.fixture(scope="session")
def machine_network(engine: str) -> Iterator[Network]:
    """The bridge network that the machines of this run share."""
    sweep()
    network = Network()
    network.make()
    yield network
    network.remove()


@pytest.fixture(scope="session")
def boot(request: pytest.FixtureRequest, machine_image: str, machine_network: Network) -> Iterator[NewMachine]:
    """Boots machines that last as long as the run; ``boot("--option")`` passes options to docker run."""
    machines: list[Machine] = []

    def make(*options: str) -> Machine:
        try:
            machine = Machine.boot(machine_image, machine_network, find_consul().path, ensure_wheels(), *options)
        except NoMachine as error:
            _cannot(request, str(error))
        machines.append(machine)
        return machine

    yield make
    for machine in machines:
        machine.remove()


@pytest.fixture(scope="session")
def machine(boot: NewMachine) -> Machine:
    """The machine that tests share. They leave it as they found it; one that reboots takes ``new_machine``."""
    return boot()


@pytest.fixture
def new_machine(boot: NewMachine) -> Iterator[NewMachine]:
    """Machines for this test alone: ``new_machine()`` is up, with its own address, and can be rebooted."""
    machines: list[Machine] = []

    def make(*options: str) -> Machine:
        machines.append(boot(*options))
        return machines[-1]

    yield make
    for machine in machines:
        machine.remove()
