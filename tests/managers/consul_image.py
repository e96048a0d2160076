"""An image of this machine's Consul: the program, and the libraries it is linked with, if any. Nothing is pulled."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import httpx
from busybox_image import NoImage, archive

REPOSITORY = "citadel-test/consul"


def ensure_consul_image(engine: httpx.Client, program: Path) -> str:
    """Have the image in an engine; returns its name."""
    files = {"bin/consul": program, **{str(path)[1:]: path for path in _libraries(program)}}
    digest = hashlib.sha256(program.read_bytes()).hexdigest()[:12]
    name = f"{REPOSITORY}:{digest}"
    if engine.get(f"/images/{name}/json").status_code == 200:
        return name
    contents = {path: source.read_bytes() for path, source in files.items()}
    parameters = {"fromSrc": "-", "repo": REPOSITORY, "tag": digest}
    engine.post("/images/create", params=parameters, content=archive(contents)).raise_for_status()
    if engine.get(f"/images/{name}/json").status_code != 200:
        raise NoImage(f"the engine did not take the image of {program}")
    return name


def _libraries(program: Path) -> list[Path]:
    """What a program is linked with; nothing if it is static, as HashiCorp's is."""
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", done.stdout)] if done.returncode == 0 else []
