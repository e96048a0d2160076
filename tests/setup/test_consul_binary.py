"""Where Consul comes from: the order, what is said when there is none, the cache, two callers at once."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from citadel_consul.consul import debian, release
from citadel_consul.consul.binary import cache_directory, find_consul, probe
from citadel_consul.errors import ConsulUnavailable, InvalidInput

ROOT = Path(__file__).resolve().parents[2]


def write_consul(path: Path, version: str = "1.16.0") -> Path:
    """A program that says of itself that it is Consul."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'Consul v{version}'\n")
    path.chmod(0o755)
    return path


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


class Releases(ThreadingHTTPServer):
    """A release site on loopback."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/consul"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    folder = tmp_path / "site"
    folder.mkdir()

    def handler(*arguments: object) -> _Quiet:
        return _Quiet(*arguments, directory=str(folder))  # type: ignore[arg-type]

    with Releases(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str = "consul", pinned: bool = True) -> None:
    """Put an archive on the site, and pin its checksum."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, "#!/bin/sh\necho 'Consul v1.22.7'\n")
        archive.writestr("LICENSE.txt", "…")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    path = tmp_path / "site/consul" / release.VERSION / f"consul_{release.VERSION}_linux_amd64.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(buffer.getvalue())
    if pinned:
        monkeypatch.setitem(release.SHA256, "amd64", hashlib.sha256(buffer.getvalue()).hexdigest())


def test_a_release_with_the_pinned_checksum_is_unpacked(
    releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, monkeypatch)
    target = tmp_path / "target"
    target.mkdir()
    program = release.fetch_release(target, releases.url)
    assert probe(program, "test").version == "1.22.7"
    assert list(target.iterdir()) == [program]


def test_a_release_with_another_checksum_is_refused_and_never_unpacked(
    releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, monkeypatch, pinned=False)
    with pytest.raises(ConsulUnavailable, match=r"has SHA-256 [0-9a-f]{64}, but fe25cecd.* is pinned"):
        release.fetch_release(tmp_path, releases.url)
    assert not (tmp_path / "consul").exists()


def test_a_release_without_the_program_is_refused(
    releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, monkeypatch, member="something-else")
    with pytest.raises(ConsulUnavailable, match="no archive with a program 'consul'"):
        release.fetch_release(tmp_path, releases.url)


def test_a_release_that_is_not_there_is_told_with_its_status(releases: Releases, tmp_path: Path) -> None:
    with pytest.raises(ConsulUnavailable, match="answered 404"):
        release.fetch_release(tmp_path, releases.url)


def test_a_machine_type_without_a_pinned_build_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "sparc64")
    with pytest.raises(ConsulUnavailable, match="no build is pinned for machine type 'sparc64'"):
        release.fetch_release(tmp_path)


def test_a_refused_connection_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConsulUnavailable, match=r"cannot reach .*refused"):
            release.fetch_release(tmp_path, f"http://127.0.0.1:{unused.getsockname()[1]}")


def test_a_site_that_never_answers_is_given_up_after_the_connect_time_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(ConsulUnavailable, match=r"cannot reach|timed out"):
            release.fetch_release(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 2.0


def test_a_name_whose_look_up_hangs_is_given_up_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def hang(*_: object, **__: object) -> object:
        answer.wait()
        raise OSError("too late")

    monkeypatch.setattr(release, "CONNECT_SECONDS", 0.05)
    monkeypatch.setattr("urllib.request.urlopen", hang)
    try:
        with pytest.raises(ConsulUnavailable, match=r"cannot reach .* within"):
            release.fetch_release(tmp_path, "http://nowhere.invalid")
    finally:
        answer.set()


@pytest.mark.parametrize(
    ("uris", "expected"),
    [
        (["http://mirror.example/debian-security/", "http://mirror.example/debian/"], "http://mirror.example/debian/"),
        (["mirror+file:/etc/apt/mirrors/debian.list"], "mirror+file:/etc/apt/mirrors/debian.list"),
        (["https://archive.example/ubuntu/", "https://vendor.example/node_20.x"], None),
    ],
)
def test_the_mirror_is_the_debian_archive_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uris: list[str], expected: str | None
) -> None:
    apt_get = write_consul(tmp_path / "bin/apt-get")
    apt_get.write_text("#!/bin/sh\n" + "".join(f"echo '{uri}'\n" for uri in uris))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(debian, "_APT_SETTINGS", tmp_path / "nothing")
    if expected is None:
        with pytest.raises(ConsulUnavailable, match="no Debian mirror"):
            debian.find_mirror()
    else:
        assert debian.find_mirror() == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "sources.list",
            "# deb http://old.example/debian x main\ndeb [arch=amd64] http://a.example/debian trixie main\n",
        ),
        ("sources.list.d/debian.sources", "Types: deb\n# http://old.example/debian\nURIs: http://a.example/debian\n"),
    ],
)
def test_the_mirror_is_read_from_the_configuration_of_an_apt_that_has_no_lists_yet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, text: str
) -> None:
    write_consul(tmp_path / "bin/apt-get").write_text("#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(debian, "_APT_SETTINGS", tmp_path / "apt")
    (tmp_path / "apt" / name).parent.mkdir(parents=True)
    (tmp_path / "apt" / name).write_text(text)
    assert debian.find_mirror() == "http://a.example/debian"


def test_without_apt_debian_is_told_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConsulUnavailable, match="apt-get is not installed"):
        debian.fetch_package(tmp_path)


def test_what_apt_complains_of_reaches_the_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = "#!/bin/sh\ncase \"$*\" in *update) echo 'W: noise' >&2; echo 'E: no space' >&2; exit 100;; esac\n"
    for name in ("apt-get", "dpkg"):
        write_consul(tmp_path / "bin" / name).write_text(script + "echo http://a.example/debian/\n")
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(debian, "KEYRING", keyring)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ConsulUnavailable, match=r"^apt-get update: E: no space$"):
        debian.fetch_package(tmp_path)


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
