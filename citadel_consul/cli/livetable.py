"""The live table of an operation on a terminal.

It is drawn anew at each change and several times a second, for the clocks in it. What does not fit the terminal is
counted instead of shown: first what is done, then what waits its turn; what runs or failed stays to the end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from citadel_consul.cli.printing import COLOURS
from citadel_consul.cli.progress import MARKS, STYLES, seconds_of
from citadel_consul.cli.spans import span
from citadel_consul.core.operation import Operation, Step, StepState

REFRESHES_PER_SECOND = 8
_DISPENSABLE = (StepState.SUCCEEDED, StepState.SKIPPED, StepState.WAITING)
_COUNTED = {StepState.SUCCEEDED: "done", StepState.SKIPPED: "skipped", StepState.WAITING: "waiting"}
_OTHER_LINES = 3
"""The heading, the counts, and the cursor's own line."""


class LiveTable:
    """Shows an operation in place."""

    def __init__(self, console: Console | None = None) -> None:
        self._operation: Operation | None = None
        self._console = console if console is not None else Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=REFRESHES_PER_SECOND, get_renderable=self._render)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, operation: Operation) -> None:
        """Take the operation as it stands now."""
        self._operation = operation
        self._live.refresh()

    def _render(self) -> Group:
        return Group() if self._operation is None else picture(self._operation, time.time(), self._console.height)


def picture(operation: Operation, now: float, height: int) -> Group:
    """An operation at ``now`` (unix seconds), in at most ``height`` lines where that can be."""
    shown, left_out = fit(operation.steps, height - _OTHER_LINES)
    parts: list[Text | Table] = [_heading(operation, now)]
    if shown:
        parts.append(_table(shown))
    if left_out:
        counts = ", ".join(f"{count} {_COUNTED[state]}" for state, count in left_out.items())
        parts.append(Text(f"   … and {counts}", style="dim"))
    return Group(*parts)


def fit(steps: Sequence[Step], room: int) -> tuple[list[Step], dict[StepState, int]]:
    """The steps to show in ``room`` lines, in their order, and how many of each state are left out."""
    shown = list(steps)
    left_out: dict[StepState, int] = {}
    for state in _DISPENSABLE:
        surplus = len(shown) - room
        if surplus <= 0:
            break
        doomed = [n for n, step in enumerate(shown) if step.state is state][-surplus:]
        if state is StepState.SUCCEEDED:  # what was done last is of more interest than what was done first
            doomed = [n for n, step in enumerate(shown) if step.state is state][:surplus]
        if doomed:
            left_out[state] = len(doomed)
            gone = set(doomed)
            shown = [step for n, step in enumerate(shown) if n not in gone]
    return shown, left_out


def _heading(operation: Operation, now: float) -> Text:
    done = sum(step.state is StepState.SUCCEEDED for step in operation.steps)
    text = Text.assemble(
        (f"{operation.kind} {' '.join(operation.targets)}", "bold"),
        "  ",
        (str(operation.state), COLOURS.get(operation.state, "")),
    )
    if operation.waits_for is not None:
        text.append(f"  waits for operation {operation.waits_for}")
    elif operation.started_at is not None:
        took = span((operation.ended_at or now) - operation.started_at)
        text.append(f"  {done} of {len(operation.steps)} steps, {took}")
    text.append(f"  {operation.id}", "dim")
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text


def _table(steps: Sequence[Step]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    several = len({step.node for step in steps}) > 1
    for justify in ("left", "left", "left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
    for step in steps:
        seconds = seconds_of(step)
        name = str(step.instance) if several else step.service
        action = f"undo: {step.action}" if step.undo else str(step.action)
        took = "" if seconds is None else f"{seconds:.2f} s"
        table.add_row(
            f" {MARKS[step.state]}", name, action, took, Text(step.detail), style=STYLES.get(step.state, "dim")
        )
    return table
