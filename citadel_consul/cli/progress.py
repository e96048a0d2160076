"""Following an operation: a live table on a terminal, a line for each change when piped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import click

from citadel_consul.cli.printing import coloured, is_terminal
from citadel_consul.core.operation import Operation, OperationState, Step, StepState
from citadel_consul.errors import OperationFailed

if TYPE_CHECKING:
    from citadel_consul.consul.client import ConsulClient
    from citadel_consul.store.keys import Keys

MARKS = {
    StepState.WAITING: "·",
    StepState.RUNNING: "…",
    StepState.SUCCEEDED: "✔",
    StepState.FAILED: "✘",
    StepState.SKIPPED: "-",
}
WORDS = {
    StepState.SUCCEEDED: "succeeded",
    StepState.FAILED: "failed",
    StepState.SKIPPED: "skipped",
    StepState.RUNNING: "running",
}
STYLES = {
    StepState.SUCCEEDED: "green",
    StepState.FAILED: "red",
    StepState.SKIPPED: "yellow",
    StepState.RUNNING: "cyan",
}


class Display(Protocol):
    """Shows an operation as it goes on."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, operation: Operation) -> None: ...


async def follow_to_end(
    client: ConsulClient, keys: Keys, operation: Operation, display: Display, *, timeout_seconds: float | None = None
) -> Operation:
    """Show ``operation`` until it has ended, or ``timeout_seconds`` are over; returns it as it stands then.

    Raises NoLeader or ConsulUnavailable if either is away for longer than is waited out.
    """
    from citadel_consul.cli.following import follow_patiently

    last = operation
    with display:
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                aclosing(follow_patiently(client, keys, operation.id)) as changes,
            ):
                async for last in changes:
                    display.show(last)
        except TimeoutError:
            return last
    return last


def display_for(output: str) -> Display:
    """The display that suits where the output goes; machine-readable output shows nothing on the way."""
    if output != "table":
        return Silent()
    if not is_terminal():
        return Lines()
    from citadel_consul.cli.livetable import LiveTable

    return LiveTable()


def raise_unless_succeeded(operation: Operation) -> None:
    """Turn an operation that did not end well into the error that sets the exit status."""
    if operation.state is not OperationState.SUCCEEDED:
        raise OperationFailed(f"{operation.kind} {operation.state}: {operation.detail}")


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, operation: Operation) -> None:
        """Nothing."""


class Lines:
    """Prints a line for each step that moved: for pipes and log files."""

    def __init__(self, write: Callable[[str], None] = click.echo) -> None:
        self._write = write
        self._seen: dict[int, StepState] = {}
        self._waits_for: str | None = None
        self._named = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, operation: Operation) -> None:
        if not self._named:
            self._named = True
            self._write(f"{operation.kind} of {', '.join(operation.targets)}: operation {operation.id}")
        if operation.waits_for is not None and operation.waits_for != self._waits_for:
            self._write(f"{operation.kind} waits for operation {operation.waits_for} to end")
        self._waits_for = operation.waits_for
        for position, step in enumerate(operation.steps):
            before = self._seen.get(position, StepState.WAITING)
            if step.state is not before:
                self._seen[position] = step.state
                self._write(_step_line(operation, step))
        if operation.ended:
            self._write(coloured(operation.state, end_line(operation)))


def _step_line(operation: Operation, step: Step) -> str:
    clock = f"{max(0.0, (step.ended_at or step.began_at or 0.0) - (operation.started_at or 0.0)):7.2f}s"
    if step.ended_at is None and step.began_at is None:
        clock = " " * 8
    words = f"{MARKS[step.state]} {step.action:<5} {step.instance}"
    seconds = seconds_of(step)
    took = f" ({seconds:.2f} s)" if seconds is not None and step.state is StepState.SUCCEEDED else ""
    why = f": {step.detail}" if step.detail else ""
    return coloured(WORDS.get(step.state, ""), f"{clock}  {words}{took}{why}")


def end_line(operation: Operation) -> str:
    """How an operation ended, in one line; why is said by the error that follows from it."""
    seconds = (operation.ended_at or 0.0) - (operation.started_at or operation.ended_at or 0.0)
    done = sum(step.state is StepState.SUCCEEDED for step in operation.steps)
    return f"{operation.kind} {operation.state} ({done} of {len(operation.steps)} steps, {seconds:.2f} s)"


def seconds_of(step: Step) -> float | None:
    """How long a step took, or has taken so far; None if it has not begun."""
    if step.began_at is None:
        return None
    return (step.ended_at or time.time()) - step.began_at
