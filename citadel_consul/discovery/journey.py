"""One request on its way to an instance, and to another one if need be; without any I/O, for both transports.

What may be tried again, and where:

======================================  ==================================================================
the connection could not be made        any request: nothing of it was sent
the connection broke, or no answer      requests that may be repeated: those of an idempotent method
came in time                            (RFC 9110, 9.2.2) or with an ``Idempotency-Key``, whose body can be
                                        sent twice
an answer came, of whatever status      none: an answer is an answer
======================================  ==================================================================

The next attempt goes at once to an instance that was not tried; when all were, it waits a little and starts over.

Attempts after a time-out are bounded by a budget, lest they add to what made everything slow.

With a deadline no attempt may take what the others need: one that has alternatives gets half of the time that is left.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from time import monotonic
from typing import Any, Final

import httpx
from tenacity import RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.retry import RetryBaseT
from tenacity.stop import StopBaseT
from tenacity.wait import WaitBaseT

from citadel_consul.consul.instances import Instance
from citadel_consul.discovery.balancer import Outcome
from citadel_consul.discovery.budget import Budget
from citadel_consul.discovery.failures import DeadlineExceeded
from citadel_consul.discovery.view import View
from citadel_consul.errors import TemporaryError

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
ATTEMPTS: Final = 5
FIRST_PAUSE_SECONDS: Final = 0.025
LONGEST_PAUSE_SECONDS: Final = 0.5
WHOLE_BYTES: Final = 64 * 1024
"""An answer up to this size is read before it is handed over, so that one which breaks off can be asked for again."""

GRACE_SECONDS: Final = 0.1

_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout)
_BROKEN: Final = (*_UNSENT, httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)
_TIMED_OUT: Final = (httpx.ReadTimeout, httpx.WriteTimeout)


class Interrupted(TemporaryError):
    """An attempt failed with ``error``, and another one may be made."""

    def __init__(self, error: httpx.TransportError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class Rules:
    """How often a request is tried, and within which time unless it says otherwise (None: httpx's time-outs alone)."""

    attempts: int = ATTEMPTS
    deadline_seconds: float | None = None
    clock: Callable[[], float] = monotonic
    draw: Callable[[], float] = random.random
    budget: Budget = field(default_factory=Budget)


class Journey:
    """The attempts to have ``request`` answered by an instance of the service of ``view``."""

    def __init__(self, request: httpx.Request, view: View, rules: Rules) -> None:
        self._request = request
        self._view = view
        self._rules = rules
        self._tried: set[str] = set()
        self._repeatable: bool | None = None
        self._pauses = 0
        seconds = request.extensions.get("deadline", rules.deadline_seconds)
        self._deadline = None if seconds is None else rules.clock() + float(seconds)
        rules.budget.fill()

    def choose(self) -> Instance:
        """The instance for the next attempt. Raises Interrupted with NoInstance if nobody serves."""
        instance = self._view.acquire(self._tried)
        if instance is None:
            raise Interrupted(self._view.nobody())
        return instance

    def addressed_to(self, instance: Instance) -> httpx.Request:
        """The request as it is sent to ``instance``: its ``Host``, and the name in TLS, stay those of the service."""
        request, url = self._request, self._request.url
        extensions = request.extensions
        seconds = self._seconds()
        if seconds is not None:
            timeouts = extensions.get("timeout", {})
            bounded = {part: _smaller(timeouts.get(part), seconds) for part in ("connect", "read", "write", "pool")}
            extensions = {**extensions, "timeout": bounded}
        if url.scheme == "https":
            extensions = {"sni_hostname": url.host, **extensions}
        return httpx.Request(
            request.method,
            _url(url.scheme, replace(instance, port=url.port).address if url.port else instance.address, url.raw_path),
            headers=request.headers,
            stream=request.stream,
            extensions=extensions,
        )

    def answered(self, instance: Instance) -> None:
        """``instance`` has answered, whatever it said, and the answer was read."""
        self._view.balancer.release(instance, Outcome.ANSWERED)

    def abandoned(self, instance: Instance) -> None:
        """The attempt was given up by the caller."""
        self._view.balancer.release(instance, Outcome.UNKNOWN)

    def failed(self, instance: Instance, error: httpx.TransportError) -> httpx.TransportError | Interrupted:
        """Take note that the attempt at ``instance`` failed; what to raise: Interrupted if it may be tried again."""
        if isinstance(error, _BROKEN):
            outcome = Outcome.BROKEN
        else:
            outcome = Outcome.TIMED_OUT if isinstance(error, _TIMED_OUT) else Outcome.UNKNOWN
        self._view.balancer.release(instance, outcome)
        if outcome is Outcome.UNKNOWN:  # our own pool is full, or the request cannot be sent to anybody
            return error
        self._view.use()
        self._tried.add(instance.address)
        if self._over():
            return self._too_late(error)
        if isinstance(error, _UNSENT) or (self._may_repeat() and self._can_afford(outcome)):
            return Interrupted(error)
        return error

    def policy(self) -> tuple[StopBaseT, WaitBaseT, RetryBaseT]:
        """For tenacity: when to stop, how long to wait, what to try again. For the attempts after the first."""

        def stop(state: RetryCallState) -> bool:
            return stop_after_attempt(self._rules.attempts - 1)(state) or self._over()

        def wait(_: RetryCallState) -> float:
            return self.pause_seconds()

        return stop, wait, retry_if_exception_type(Interrupted)

    def pause_seconds(self) -> float:
        """How long to wait before the next attempt."""
        if self._view.balancer.untried(self._tried):
            return 0.0
        self._tried.clear()
        step = min(FIRST_PAUSE_SECONDS * 2.0**self._pauses, LONGEST_PAUSE_SECONDS)
        self._pauses += 1
        pause = step * (1 + self._rules.draw()) / 2
        return pause if self._deadline is None else max(0.0, min(pause, self._deadline - self._rules.clock()))

    @property
    def limit_seconds(self) -> float | None:
        """When to break off what its own time-outs did not end; a little after them, for breaking off is not clean."""
        left = self._left_seconds
        return None if left is None else left + GRACE_SECONDS

    @property
    def _left_seconds(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - self._rules.clock())

    def outcome(self, last: Interrupted) -> httpx.TransportError:
        """What the caller is told when no attempt is left."""
        return self._too_late(last.error) if self._over() else last.error

    def _seconds(self) -> float | None:
        """The time that the attempt may take."""
        left = self._left_seconds
        if left is None or not self._may_repeat() or not self._rules.budget.left:
            return left
        alternatives = len({one.address for one in self._view.instances} - self._tried) > 1
        return left / 2 if alternatives else left

    def _may_repeat(self) -> bool:
        if self._repeatable is None:
            request = self._request
            safe = request.method in IDEMPOTENT or "idempotency-key" in request.headers
            # A body that comes from an iterator is gone once it was sent.
            self._repeatable = safe and isinstance(request.stream, httpx.ByteStream)
        return self._repeatable

    def _can_afford(self, outcome: Outcome) -> bool:
        return outcome is not Outcome.TIMED_OUT or self._rules.budget.take()

    def _over(self) -> bool:
        return self._deadline is not None and self._rules.clock() >= self._deadline

    def _too_late(self, error: httpx.TransportError) -> DeadlineExceeded:
        late = DeadlineExceeded(f"the deadline is over; at last: {str(error) or type(error).__name__}")
        late.__cause__ = error
        return late


def is_whole(response: httpx.Response) -> bool:
    """Whether the answer is to be read before it is handed over: its length is known, and small."""
    length = response.headers.get("content-length", "")
    return length.isdecimal() and int(length) <= WHOLE_BYTES


def _smaller(seconds: Any, bound: float) -> float:
    return bound if seconds is None else min(float(seconds), bound)


@lru_cache(maxsize=1024)
def _url(scheme: str, address: str, raw_path: bytes) -> httpx.URL:
    """The URL of a resource at an instance. Parsing one takes 25 µs, and many requests ask for the same."""
    return httpx.URL(f"{scheme}://{address}{raw_path.decode('ascii')}")
