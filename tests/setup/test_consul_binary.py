"""Where Consul comes from: the order, what is said when there is none, the cache, two callers at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_consul import write_consul

from citadel_consul.consul import debian, release
from citadel_consul.consul.binary import cache_directory, find_consul, probe
from citadel_consul.errors import ConsulUnavailable, InvalidInput

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Machine:
    """A machine without a Consul and without a way to fetch one, of which a test gives it what it wants."""

    root: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def cache(self) -> Path:
        return self.root / "home/.cache/citadel/consul"

    @property
    def programs(self) -> Path:
        return self.root / "bin"

    def serve_package(self, version: str = "1.8.7", seconds: float = 0.0) -> list[Path]:
        """Let Debian's package be fetched; the list tells where to, for each time that it was."""
        fetched: list[Path] = []

        def fetch(directory: Path) -> Path:
            fetched.append(directory)
            time.sleep(seconds)
            return write_consul(directory / "consul", version)

        self.monkeypatch.setattr(debian, "fetch_package", fetch)
        return fetched


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    def refuse(reason: str) -> object:
        def fetch(directory: Path) -> Path:
            raise ConsulUnavailable(reason)

        return fetch

    monkeypatch.delenv("CITADEL_CONSUL_BINARY", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(release, "fetch_release", refuse("no way out"))
    monkeypatch.setattr(debian, "fetch_package", refuse("no apt here"))
    return Machine(tmp_path, monkeypatch)


def test_the_order_is_variable_then_path_then_cache_then_fetching(machine: Machine) -> None:
    fetched = machine.serve_package()
    in_cache = write_consul(machine.cache / "1.15.1/consul", "1.15.1")
    on_path = write_consul(machine.programs / "consul", "1.16.2")
    named = write_consul(machine.root / "elsewhere/my-consul", "1.17.3")
    machine.monkeypatch.setenv("CITADEL_CONSUL_BINARY", str(named))

    seen = [find_consul()]
    machine.monkeypatch.delenv("CITADEL_CONSUL_BINARY")
    seen.append(find_consul())
    on_path.unlink()
    seen.append(find_consul())
    assert fetched == []
    in_cache.unlink()
    seen.append(find_consul())

    assert [(found.origin, found.version) for found in seen] == [
        ("$CITADEL_CONSUL_BINARY", "1.17.3"),
        ("PATH", "1.16.2"),
        ("cache", "1.15.1"),
        ("Debian package", "1.8.7"),
    ]
    assert [found.path for found in seen[:3]] == [named, on_path, in_cache]


def test_a_variable_that_names_no_consul_is_an_error_and_not_passed_over(machine: Machine) -> None:
    write_consul(machine.programs / "consul")
    machine.monkeypatch.setenv("CITADEL_CONSUL_BINARY", "/does/not/exist")
    with pytest.raises(InvalidInput, match=r"CITADEL_CONSUL_BINARY: /does/not/exist does not run.*or unset it"):
        find_consul()


def test_without_any_source_the_error_tells_each_with_its_reason_and_what_to_install(machine: Machine) -> None:
    with pytest.raises(ConsulUnavailable) as failure:
        find_consul()
    *tried, advice = str(failure.value).splitlines()
    assert tried == [
        "There is no Consul on this machine, and none could be fetched. What was tried:",
        "  $CITADEL_CONSUL_BINARY: not set",
        "  PATH: no program named consul",
        f"  cache: nothing in {machine.cache}",
        f"  official release ({release.VERSION}): no way out",
        "  Debian package (bullseye): no apt here",
    ]
    assert advice.startswith("Install Consul 1.8 or newer (https://")
    assert advice.endswith("or set CITADEL_CONSUL_BINARY to the path of its binary.")


def test_nothing_is_fetched_when_it_is_not_asked_for(machine: Machine) -> None:
    fetched = machine.serve_package()
    with pytest.raises(ConsulUnavailable, match="fetching: not asked for"):
        find_consul(install=False)
    assert fetched == []


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("#!/bin/sh\necho 'Consul v1.7.14'\n", r"is Consul 1\.7\.14; 1\.8 or newer is needed"),
        ("#!/bin/sh\necho 'some other consul'; exit 3\n", r"does not say that it is Consul \(exit 3\)"),
        ("#!/no/such/interpreter\n", "does not run"),
    ],
)
def test_a_program_on_path_that_cannot_be_used_is_passed_over_and_told(
    machine: Machine, script: str, reason: str
) -> None:
    write_consul(machine.programs / "consul").write_text(script)
    with pytest.raises(ConsulUnavailable, match=rf"PATH: .*{reason}"):
        find_consul()
    machine.serve_package()
    assert find_consul().origin == "Debian package"


