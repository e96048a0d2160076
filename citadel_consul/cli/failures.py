"""What an error means for a person and for the exit status.

Exit status: 0 done, 1 the operation failed, 2 bad input, 3 Consul unreachable or no leader in time, 4 refused. Besides
these, 130 after Ctrl-C and 141 when the reader of a pipe has gone, as shells have it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import click

from citadel_consul.cli.printing import colours_wanted
from citadel_consul.errors import (
    BackendUnavailable,
    CitadelError,
    Conflict,
    ConsulRefused,
    ConsulUnavailable,
    InvalidInput,
    NoLeader,
    PermissionDenied,
    Refused,
)

DONE, FAILED, BAD_INPUT, UNREACHABLE, REFUSED = range(5)
INTERRUPTED = 130
READER_GONE = 141

_HINTS: tuple[tuple[type[CitadelError], str], ...] = (
    (
        ConsulUnavailable,
        "Is Consul running there? CONSUL_HTTP_ADDR or --consul-address says where it is (citadel config shows it).",
    ),
    (
        PermissionDenied,
        "A token is given by CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_TOKEN or --consul-token-file.",
    ),
    (Conflict, "Somebody else was faster: look at what is there now, and repeat it if you still want it."),
)


def exit_status(error: CitadelError) -> int:
    """The exit status that says what kind of failure it was."""
    if isinstance(error, InvalidInput):
        return BAD_INPUT
    if isinstance(error, ConsulUnavailable | NoLeader | BackendUnavailable):
        return UNREACHABLE
    if isinstance(error, Refused | ConsulRefused | Conflict):
        return REFUSED
    return FAILED


def report(error: CitadelError) -> int:
    """Say on standard error what went wrong and what can be done; returns the exit status."""
    label = click.style("error", fg="red") if colours_wanted() else "error"
    for line in str(error).splitlines() or [type(error).__name__]:
        click.echo(f"{label}: {line}", err=True)
    hint = next((text for kind, text in _HINTS if isinstance(error, kind)), None)
    if hint is not None:
        click.echo(hint, err=True)
    return exit_status(error)


def report_group(group: BaseExceptionGroup[BaseException]) -> int:
    """Say what a group of tasks failed of; anything but our own errors is a bug and keeps its traceback.

    Tasks that fail side by side for want of Consul all say the same, so each kind of error is said once.
    """
    leaves = list(_leaves(group))
    if all(isinstance(leaf, BrokenPipeError) for leaf in leaves):
        return reader_gone()
    if all(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return INTERRUPTED
    first_of_kind: dict[type[CitadelError], CitadelError] = {}
    for leaf in leaves:
        if not isinstance(leaf, CitadelError):
            raise group
        first_of_kind.setdefault(type(leaf), leaf)
    return max(report(error) for error in first_of_kind.values())


def reader_gone() -> int:
    """End quietly when nobody reads any more (``citadel events | head -1``); returns the exit status."""
    # The interpreter flushes once more at its end, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return READER_GONE


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
