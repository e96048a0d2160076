"""How many requests may be repeated because no answer came in time.

When everything is slow, because the service has more to do than it can, each attempt that answers a time-out gives it
more to do still. So such attempts are a share of all requests, and a handful in reserve for the instance that hangs by
itself. Refused and broken connections are not counted: they cost little, and are no sign of too much work.
"""

from __future__ import annotations

import threading
from typing import Final

SHARE: Final = 0.2
RESERVE: Final = 10.0


class Budget:
    """Filled by ``share`` for each request, up to ``reserve``. Threads may share it."""

    def __init__(self, share: float = SHARE, reserve: float = RESERVE) -> None:
        self._share = share
        self._reserve = reserve
        self._left = reserve
        self._lock = threading.Lock()

    @property
    def left(self) -> bool:
        """Whether there is enough for another attempt."""
        return self._left >= 1.0

    def fill(self) -> None:
        """Count a request."""
        if self._left < self._reserve:
            with self._lock:
                self._left = min(self._reserve, self._left + self._share)

    def take(self, *, owed: bool = False) -> bool:
        """Spend one attempt; False if there is not enough for it.

        One that is ``owed`` may be had on credit, up to ``reserve``; nobody else has any until that is made up for.
        """
        with self._lock:
            if self._left < 1.0 and not owed:
                return False
            self._left = max(self._left - 1.0, -self._reserve)
            return True