def test_the_newest_usable_version_of_the_cache_is_taken(machine: Machine) -> None:
    write_consul(machine.cache / "1.9.0/consul", "1.9.0")
    write_consul(machine.cache / "1.22.7/consul", "1.22.7")
    write_consul(machine.cache / "1.99.0/consul").write_text("broken")
    assert find_consul().version == "1.22.7"


def test_what_was_fetched_is_found_in_the_cache_from_then_on(machine: Machine) -> None:
    fetched = machine.serve_package()
    first, second = find_consul(), find_consul()
    assert len(fetched) == 1
    assert first.path == second.path == machine.cache / "1.8.7/consul"
    assert second.origin == "cache"
    assert sorted(path.name for path in machine.cache.iterdir()) == [".lock", "1.8.7"]


def test_a_broken_file_in_the_cache_is_replaced(machine: Machine) -> None:
    write_consul(machine.cache / "1.8.7/consul").write_text("half a download")
    machine.serve_package("1.8.7")
    assert find_consul().version == "1.8.7"
    assert find_consul().origin == "cache"


def test_callers_at_the_same_time_fetch_once(machine: Machine) -> None:
    fetched = machine.serve_package(seconds=0.2)
    said: list[str] = []
    found: list[Path] = []
    callers = [threading.Thread(target=lambda: found.append(find_consul(report=said.append).path)) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(fetched) == 1
    assert set(found) == {machine.cache / "1.8.7/consul"}
    assert "Another process is fetching Consul: waiting for it …" in said


def test_a_cache_that_cannot_be_written_is_told(machine: Machine) -> None:
    machine.serve_package()
    (machine.root / "home").write_text("a file where the home should be")
    with pytest.raises(ConsulUnavailable, match="fetching: cannot write to"):
        find_consul()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"XDG_CACHE_HOME": "/var/cache/me", "HOME": "/home/me"}, "/var/cache/me/citadel/consul"),
        ({"XDG_CACHE_HOME": "relative/ignored", "HOME": "/home/me"}, "/home/me/.cache/citadel/consul"),
        ({"HOME": "/home/me"}, "/home/me/.cache/citadel/consul"),
    ],
)
def test_the_cache_follows_the_xdg_rules(machine: Machine, variables: dict[str, str], expected: str) -> None:
    for name, value in variables.items():
        machine.monkeypatch.setenv(name, value)
    assert cache_directory() == Path(expected)


def test_without_a_home_the_cache_is_that_of_the_user_database(machine: Machine) -> None:
    machine.monkeypatch.setenv("HOME", "")
    with_empty = cache_directory()
    machine.monkeypatch.delenv("HOME")
    assert with_empty == cache_directory() == Path("~/.cache/citadel/consul").expanduser()


@pytest.mark.slow
def test_a_machine_without_consul_gets_a_real_one_with_an_empty_home(tmp_path: Path) -> None:
    folders = os.environ["PATH"].split(os.pathsep)
    without = os.pathsep.join(folder for folder in folders if not Path(folder, "consul").exists())
    environment = {**os.environ, "PATH": without, "HOME": str(tmp_path)}
    for name in ("CITADEL_CONSUL_BINARY", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    command = [sys.executable, str(ROOT / "bin/consul"), "--path"]
    path = Path(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip())
    assert path.is_relative_to(tmp_path / ".cache/citadel/consul")
    assert probe(path, "test").release >= (1, 8)


@pytest.mark.consul
def test_the_script_prints_the_path_and_runs_consul_even_when_it_is_on_path_itself(tmp_path: Path) -> None:
    real = find_consul()
    path = f"{ROOT / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    printed = subprocess.run(
        ["consul", "--path"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(printed.stdout.strip()).is_file()
    ran = subprocess.run(
        ["consul", "version"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith(f"Consul v{real.version}")


def test_the_modules_that_fetch_need_nothing_but_the_standard_library() -> None:
    program = "import sys; sys.path.insert(0, sys.argv[1]); import citadel_consul.consul.binary"
    subprocess.run([sys.executable, "-I", "-S", "-c", program, str(ROOT)], check=True, timeout=60)
