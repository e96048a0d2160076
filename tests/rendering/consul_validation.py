"""Consul's own opinion of configuration files."""

from __future__ import annotations

import subprocess
from pathlib import Path

from citadel_consul.consul.binary import ConsulBinary


def validate(binary: ConsulBinary, folder: Path, *files: Path) -> str:
    """The empty string if ``consul validate`` accepts ``files`` together, else what it says.

    ``folder`` gets the file of site settings, without which a host of several networks or an agent without a data
    directory is refused.
    """
    site = folder / "zz-site.hcl"
    site.write_text('bind_addr = "127.0.0.1"\ndata_dir = "/nonexistent/consul"\n')
    command = [str(binary.path), "validate", *map(str, files), str(site)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if result.returncode == 0 else result.stdout + result.stderr
