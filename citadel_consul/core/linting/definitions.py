"""Judging service definitions, in the form that a Consul agent reads from a file.

Consul takes nearly everything: it raises an interval of 200 ms to 1 s and a removal after ten seconds to one after a
minute without a word, keeps the last of two checks with one id, and runs a check against a time-out that its next run
overtakes. What it really refuses is refused where definitions are rendered, and is not repeated here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from citadel_consul.core.finding import Finding
from citadel_consul.core.linting.durations import duration_seconds
from citadel_consul.core.linting.rules import broken

INTERVAL_FLOOR_SECONDS: Final = 1.0
"""What Consul raises shorter intervals to."""

REMOVAL_FLOOR_SECONDS: Final = 60.0
"""What Consul raises a shorter ``deregister_critical_service_after`` to."""

SHORTEST_TTL_SECONDS: Final = 5.0
"""Below it a pause of the service (a collection of garbage, a slow disk, a restarted Consul agent) is a failure."""

RECOVERABLE_SECONDS: Final = 1800.0
"""How long an outage lasts from which a service still comes back, where nobody knows better."""

_POLLED: Final = ("http", "tcp", "udp", "grpc", "h2ping", "args", "os_service")
_DEFAULT_TIMEOUT_SECONDS: Final = {"args": 30.0}
_OTHER_TIMEOUT_SECONDS: Final = 10.0
_DURATIONS: Final = ("interval", "timeout", "ttl", "deregister_critical_service_after")
_WITH_PASSWORD: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]*:[^/?#@\s]+@", re.IGNORECASE)

Fields = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Registration:
    """What is registered on a node: ``service`` is the object of that name in a definition."""

    node: str
    service: Fields


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a definition is judged by. ``without_scripts``: the nodes whose Consul agents are known to take no script
    checks. ``recoverable_seconds``: how long, by service, an outage may last and still be recovered from."""

    without_scripts: frozenset[str] = frozenset()
    recoverable_seconds: Mapping[str, float] = field(default_factory=dict)

    def recoverable(self, service: str) -> float:
        return self.recoverable_seconds.get(service, RECOVERABLE_SECONDS)


def lint_definitions(
    registrations: Iterable[Registration], circumstances: Circumstances | None = None
) -> tuple[Finding, ...]:
    """All that is bad practice in ``registrations``, in their order. What is the same on each node is said once."""
    around = circumstances or Circumstances()
    known = tuple(registrations)
    found = [finding for one in known for finding in _service(one, around)]
    return (*dict.fromkeys(found), *_duplicates(known))


def _service(registration: Registration, around: Circumstances) -> Iterator[Finding]:
    service = registration.service
    name = str(service.get("name"))
    checks = _checks(service)
    if service.get("port") and not checks:
        message = (
            "has a port and no check: Consul takes it for passing as long as it is registered, also when it is dead"
        )
        yield broken("no-check", name, message, "give it a check that asks the service itself")
    for check in checks:
        place = f"{name}, check {check.get('name') or check.get('id')}"
        yield from _check(check, place, around.recoverable(name))
        if "args" in check and registration.node in around.without_scripts:
            message = f"is a script, and the Consul agent of {registration.node} takes none over its API: it is refused"
            remedy = "use a check of another kind, or set enable_script_checks on the agents (with ACLs, on loopback)"
            yield broken("scripts-forbidden", place, message, remedy)


def _checks(service: Fields) -> list[Fields]:
    listed = service.get("checks", ())
    checks = [service["check"]] if "check" in service else []
    checks += listed if isinstance(listed, list | tuple) else []
    return [check for check in checks if isinstance(check, Mapping)]


def _check(check: Fields, place: str, recoverable_seconds: float) -> Iterator[Finding]:
    for key in _DURATIONS:
        if key in check and duration_seconds(check[key]) is None:
            message = f"{key} is {check[key]!r}, which Consul cannot read"
            yield broken("bad-duration", place, message, "write a number with its unit, as in 10s")
    kind = next((kind for kind in _POLLED if kind in check), None)
    if kind is not None:
        yield from _timing(check, kind, place)
        yield from _threshold(check, place)
    yield from _ttl(check, place)
    yield from _removal(check, place, recoverable_seconds)
    if any(isinstance(value, str) and _WITH_PASSWORD.match(value) for value in check.values()):
        message = (
            "has a password in its URL, and Consul shows the URL in the check's output to everybody who reads health"
        )
        yield broken("password-in-check", place, message, "check something that needs none")


