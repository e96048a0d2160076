"""A circuit breaker: stops asking a provider that keeps failing, and tries again after a while.

========== ============================================ ==========================================
state      a request                                    leaves it when
========== ============================================ ==========================================
closed     goes through                                 ``threshold`` failures in a row → open
open       is refused at once                           ``cool_down_seconds`` are over → half-open
half-open  one goes through as a trial, others wait     it succeeds → closed, it fails → open
========== ============================================ ==========================================
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from time import monotonic


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The breaker of one provider."""

    def __init__(
        self, threshold: int = 3, cool_down_seconds: float = 10.0, clock: Callable[[], float] = monotonic
    ) -> None:
        self._threshold = threshold
        self._cool_down = cool_down_seconds
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._trial = False

    @property
    def state(self) -> State:
        """The state as of now."""
        if self._opened_at is None:
            return State.CLOSED
        return State.HALF_OPEN if self._clock() >= self._opened_at + self._cool_down else State.OPEN

    def admit(self) -> bool:
        """Whether a request may go through; if so, ``succeeded``, ``failed`` or ``abandoned`` must follow."""
        state = self.state
        if state is State.HALF_OPEN and not self._trial:
            self._trial = True
            return True
        return state is State.CLOSED

    def succeeded(self) -> None:
        """The request was answered."""
        self._failures, self._opened_at, self._trial = 0, None, False

    def failed(self) -> None:
        """The request was not answered."""
        self._failures += 1
        if self._trial or self._failures >= self._threshold:
            self._opened_at = self._clock()
        self._trial = False

    def abandoned(self) -> None:
        """The request was given up by its caller: that says nothing about the provider."""
        self._trial = False
