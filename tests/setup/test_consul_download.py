"""Fetching Consul: the official release from a site on loopback, and Debian's package through a stand-in for apt."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fake_consul import write_consul

from citadel_consul.consul import debian, release
from citadel_consul.consul.binary import probe
from citadel_consul.errors import ConsulUnavailable


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