def _timing(check: Fields, kind: str, place: str) -> Iterator[Finding]:
    interval = duration_seconds(check.get("interval"))
    if interval is None:
        return
    if interval < INTERVAL_FLOOR_SECONDS:
        message = f"asks for an interval of {check['interval']}, and Consul runs no check more often than every second"
        yield broken("interval-under-1s", place, message, "write 1s or more: readers should see what is so")
    default = _DEFAULT_TIMEOUT_SECONDS.get(kind, _OTHER_TIMEOUT_SECONDS)
    timeout = default if "timeout" not in check else duration_seconds(check["timeout"])
    if timeout is not None and timeout > max(interval, INTERVAL_FLOOR_SECONDS):
        says = (
            f"its time-out is {check['timeout']}" if "timeout" in check else f"without a time-out it has {default:g}s"
        )
        message = (
            f"{says}, longer than its interval of {check['interval']}: a hanging service is noticed that much later"
        )
        yield broken("timeout-over-interval", place, message, "set a time-out below the interval")


def _threshold(check: Fields, place: str) -> Iterator[Finding]:
    failures = check.get("failures_before_critical", 0)
    if not isinstance(failures, int) or failures < 1:
        message = "turns critical by a single failure: one lost packet takes the service out of DNS"
        yield broken(
            "no-threshold", place, message, "set failures_before_critical: 2 (or more, with a shorter interval)"
        )


def _ttl(check: Fields, place: str) -> Iterator[Finding]:
    ttl = duration_seconds(check.get("ttl"))
    if ttl is not None and ttl < SHORTEST_TTL_SECONDS:
        message = f"its TTL is {check['ttl']}: a short pause of whoever feeds it is taken for a failure"
        remedy = f"set it to {SHORTEST_TTL_SECONDS:g}s or more, and feed it three times in each"
        yield broken("ttl-too-short", place, message, remedy)


def _removal(check: Fields, place: str, recoverable: float) -> Iterator[Finding]:
    after = duration_seconds(check.get("deregister_critical_service_after"))
    if not after:  # without one, or with 0, Consul removes nothing
        return
    said = check["deregister_critical_service_after"]
    remedy = f"drop it, or set it far above {recoverable / 60:g} minutes"
    if after < REMOVAL_FLOOR_SECONDS:
        message = f"deregister_critical_service_after is {said}, and Consul waits for a minute at least"
        yield broken("deregister-under-1m", place, message, remedy)
    elif after < recoverable:
        message = (
            f"deregister_critical_service_after is {said}: the service is forgotten during an outage that it can still "
            f"recover from ({recoverable / 60:g} minutes)"
        )
        yield broken("deregister-too-soon", place, message, remedy)


def _duplicates(registrations: Iterable[Registration]) -> Iterator[Finding]:
    """Ids that occur twice on one agent; Consul would let the later one take the place of the earlier."""
    services: dict[tuple[str, str], list[str]] = defaultdict(list)
    checks: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in registrations:
        name = str(one.service.get("name"))
        services[one.node, str(one.service.get("id") or name)].append(name)
        for check in _checks(one.service):
            if check.get("id"):
                checks[one.node, str(check["id"])].append(name)
    remedy = "ids are unique on an agent: put the instance's id in front, as the shipped templates do"
    for code, what, owners in (("duplicate-service-id", "service", services), ("duplicate-check-id", "check", checks)):
        for (node, identifier), names in owners.items():
            if len(names) > 1:
                message = f"{what} id {identifier!r} is used {len(names)} times, and Consul keeps only the last one"
                yield broken(code, f"{', '.join(dict.fromkeys(names))} on {node}", message, remedy)
