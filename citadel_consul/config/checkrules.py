"""The rules between the fields of one service's checks."""

from __future__ import annotations

from collections.abc import Iterator

from citadel_consul.config.durations import format_duration, seconds_or_none
from citadel_consul.config.findings import Finding, Path
from citadel_consul.config.outline import Data, ServiceOutline
from citadel_consul.core.model import CheckKind

KINDS = tuple(kind.value for kind in CheckKind)
HTTP_ONLY = ("method", "headers", "tls_skip_verify")
NOT_FOR_TTL = ("interval", "timeout", "success_before_passing", "failures_before_critical")
_KNOWN = {*KINDS, *HTTP_ONLY, *NOT_FOR_TTL, "name"}


def check_findings(service: ServiceOutline) -> Iterator[Finding]:
    """What is wrong with the checks of a service, beyond their single fields."""
    base: Path = ("services", service.name, "checks")
    if service.oneshot and service.checks:
        message = f"{service.name!r} is a oneshot service: it exits, and its checks would turn critical"
        yield Finding(base, message, "remove the checks, or `oneshot`")
    names: set[str] = set()
    for index, check in service.checks:
        path = (*base, index)
        kinds = [kind for kind in KINDS if kind in check]
        if len(kinds) != 1:
            if kinds or check.keys() <= _KNOWN:  # an unknown key is reported, and is likely a kind misspelt
                yield _kinds_finding(path, kinds)
            continue
        yield from _field_findings(path, kinds[0], check)
        name = check.get("name", kinds[0])
        if isinstance(name, str) and name in names:
            yield Finding((*path, "name"), f"a second check named {name!r}", "give each check its own name")
        names.add(str(name))


def _kinds_finding(path: Path, kinds: list[str]) -> Finding:
    if kinds:
        return Finding(path, f"has {' and '.join(kinds)}: a check is of one kind", "make it several checks")
    return Finding(path, "says nothing to check", f"add one of {', '.join(KINDS)}")


def _field_findings(path: Path, kind: str, check: Data) -> Iterator[Finding]:
    foreign = (*(HTTP_ONLY if kind != "http" else ()), *(NOT_FOR_TTL if kind == "ttl" else ()))
    for field in foreign:
        if field in check:
            yield Finding((*path, field), f"has no meaning for a {kind} check", "remove it")
    if "interval" in check and "timeout" in check and kind != "ttl":
        interval, timeout = seconds_or_none(check["interval"]), seconds_or_none(check["timeout"])
        if interval is not None and timeout is not None and timeout > interval >= 1:
            message = f"{format_duration(timeout)} is longer than the interval ({format_duration(interval)})"
            yield Finding((*path, "timeout"), message, "shorten the timeout, or lengthen the interval")
