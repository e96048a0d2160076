"""Following an operation: a live table on a terminal, a line for each change when piped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import click

from citadel_consul.cli.printing import coloured, is_terminal
from citadel_consul.core.operation import Operation, OperationState, Step, StepState
from citadel_consul.errors import NoLeader, OperationFailed

if TYPE_CHECKING:
    from rich.table import Table

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
LEADER_SECONDS = 15.0
"""How long an operation may stay unnoticed before it is said that nobody leads."""


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

    Raises NoLeader if no orchestrator takes it for :data:`LEADER_SECONDS`.
    """
    from citadel_consul.store.requests import follow

    began = time.monotonic()
    last = operation
    with display:
        try:
            async with asyncio.timeout(timeout_seconds):
                async for last in follow(client, keys, operation.id):
                    display.show(last)
                    ignored = last.state is OperationState.PENDING and last.waits_for is None
                    if ignored and time.monotonic() - began > LEADER_SECONDS:
                        raise NoLeader(
                            f"no orchestrator took operation {last.id} within {LEADER_SECONDS:g} s; it stays requested "
                            f"(citadel ops cancel {last.id} takes it back)"
                        )
        except TimeoutError:
            return last
    return last


def display_for(output: str) -> Display:
    """The display that suits where the output goes; machine-readable output shows nothing on the way."""
    if output != "table":
        return Silent()
    return Live() if is_terminal() else Lines()


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
        self._began: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, operation: Operation) -> None:
        if operation.waits_for is not None and operation.waits_for != self._waits_for:
            self._write(f"{operation.kind} {operation.id} waits for operation {operation.waits_for}")
        self._waits_for = operation.waits_for
        for position, step in enumerate(operation.steps):
            before = self._seen.get(position, StepState.WAITING)
            if step.state is not before:
                self._seen[position] = step.state
                self._write(_step_line(operation, step))
        if operation.ended:
            self._write(_end_line(operation))


class Live:
    """A table that is drawn anew at each change."""

    def __init__(self) -> None:
        from rich.live import Live as RichLive

        self._live = RichLive(refresh_per_second=12, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, operation: Operation) -> None:
        self._live.update(_table(operation), refresh=True)


def _table(operation: Operation) -> Table:
    from rich.table import Table
    from rich.text import Text

    title = f"{operation.kind} {operation.id}: {operation.state}"
    if operation.waits_for is not None:
        title += f" (waits for {operation.waits_for})"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in ("", "service", "node", "step", "seconds", ""):
        table.add_column(heading, justify="right" if heading == "seconds" else "left")
    for step in operation.steps:
        style = STYLES.get(step.state, "dim")
        seconds = _seconds(step)
        shown = "" if seconds is None else f"{seconds:.2f}"
        table.add_row(MARKS[step.state], step.service, step.node, step.action, shown, Text(step.detail), style=style)
    return table


def _step_line(operation: Operation, step: Step) -> str:
    clock = f"{max(0.0, (step.ended_at or step.began_at or 0.0) - (operation.started_at or 0.0)):7.2f}s"
    if step.ended_at is None and step.began_at is None:
        clock = " " * 8
    words = f"{MARKS[step.state]} {step.action:<5} {step.instance}"
    seconds = _seconds(step)
    took = f" ({seconds:.2f} s)" if seconds is not None and step.state is StepState.SUCCEEDED else ""
    why = f": {step.detail}" if step.detail else ""
    return coloured(WORDS.get(step.state, ""), f"{clock}  {words}{took}{why}")


def _end_line(operation: Operation) -> str:
    seconds = (operation.ended_at or 0.0) - (operation.started_at or operation.ended_at or 0.0)
    done = sum(step.state is StepState.SUCCEEDED for step in operation.steps)
    why = f": {operation.detail}" if operation.detail else ""
    text = f"{operation.kind} {operation.state}{why} ({done} of {len(operation.steps)} steps, {seconds:.2f} s)"
    return coloured(operation.state, text)


def _seconds(step: Step) -> float | None:
    if step.began_at is None:
        return None
    return (step.ended_at or time.time()) - step.began_at
