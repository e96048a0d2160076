"""Instances for tests, and numbers that are drawn as the test wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from citadel_consul.consul.instances import Instance


def instance(
    port: int, status: str = "passing", weight: int = 10, node: str = "n1", tags: tuple[str, ...] = ()
) -> Instance:
    """The instance of ``web`` at a port of 10.0.0.1."""
    return Instance(f"web-{port}", "web", node, "dc1", "10.0.0.1", port, status, weight, tags)


def drawn(*numbers: float) -> Callable[[], float]:
    """A source of random numbers that gives these, and fails when there are none left."""
    left: Iterator[float] = iter(numbers)
    return lambda: next(left)


class Clock:
    """A clock that stands still unless the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now
