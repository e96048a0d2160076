"""The drill of the stack that ``bin/quickstart`` runs: twelve real services under ``citadel dev``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from ai_platform import EXAMPLE, free_ports, open_folder
from dev_process import Dev

from citadel_consul.consul.binary import ConsulBinary

pytestmark = [pytest.mark.consul, pytest.mark.long]

FILES = ("stack.yaml", "smoke.yaml", "drill.yaml")


def copied(folder: Path) -> Path:
    """The example with ports of its own: its usual ones may be taken. Returns its stack file."""
    texts = {name: (EXAMPLE / name).read_text() for name in FILES}
    ports = sorted({port for text in texts.values() for port in re.findall(r"127\.0\.0\.1:(\d+)", text)})
    chosen = dict(zip(ports, map(str, free_ports(len(ports))), strict=True))
    for name, text in texts.items():
        (folder / name).write_text(re.sub(r"\b\d{4,5}\b", lambda found: chosen.get(found[0], found[0]), text))
    for name in ("services", "corpus"):
        (folder / name).symlink_to(EXAMPLE / name)
    return folder / "stack.yaml"


@contextmanager
def citadel_dev(environ: Mapping[str, str], file: Path, data: Path) -> Iterator[Dev]:
    """``citadel dev``, which is stopped in order at the end."""
    command = [sys.executable, "-m", "citadel_consul", "dev", str(file), "--data-dir", str(data)]
    run = Dev(
        subprocess.Popen(
            [*command, "--api-bind", "127.0.0.1:0"], env=dict(environ), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )
    )  # fmt: skip
    try:
        yield run
        run.signal(signal.SIGTERM)
        assert run.end(120.0) == 0, run.text
    finally:
        run.kill()


def test_the_drill_passes_on_the_quickstart_stack(
    consul_binary: ConsulBinary, role_environment: dict[str, str], tmp_path: Path
) -> None:
    environ = {**role_environment, "CITADEL_CONSUL_BINARY": str(consul_binary.path)}
    mark = os.environ["CITADEL_TEST_RUN"]
    with open_folder() as folder:
        file = copied(folder)
        text = file.read_text()
        file.write_text(text.replace("    env:\n", f"    env:\n      CITADEL_TEST_RUN: {mark}\n", 1))
        with citadel_dev(environ, file, folder / "data") as dev:
            dev.until("services are up, after", 120.0)
            (address,) = re.findall(r"Consul \S+ at http://(\S+)", dev.text)
            done = subprocess.run(
                [sys.executable, "-m", "citadel_consul", "drill"], env={**environ, "CONSUL_HTTP_ADDR": address},
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{dev.text}"
    lines = done.stdout.splitlines()
    assert sum(line.startswith("✅") for line in lines) == 23
    assert not [line for line in lines if line.startswith(("❌", "➖"))]
    assert any(line.startswith("✅ Simulated service failure (qdrant)") for line in lines)
    assert "✅ All services registered successfully (12 of 12)" in lines
    assert "✅ No data loss detected (2 of 2 found again)" in lines
