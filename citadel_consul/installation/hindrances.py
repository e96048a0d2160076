"""What stands in the way of an installed role on this machine, found before the role stumbles over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from citadel_consul.config.settings import Settings
from citadel_consul.installation import account
from citadel_consul.installation.blueprint import Choices

POLKIT = Path("/usr/share/polkit-1/actions")
"""Where every installation of polkit has its actions."""


def hindrances(choices: Choices, settings: Settings, *, polkit: Path = POLKIT) -> Iterator[str]:
    """What the role will miss, each with its remedy. The account has to be there already."""
    user = choices.user
    if user == "root":
        return
    for name, path in _named(settings).items():
        if path is not None and not account.can_read(user, path):
            yield f"{user} cannot read {path} ({name}): chgrp {user} {path}; chmod g+r {path}"
    if choices.docker and not account.group_exists("docker"):
        yield "there is no group docker, so the unit cannot start: install Docker first, or leave --docker out"
    if choices.units and not polkit.is_dir():
        yield f"polkit is not installed, so {user} may not manage units: install it (polkitd), or choose --user root"


def _named(settings: Settings) -> dict[str, Path | None]:
    """The files that settings name and that a role has to read."""
    return {
        "consul.token_file": settings.consul.token_file,
        "consul.cacert": settings.consul.cacert,
        "consul.client_cert": settings.consul.client_cert,
        "consul.client_key": settings.consul.client_key,
        "api.tls_cert": settings.api.tls_cert,
        "api.tls_key": settings.api.tls_key,
    }
