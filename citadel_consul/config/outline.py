"""What can be read of each service, whatever is wrong with the rest of it.

The rules between fields and services (``stackrules``) work on this, so that a bad duration in one service does not
hide a cycle through it. Values of the wrong type are read as absent: the models have already reported them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from citadel_consul.config.findings import Path
from citadel_consul.core.model import Condition, Strength

Data = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class DependencyOutline:
    """One entry of ``depends_on``; ``path`` leads to it within its service."""

    name: str
    path: Path
    condition: Condition | None
    strength: Strength
    min_instances: int | None


@dataclass(frozen=True, slots=True)
class ServiceOutline:
    """A service merged with the defaults, still as plain data. ``readable``: the file has a mapping for it."""

    name: str
    data: Data
    readable: bool = True

    @property
    def nodes(self) -> list[str]:
        return _texts(self.data.get("nodes"))

    @property
    def oneshot(self) -> bool:
        return self.data.get("oneshot") is True

    @property
    def endpoint(self) -> str | None:
        endpoint = self.data.get("endpoint")
        return endpoint if isinstance(endpoint, str) else None

    @property
    def tags(self) -> list[str]:
        return _texts(self.data.get("tags"))

    @property
    def checks(self) -> list[tuple[int, Data]]:
        """The checks that are mappings, with their indices."""
        checks = self.data.get("checks")
        listed = checks if isinstance(checks, list) else []
        return [(index, check) for index, check in enumerate(listed) if isinstance(check, dict)]

    @property
    def dependencies(self) -> list[DependencyOutline]:
        """The entries of ``depends_on`` in either form, duplicates of the list form included."""
        written = self.data.get("depends_on")
        if isinstance(written, list):
            return [
                _dependency(name, ("depends_on", index), {})
                for index, name in enumerate(written)
                if isinstance(name, str)
            ]
        if isinstance(written, dict):
            return [_dependency(name, ("depends_on", name), as_mapping(edge)) for name, edge in written.items()]
        return []


def as_mapping(value: object) -> Data:
    """``value`` if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def merge(defaults: Data, service: Data) -> dict[str, object]:
    """``service`` over ``defaults``: mappings key by key and at every depth, anything else as a whole.

    A backend of another kind replaces the default one: what is right for one kind is unknown to the other.
    """
    merged = dict(defaults)
    for key, value in service.items():
        base = defaults.get(key)
        if isinstance(base, dict) and isinstance(value, dict) and not _kinds_differ(base, value):
            merged[key] = merge(base, value)
        else:
            merged[key] = value
    return merged


def _kinds_differ(base: Data, over: Data) -> bool:
    return "kind" in over and base.get("kind", "process") != over["kind"]


def _dependency(name: str, path: Path, edge: Data) -> DependencyOutline:
    condition, strength = str(edge.get("condition")), str(edge.get("strength"))
    count = edge.get("min_instances")
    return DependencyOutline(
        name,
        path,
        Condition(condition) if condition in set(Condition) else None,
        Strength(strength) if strength in set(Strength) else Strength.HARD,
        count if isinstance(count, int) and not isinstance(count, bool) else None,
    )


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
