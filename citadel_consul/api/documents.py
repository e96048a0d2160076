"""The forms of answers that are no dataclass as they are given, for the API's description of itself."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from citadel_consul.core.answers.health import HealthSummary, ServiceHealth


def _service_health() -> Any:
    """A service's health with its figures, whose names are up to the spec, beside the other fields."""
    kinds = get_type_hints(ServiceHealth)
    own: dict[str, Any] = {f.name: (kinds[f.name], ...) for f in fields(ServiceHealth) if f.name != "figures"}
    return create_model("ServiceHealth", __config__=ConfigDict(extra="allow"), __doc__=ServiceHealth.__doc__, **own)


def _health() -> type[BaseModel]:
    kinds: dict[str, Any] = {
        "health_summary": (HealthSummary, ...),
        "service_health": (dict[str, _service_health()], ...),  # type: ignore[misc]
    }
    return create_model("HealthAnswer", **kinds)


HEALTH_DOCUMENT = _health()
