"""The example of a mixed stack is valid, and is what its README says."""

from __future__ import annotations

from pathlib import Path

import yaml

from citadel_consul.config.stackfile import load_stack
from citadel_consul.core.model import BACKEND_KINDS, DockerBackend, Edge, OnRecovery, SystemdBackend

EXAMPLE = Path(__file__).parents[2] / "examples" / "mixed-stack"


def test_three_kinds_of_backends_make_one_stack() -> None:
    stack = load_stack(EXAMPLE / "stack.yaml")
    kinds = {name: spec.backend.kind for name, spec in stack.services.items()}
    assert kinds == {"db": "docker", "cache": "systemd", "web": "process"}
    assert set(kinds.values()) <= set(BACKEND_KINDS)
    assert set(stack.edges) == {Edge("web", "db"), Edge("web", "cache", on_recovery=OnRecovery.RESTART)}


def test_what_the_stack_names_is_in_the_files_beside_it() -> None:
    services = load_stack(EXAMPLE / "stack.yaml").services
    database, cache = services["db"].backend, services["cache"].backend
    assert isinstance(database, DockerBackend)
    assert isinstance(cache, SystemdBackend)
    assert Path(database.file or "") == EXAMPLE / "compose.yaml"
    assert database.service in yaml.safe_load((EXAMPLE / "compose.yaml").read_text())["services"]
    assert (EXAMPLE / cache.unit).is_file()
    assert (EXAMPLE / "site" / "index.html").is_file()
