"""Compose as a plugin of the docker command, for machines that lack it. Debian packages it so since trixie."""

from __future__ import annotations

import shutil
from pathlib import Path

from citadel_consul.consul import debian
from citadel_consul.consul.binary import cache_directory

SUITE = "trixie"
"""Its package docker-compose is 2.26, built for a libc that bookworm has as well."""
_PLUGIN = Path("cli-plugins/docker-compose")


def settings_with_compose() -> Path:
    """A folder for ``DOCKER_CONFIG`` by which the docker command finds compose, from the cache if it is there.

    Raises ConsulUnavailable with the reason if it cannot be had.
    """
    home = cache_directory().parent / "docker-compose" / SUITE
    if not (home / _PLUGIN).is_file():
        with debian.unpacked("docker-compose", SUITE) as tree:
            (home / _PLUGIN).parent.mkdir(parents=True, exist_ok=True)
            incoming = shutil.copy2(tree / "usr/libexec/docker" / _PLUGIN, home / "incoming")
            Path(incoming).rename(home / _PLUGIN)
    return home
