"""What can go wrong between a client and the instances of a service.

The errors are citadel's, so that their type says that trying again can help, and httpx's, so that code which handles
httpx's errors handles these without knowing of them.
"""

from __future__ import annotations

import httpx

from citadel_consul.errors import TemporaryError


class NoInstance(httpx.ConnectError, TemporaryError):
    """Nobody serves it at the moment, as far as is known."""


class DeadlineExceeded(httpx.TimeoutException, TemporaryError):
    """The request's deadline is over, all attempts together."""
