"""What can go wrong with a request; the type decides whether trying again can help.

A service answers a failure as a problem document (RFC 9457) with the status of its type.
"""

from __future__ import annotations


class Failure(Exception):
    """A request that cannot be fulfilled; ``status`` is what the caller is answered."""

    status = 500

    def __init__(self, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}


class Unavailable(Failure):
    """Something this service needs gave no answer: the same request can succeed later."""

    status = 503


class Rejected(Failure):
    """The request itself is wrong: it will be rejected again."""

    status = 400


class Unauthorized(Rejected):
    """No key, or one that does not hold."""

    status = 401


class Forbidden(Rejected):
    """A good key that does not allow this."""

    status = 403


class Missing(Rejected):
    """The thing asked for does not exist."""

    status = 404


class Clash(Rejected):
    """The request contradicts what is there."""

    status = 409


class TooMany(Rejected):
    """The caller's rate limit is used up; ``Retry-After`` says when to come back."""

    status = 429


def rejection(status: int, detail: str) -> Rejected:
    """The Rejected of an HTTP status in the four hundreds."""
    for kind in (Unauthorized, Forbidden, Missing, Clash, TooMany):
        if kind.status == status:
            return kind(detail)
    return Rejected(detail)
