"""The figures a service measures about itself: what ``/health`` shows. None of them is estimated."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

WINDOW_SECONDS = 60.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


def memory_usage_mb() -> float:
    """The resident memory of this process in MB (1e6 bytes), as the kernel counts it."""
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(resident_pages * _PAGE / 1e6, 1)


@dataclass(slots=True)
class _Second:
    """The requests that ended within one second."""

    at: int
    requests: int = 0
    errors: int = 0
    seconds: float = 0.0


class Vitals:
    """Counts requests over a sliding window of 60 seconds, in buckets of one second."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._window: deque[_Second] = deque()
        self.total = 0

    def record(self, seconds: float, *, failed: bool) -> None:
        """Count one request that took ``seconds``; ``failed`` means that the service, not the caller, is at fault."""
        bucket = self._bucket()
        bucket.requests += 1
        bucket.errors += failed
        bucket.seconds += seconds
        self.total += 1

    def _bucket(self) -> _Second:
        now = int(self._clock())
        self._forget(now)
        if not self._window or self._window[-1].at != now:
            self._window.append(_Second(now))
        return self._window[-1]

    def _forget(self, now: int) -> None:
        while self._window and self._window[0].at <= now - WINDOW_SECONDS:
            self._window.popleft()

    def figures(self) -> dict[str, float]:
        """Uptime, rate (requests a second), errors (percent of requests) and mean response time of the window."""
        now = self._clock()
        self._forget(int(now))
        requests = sum(bucket.requests for bucket in self._window)
        errors = sum(bucket.errors for bucket in self._window)
        spent = sum(bucket.seconds for bucket in self._window)
        seen = min(WINDOW_SECONDS, max(now - self._started, 1.0))
        return {
            "uptime_seconds": round(now - self._started, 1),
            "memory_usage_mb": memory_usage_mb(),
            "requests_total": self.total,
            "request_rate": round(requests / seen, 2),
            "error_rate": round(100.0 * errors / requests, 2) if requests else 0.0,
            "mean_response_ms": round(1000.0 * spent / requests, 2) if requests else 0.0,
        }
