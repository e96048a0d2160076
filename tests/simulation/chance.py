"""Has all that citadel takes for time and chance come from a loop and a seed."""

from __future__ import annotations

import contextlib
import functools
import random
import sys
import time
import uuid
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType
from typing import Any
from unittest import mock

from clockwork import SimulatedLoop

from citadel_consul.store import identifiers


@contextlib.contextmanager
def everything_drawn_from(seed: int, loop: SimulatedLoop) -> Iterator[None]:
    """Have all that citadel takes for time and chance come from the loop and the seed."""
    random.seed(seed)
    own = random.Random(seed ^ 0x5EED)
    ids = mock.Mock(choice=own.choice)

    def unique() -> uuid.UUID:
        return uuid.UUID(int=own.getrandbits(128), version=4)

    with (
        _clocks_of_defaults(loop),
        mock.patch.object(time, "monotonic", loop.time),
        mock.patch.object(time, "time", loop.wall),
        mock.patch.object(uuid, "uuid4", unique),
        mock.patch.object(identifiers, "secrets", ids),
    ):
        yield


@contextlib.contextmanager
def _clocks_of_defaults(loop: SimulatedLoop) -> Iterator[None]:
    """Clocks that are the default of an argument were bound when the function was made."""
    clocks = {time.monotonic: loop.time, time.time: loop.wall}
    changed: list[tuple[dict[str, Any], str, Any]] = []
    for function in _functions_of_citadel():
        defaults = function.__kwdefaults__ or {}
        for name, value in defaults.items():
            if isinstance(value, BuiltinFunctionType) and value in clocks:
                changed.append((defaults, name, value))
    for defaults, name, value in changed:
        defaults[name] = clocks[value]
    try:
        yield
    finally:
        for defaults, name, value in changed:
            defaults[name] = value


@functools.cache
def _functions_of_citadel() -> tuple[FunctionType, ...]:
    modules = [module for name, module in sys.modules.items() if name.startswith("citadel_consul")]
    found: dict[int, FunctionType] = {}
    for module in modules:
        for value in list(vars(module).values()):
            members = vars(value).values() if isinstance(value, type) else (value,)
            found.update((id(member), member) for member in members if isinstance(member, FunctionType))
    return tuple(found.values())
