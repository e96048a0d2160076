"""The image of the tests' containers: one static program (Debian's busybox-static) and nothing else. Nothing is pulled.

It is handed to the engine as a tar archive, and kept there under a tag that is the checksum of the program.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import httpx

REPOSITORY = "citadel-test/busybox"
_LOADER = b"/ld-linux"  # what a program that is not static names
_APPLETS = ("sh", "sleep", "true", "false", "cat", "echo", "nc", "kill", "test", "touch", "rm", "httpd", "env", "id")


class NoImage(Exception):
    """The image cannot be made here; the message says what is missing."""


def ensure_image(engine: httpx.Client) -> str:
    """Have the image in an engine; returns its name."""
    program = _busybox()
    name = f"{REPOSITORY}:{hashlib.sha256(program).hexdigest()[:12]}"
    if engine.get(f"/images/{name}/json").status_code == 200:
        return name
    repository, _, tag = name.partition(":")
    parameters = {"fromSrc": "-", "repo": repository, "tag": tag}
    answer = engine.post("/images/create", params=parameters, content=archive({"bin/busybox": program}, _APPLETS))
    answer.raise_for_status()
    if engine.get(f"/images/{name}/json").status_code != 200:
        raise NoImage(f"the engine did not take the image: {answer.text}")
    return name


def archive(programs: dict[str, bytes], applets: tuple[str, ...] = ()) -> bytes:
    """A root file system with these programs, and links to busybox in ``/bin``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "tmp", "dev", "proc", "sys", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        for path, program in programs.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(program), 0o755
            tar.addfile(entry, io.BytesIO(program))
        for applet in applets:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return buffer.getvalue()


def _busybox() -> bytes:
    """The static busybox of this machine, or of Debian's package if another one is installed."""
    found = shutil.which("busybox")
    if found is not None and _LOADER not in (program := Path(found).read_bytes()):
        return program
    raise NoImage("there is no static busybox on this machine (apt-get install busybox-static)")


def can_run(name: str, *words: str) -> bool:
    """Whether a program is there and ends well."""
    if shutil.which(name) is None:
        return False
    return subprocess.run([name, *words], capture_output=True, timeout=30, check=False).returncode == 0
