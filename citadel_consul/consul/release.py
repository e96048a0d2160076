"""Consul from HashiCorp's official releases.

The checksums are pinned here, as HashiCorp publishes them for this version, rather than fetched beside the archive:
a checksum that comes from the server it is meant to check proves nothing about that server. So no signature tool is
needed, and a changed archive is refused whoever changed it.

Standard library only: a machine gets its Consul before it has anything else.
"""

from __future__ import annotations

import hashlib
import http.client
import platform
import queue
import threading
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from citadel_consul.errors import ConsulUnavailable

VERSION = "1.22.7"
BASE_URL = "https://releases.hashicorp.com/consul"
SHA256 = {
    "amd64": "fe25cecd8dd3552a8e5b0941cde1d79bb6004eac384aa45679dd1398f947201d",
    "arm": "e97106d356f339bb7815fadac2695be2c81195271729bf3c8aa4997e8ba9a776",
    "arm64": "db54c5fb7c5ceaef97a38ca45dcc0f649ff592a48c73ab320e2d535c78e136cc",
}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv6l": "arm", "armv7l": "arm"}

# A machine without a way out has to learn it at once: there is a second source, and somebody is waiting.
CONNECT_SECONDS = 3.0
DOWNLOAD_SECONDS = 300.0
_CHUNK = 1 << 20


def fetch_release(directory: Path, base_url: str = BASE_URL) -> Path:
    """Put the pinned release's ``consul`` into ``directory``, which exists, and return its path.

    Raises ConsulUnavailable with the reason: no build for this machine, no answer within `CONNECT_SECONDS`, a download
    that took longer than `DOWNLOAD_SECONDS`, a wrong checksum, an archive without the program.
    """
    machine = platform.machine()
    architecture = _ARCHITECTURES.get(machine)
    if architecture is None:
        raise ConsulUnavailable(f"no build is pinned for machine type {machine!r}")
    name = f"consul_{VERSION}_linux_{architecture}.zip"
    archive = directory / name
    digest = _download(f"{base_url}/{VERSION}/{name}", archive)
    if digest != SHA256[architecture]:
        raise ConsulUnavailable(f"{name} has SHA-256 {digest}, but {SHA256[architecture]} is pinned; it was discarded")
    return _unpack(archive, directory / "consul")


def _download(url: str, target: Path) -> str:
    """Write what ``url`` answers to ``target``; return its SHA-256."""
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    digest = hashlib.sha256()
    try:
        with _open(url) as response, target.open("wb") as file:
            while chunk := response.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
                if time.monotonic() > deadline:
                    raise ConsulUnavailable(f"{url} took longer than {DOWNLOAD_SECONDS:.0f} s")
    except urllib.error.HTTPError as error:
        with error:
            raise ConsulUnavailable(f"{url} answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise ConsulUnavailable(f"cannot reach {url}: {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ConsulUnavailable(f"{url}: {str(error) or type(error).__name__}") from error
    return digest.hexdigest()


def _open(url: str) -> http.client.HTTPResponse:
    """The open answer of ``url``, or an error after `CONNECT_SECONDS`.

    The time-out of a socket does not cover the look-up of its name, which can hang for half a minute behind a resolver
    that drops what it is asked. Hence a thread, which is left behind in that case.
    """
    answers: queue.SimpleQueue[http.client.HTTPResponse | OSError | http.client.HTTPException] = queue.SimpleQueue()

    def connect() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=CONNECT_SECONDS))  # noqa: S310  the caller's constant
        except (OSError, http.client.HTTPException) as error:
            answers.put(error)

    threading.Thread(target=connect, name="consul-release", daemon=True).start()
    try:
        answer = answers.get(timeout=CONNECT_SECONDS + 0.5)
    except queue.Empty:
        raise ConsulUnavailable(f"cannot reach {url} within {CONNECT_SECONDS:.0f} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _unpack(archive: Path, program: Path) -> Path:
    try:
        with zipfile.ZipFile(archive) as files:
            program.write_bytes(files.read("consul"))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ConsulUnavailable(f"{archive.name} is no archive with a program 'consul' in it: {error}") from error
    program.chmod(0o755)
    archive.unlink()
    return program
