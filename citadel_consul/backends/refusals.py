"""Refusals of the operating system in the words of the error tree."""

from __future__ import annotations

import errno

from citadel_consul.errors import BackendError, BackendUnavailable

# They pass by themselves: processes, memory, descriptors, disk, a binary that is just being replaced.
_TEMPORARY = frozenset(
    {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.ETXTBSY}
)


def can_pass(error: OSError) -> bool:
    """Whether the same call can succeed later without anybody changing the spec or the machine's set-up."""
    return error.errno in _TEMPORARY


def translated(place: str, error: OSError) -> BackendError | BackendUnavailable:
    """The error to raise for a refusal. ``place`` says what was attempted, for people."""
    message = f"{place}: {error.strerror or error}"
    return BackendUnavailable(message) if can_pass(error) else BackendError(message)
