"""The one error tree.

The *type* of an error says whether trying again can help; nobody parses messages, which are for people.
Consul refusing a request and Consul being absent are different types, because the first is an answer and the
second is none: a caller that mixes them up either retries for ever what will never work, or gives up on what
would have worked a second later.

    CitadelError
    ├── TemporaryError            the same call can succeed later
    │   ├── ConsulUnavailable     no answer: refused connection, time-out, no cluster leader, a 5xx
    │   ├── Conflict              a compare-and-set lost; look again and decide anew
    │   ├── BackendUnavailable    the service manager does not answer
    │   ├── ReceiverUnavailable   a receiver of notifications does not take one now
    │   └── NoLeader              no orchestrator took the operation in time
    └── PermanentError            the same call will fail again
        ├── ConsulRefused         Consul answered, and the answer is no
        │   ├── PermissionDenied
        │   ├── NotFound
        │   └── LeadershipLost    a fenced write came from a deposed leader
        ├── InvalidInput          a list of problems, each with its place and its remedy
        ├── Refused               a rule of citadel forbids it
        ├── BackendError          the service manager says that it cannot
        ├── ReceiverRefused       a receiver of notifications will not take this one
        └── OperationFailed       the operation ended, and not well
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class CitadelError(Exception):
    """Root of every error that citadel raises on purpose."""


class TemporaryError(CitadelError):
    """The same call can succeed later: the only kind that may be retried."""


class PermanentError(CitadelError):
    """The same call will fail again: report it, never retry it."""


class ConsulUnavailable(TemporaryError):
    """Consul gave no usable answer: refused, timed out, without a leader, or a 5xx."""


class Conflict(TemporaryError):
    """A compare-and-set lost against another writer; nothing was written."""


class BackendUnavailable(TemporaryError):
    """The service manager (D-Bus, Docker engine, …) does not answer at the moment."""


class ReceiverUnavailable(TemporaryError):
    """A receiver of notifications did not take one: no connection, a time-out, a 5xx, a command that failed."""


class NoLeader(TemporaryError):
    """No orchestrator took the operation within the time given."""


class ConsulRefused(PermanentError):
    """Consul answered, and the answer is no. ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class PermissionDenied(ConsulRefused):
    """Consul's ACLs do not allow this token to do it (HTTP 401 or 403)."""

    def __init__(self, message: str, status: int = 403) -> None:
        super().__init__(message, status)


class NotFound(ConsulRefused):
    """The thing asked for does not exist (HTTP 404)."""

    def __init__(self, message: str, status: int = 404) -> None:
        super().__init__(message, status)


class LeadershipLost(ConsulRefused):
    """A fenced write found the leader lock under another session; nothing was written."""

    def __init__(self, message: str, status: int = 409) -> None:
        super().__init__(message, status)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input: where, what, and what to do about it."""

    place: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{text} ({self.remedy})" if self.remedy else text


class InvalidInput(PermanentError):
    """Bad input. ``problems`` holds all that was found, not just the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def at(cls, place: str, message: str, remedy: str = "") -> InvalidInput:
        """An error with a single problem."""
        return cls([Problem(place, message, remedy)])


class Refused(PermanentError):
    """A rule of citadel forbids the request; the message names the rule and the way round it."""


class BackendError(PermanentError):
    """The service manager answered that it cannot do it (no such program, unit masked, …)."""


class ReceiverRefused(PermanentError):
    """A receiver of notifications will not take this one, however often it is sent (a 4xx, no such command)."""


class OperationFailed(PermanentError):
    """An operation ended as failed or cancelled."""
