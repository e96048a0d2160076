"""Consul's rules for a service definition, checked before Consul sees it.

Consul refuses a registration at the moment the node agent makes it, which is when a service is being started; an
operator should hear of it when the stack file is rendered. The limits are those of Consul 1.8 and unchanged in 1.22.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from citadel_consul.errors import InvalidInput, Problem
from citadel_consul.rendering.registration import checks_of, mapping, sequence, to_agent_api

MAX_META_PAIRS = 64
MAX_META_KEY = 128
MAX_META_VALUE = 512  # bytes, as Go counts them
_META_KEY = re.compile(r"[A-Za-z0-9_-]+")
_CONSUL_PREFIX = "consul-"
MAX_PORT = 65_535


def check_definition(definition: Mapping[str, object], expected_id: str, expected_name: str, place: str) -> None:
    """Raise InvalidInput with everything about ``definition`` that Consul would refuse, or that citadel relies on.

    Id and name are fixed: the node agent finds its registrations by the one, and dependents by the other.
    """
    try:
        problems = list(_problems(definition, expected_id, expected_name))
    except InvalidInput as error:  # of a shape that nothing more can be said about
        problems = list(error.problems)
    if problems:
        raise InvalidInput(Problem(f"{place}: {p.place}", p.message, p.remedy) for p in problems)


def _problems(definition: Mapping[str, object], expected_id: str, expected_name: str) -> Iterator[Problem]:
    to_agent_api(definition)
    service = mapping(definition["service"], "service")
    yield from _identity_problems(service, expected_id, expected_name)
    yield from meta_problems(mapping(service.get("meta", {}), "service.meta"))
    yield from _tag_problems(service)
    yield from _port_problems(service)
    yield from _check_problems(service)


def meta_problems(meta: Mapping[str, object]) -> Iterator[Problem]:
    """What breaks Consul's rules for service metadata."""
    if len(meta) > MAX_META_PAIRS:
        yield Problem("meta", f"has {len(meta)} keys, and Consul takes {MAX_META_PAIRS} with citadel's own")
    for key, value in meta.items():
        where = f"meta.{key}"
        if not _META_KEY.fullmatch(key) or len(key) > MAX_META_KEY:
            yield Problem(where, f"keys are letters, digits, '_' and '-', at most {MAX_META_KEY} of them")
        if key.startswith(_CONSUL_PREFIX):
            yield Problem(where, f"Consul keeps keys that begin with {_CONSUL_PREFIX!r} for itself")
        if not isinstance(value, str):
            yield Problem(where, "must be a string")
        elif len(value.encode()) > MAX_META_VALUE:
            yield Problem(where, f"has {len(value.encode())} bytes, and Consul takes {MAX_META_VALUE}")


def _identity_problems(service: Mapping[str, object], expected_id: str, expected_name: str) -> Iterator[Problem]:
    for field, expected in (("id", expected_id), ("name", expected_name)):
        if service.get(field) != expected:
            remedy = "templates may change anything but id and name"
            yield Problem(field, f"must be {expected!r}, and the template says {service.get(field)!r}", remedy)


def _tag_problems(service: Mapping[str, object]) -> Iterator[Problem]:
    for index, tag in enumerate(sequence(service.get("tags", ()), "service.tags")):
        if not isinstance(tag, str):
            yield Problem(f"tags[{index}]", "must be a string")


def _port_problems(service: Mapping[str, object]) -> Iterator[Problem]:
    port = service.get("port", 0)
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= MAX_PORT:
        yield Problem("port", f"must be a number up to {MAX_PORT}, and is {port!r}")


def _check_problems(service: Mapping[str, object]) -> Iterator[Problem]:
    checks = checks_of(service)
    for index, check in enumerate(checks):
        for field in ("id", "name"):
            value = check.get(field)
            if not isinstance(value, str) or not value:
                yield Problem(f"checks[{index}].{field}", "is missing")
    for identifier, count in Counter(str(check.get("id")) for check in checks).items():
        if count > 1:
            yield Problem("checks", f"{count} checks have the id {identifier!r}; Consul would keep the last one")
