"""The rules between the fields of one service's backend: what each kind cannot do without, and what excludes what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from citadel_consul.config.findings import Finding, Path
from citadel_consul.config.outline import Data, ServiceOutline

REQUIRED: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "process": {"command": ("nothing to run", "command: [program]")},
    "systemd": {"unit": ("no unit to run", "unit: name.service")},
    "docker": {},
    "command": {
        "start": ("nothing starts it", "start: [program, start]"),
        "stop": ("nothing stops it", "stop: [program, stop]"),
        "status": ("nothing tells whether it runs", "status: [program, status]"),
    },
}
"""What a backend of each kind has to have: what it means that it is missing, and what to add."""


def backend_findings(service: ServiceOutline) -> Iterator[Finding]:
    """What is wrong with the backend of a service, beyond its single fields."""
    backend = service.data.get("backend")
    if not isinstance(backend, dict):
        return  # reported as missing, or as no mapping
    base: Path = ("services", service.name, "backend")
    kind = backend.get("kind", "process")
    for field, (meaning, example) in REQUIRED.get(str(kind), {}).items():
        if field not in backend:
            yield Finding((*base, field), f"is missing: {meaning}", f"add `{example}`")
    if kind == "docker":
        yield from _container(base, backend)
    if kind == "systemd" and service.data.get("oneshot") is True and backend.get("restarts") == "systemd":
        message = "a oneshot service runs to its end: there is nothing for systemd to restart"
        yield Finding((*base, "restarts"), message, "remove it")


def _container(base: Path, backend: Data) -> Iterator[Finding]:
    compose = [field for field in ("file", "service", "project") if field in backend]
    if "container" in backend and compose:
        message = "a container by name and a service of a compose file exclude each other"
        yield Finding((*base, "container"), message, f"remove container, or {' and '.join(compose)}")
    elif "container" not in backend and not compose:
        yield Finding(base, "names no container", "add `container: name`, or `file: compose.yaml` and `service: name`")
    elif compose:
        for field, example in (("file", "file: compose.yaml"), ("service", "service: name")):
            if field not in backend:
                yield Finding((*base, field), "is missing: a service of a compose file needs both", f"add `{example}`")
