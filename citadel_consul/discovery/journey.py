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

A request of a safe method whose answer is unusually late may go two ways at once (see ``hedge``).

Second ways, and attempts after a time-out, are bounded by a budget, lest they add to what made everything slow.

With a deadline no attempt may take what the others need: one that has alternatives gets half of the time that is left.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import lru_cache
from time import monotonic
from typing import Any, Final

import httpx
from tenacity import RetryCallState, retry_if_exception_type
from tenacity.retry import RetryBaseT
from tenacity.stop import StopBaseT
from tenacity.wait import WaitBaseT

from citadel_consul.consul.instances import Instance
from citadel_consul.discovery.balancer import Outcome
from citadel_consul.discovery.budget import Budget
from citadel_consul.discovery.failures import DeadlineExceeded
from citadel_consul.discovery.view import View
from citadel_consul.errors import TemporaryError

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
IDEMPOTENT: Final = SAFE | {"PUT", "DELETE"}
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
    """How often a request is tried, and within which time unless it says otherwise (None: httpx's time-outs alone).

    ``hedging`` says whether it may go two ways at once.
    """

    attempts: int = ATTEMPTS
    deadline_seconds: float | None = None
    hedging: bool = False
    clock: Callable[[], float] = monotonic
    draw: Callable[[], float] = random.random
    budget: Budget = field(default_factory=Budget)


@dataclass(slots=True, eq=False)
class Attempt:
    """A request to ``instance``, sent at ``began`` by the clock of the rules."""

    instance: Instance
    began: float


class Journey:
    """The attempts to have ``request`` answered by an instance of the service of ``view``."""

    def __init__(self, request: httpx.Request, view: View, rules: Rules) -> None:
        self._request = request
        self._view = view
        self._rules = rules
        self._tried: set[str] = set()
        self._under_way: list[Attempt] = []
        self._made = 0
        self._answered: Attempt | None = None
        self._repeatable: bool | None = None
        self._pauses = 0
        self._owed = False  # an attempt was cut short for the sake of the next, so there has to be a next
        seconds = request.extensions.get("deadline", rules.deadline_seconds)
        self._deadline = None if seconds is None else rules.clock() + float(seconds)
        rules.budget.fill()

    def choose(self) -> Attempt:
        """Begin the next attempt. Raises Interrupted with NoInstance if nobody serves."""
        self._made += 1
        instance = self._view.acquire(self._avoided())
        if instance is None:
            raise Interrupted(self._view.nobody())
        attempt = Attempt(instance, self._rules.clock())
        self._under_way.append(attempt)
        return attempt

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

    def responded(self, attempt: Attempt) -> None:
        """The instance has begun to answer."""
        self._answered = self._answered or attempt
        self._view.pace.note(self._rules.clock() - attempt.began)

    def answered(self, attempt: Attempt) -> None:
        """The instance has answered, whatever it said, and the answer was read."""
        self._end(attempt, Outcome.ANSWERED)

    def abandoned(self, attempt: Attempt) -> None:
        """The attempt was given up: by the caller, or because one that began later was answered sooner.

        The latter says of the instance what a time-out says.
        """
        outrun = self._answered is not None and self._answered.began > attempt.began
        if outrun:
            self._view.pace.note(self._rules.clock() - attempt.began)
        self._end(attempt, Outcome.TIMED_OUT if outrun else Outcome.UNKNOWN)

    def failed(self, attempt: Attempt, error: httpx.TransportError) -> httpx.TransportError | Interrupted:
        """Take note that the attempt failed; what to raise: Interrupted if another one may be made."""
        if isinstance(error, _BROKEN):
            outcome = Outcome.BROKEN
        else:
            outcome = Outcome.TIMED_OUT if isinstance(error, _TIMED_OUT) else Outcome.UNKNOWN
        self._end(attempt, outcome)
        if outcome is Outcome.UNKNOWN:  # our own pool is full, or the request cannot be sent to anybody
            return error
        self._view.use()
        self._tried.add(attempt.instance.address)
        if self._over():
            return self._too_late(error)
        if isinstance(error, _UNSENT) or (self._may_repeat() and self._can_afford(outcome)):
            return Interrupted(error)
        return error

    @property
    def patience_seconds(self) -> float | None:
        """How long to wait for an answer before the request goes a second way as well; None if it must not.

        Not every request that may be repeated may be under way twice: of two PUTs the slow one could undo a later PUT.
        """
        if not self._rules.hedging or self._request.method not in SAFE or not self._may_repeat():
            return None
        return self._view.pace.patience_seconds

    def may_part(self) -> bool:
        """Whether the request may go a second way now, which is then counted as an attempt after a time-out."""
        return (
            self._made < self._rules.attempts
            and self._view.balancer.untried(self._avoided())
            and self._rules.budget.take()
        )

    @property
    def exhausted(self) -> bool:
        """Whether no attempt is left."""
        return self._made >= self._rules.attempts

    def policy(self) -> tuple[StopBaseT, WaitBaseT, RetryBaseT]:
        """For tenacity: when to stop, how long to wait, what to try again. For the attempts after the first."""

        def stop(_: RetryCallState) -> bool:
            return self.exhausted or self._over()

        def wait(_: RetryCallState) -> float:
            return self.pause_seconds()

        return stop, wait, retry_if_exception_type(Interrupted)

    def pause_seconds(self) -> float:
        """How long to wait before the next attempt."""
        if self._view.balancer.untried(self._avoided()):
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
        self._owed = self._owed or alternatives
        return left / 2 if alternatives else left

    def _avoided(self) -> Collection[str]:
        """Where the next attempt should not go: where one failed, or is under way."""
        if not self._under_way:
            return self._tried
        return {*self._tried, *[attempt.instance.address for attempt in self._under_way]}

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        self._under_way.remove(attempt)
        self._view.balancer.release(attempt.instance, outcome)

    def _may_repeat(self) -> bool:
        if self._repeatable is None:
            request = self._request
            safe = request.method in IDEMPOTENT or "idempotency-key" in request.headers
            # A body that comes from an iterator is gone once it was sent.
            self._repeatable = safe and isinstance(request.stream, httpx.ByteStream)
        return self._repeatable

    def _can_afford(self, outcome: Outcome) -> bool:
        if outcome is not Outcome.TIMED_OUT:
            return True
        owed, self._owed = self._owed, False
        return self._rules.budget.take(owed=owed)

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
