"""Waiting for Consul: what a process that is of no use without it does when it comes up first."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from citadel_consul.errors import TemporaryError

log = logging.getLogger(__name__)
T = TypeVar("T")

LONGEST_PAUSE_SECONDS: Final = 5.0


async def patiently(call: Callable[[], Awaitable[T]], longest_pause_seconds: float = LONGEST_PAUSE_SECONDS) -> T:
    """The result of ``call``, however long Consul takes to answer; only what time can heal is tried again."""
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(TemporaryError),
        wait=wait_random_exponential(multiplier=0.1, max=longest_pause_seconds),
        before_sleep=_say,
    )

    async def attempt() -> T:  # tenacity awaits only what it knows to be a coroutine function
        return await call()

    return await retrying(attempt)


def _say(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    log.warning("waiting for Consul: %s", error)
