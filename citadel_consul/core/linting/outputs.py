"""Judging what running checks print.

A changing output wakes everybody who watches health, and is written through Raft, although nothing has happened.
Whether an output changes is seen by looking twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from citadel_consul.core.finding import Finding
from citadel_consul.core.linting.rules import broken

_REMEDY: Final = (
    "answer the check with what is constant while nothing happens, and show figures under another path (or check with "
    "method: HEAD, which has no body)"
)
_SHOWN: Final = 32


@dataclass(frozen=True, slots=True)
class Printed:
    """What a check printed last, and in which status. ``place`` names it for people."""

    place: str
    status: str
    output: str


def lint_outputs(earlier: Mapping[str, Printed], later: Mapping[str, Printed]) -> tuple[Finding, ...]:
    """The checks, by id, whose output has changed while their status has not."""
    return tuple(
        _changed(earlier[i], now) for i, now in later.items() if i in earlier and _is_volatile(earlier[i], now)
    )


def _is_volatile(before: Printed, now: Printed) -> bool:
    # One that was registered with a status has printed nothing before its first run.
    return before.status == now.status and before.output not in ("", now.output)


def _changed(before: Printed, now: Printed) -> Finding:
    message = f"prints something else each time, though it stays {now.status}: {_difference(before.output, now.output)}"
    return broken("volatile-output", now.place, message, _REMEDY)


def _difference(before: str, now: str) -> str:
    """Where two texts part, with a little of what stands before it."""
    at = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False)))
    begin = max(0, at - _SHOWN // 2)
    return f"…{_shown(before[begin:])} became …{_shown(now[begin:])}"


def _shown(text: str) -> str:
    return " ".join(text[:_SHOWN].split()) + ("…" if len(text) > _SHOWN else "")
