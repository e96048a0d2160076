"""What a person sees on a terminal: a table in place, with colours, that fits, and a terminal left as it was."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from subprocess import DEVNULL, Popen

import pytest
from command_line import THREE, CommandLine
from real_world import World
from rich.console import Console

from citadel_consul.cli.livetable import fit, picture
from citadel_consul.core.operation import Kind, Operation, OperationState, Step, StepAction, StepState

W, R, S, F, K = StepState.WAITING, StepState.RUNNING, StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED


def steps(*states: StepState) -> tuple[Step, ...]:
    return tuple(Step(f"s{n}", "n1", StepAction.START, state) for n, state in enumerate(states))


@pytest.mark.parametrize(
    ("states", "room", "shown", "left_out"),
    [
        ((S, R, W), 3, "s0 s1 s2", {}),
        ((S, S, S, R, W), 3, "s2 s3 s4", {S: 2}),
        ((S, S, R, W, W), 2, "s2 s3", {S: 2, W: 1}),
        ((S, K, F, R, W), 2, "s2 s3", {S: 1, K: 1, W: 1}),
        ((R, R, F), 1, "s0 s1 s2", {}),
        ((), 5, "", {}),
    ],
)
def test_what_runs_or_failed_is_shown_to_the_last(
    states: tuple[StepState, ...], room: int, shown: str, left_out: dict[StepState, int]
) -> None:
    kept, counted = fit(steps(*states), room)
    assert " ".join(step.service for step in kept) == shown
    assert counted == left_out


@pytest.mark.parametrize("count", [1, 10, 40, 2000])
def test_an_operation_of_any_size_fits_the_terminal(count: int) -> None:
    text = drawn(Operation("op", Kind.STARTUP, ("all",), steps=steps(*[S] * (count // 2), R, *[W] * (count // 2))))
    assert len(text.splitlines()) <= 24
    assert "s" + str(count // 2) in text, "the one that runs"


def test_the_table_has_the_state_the_clock_and_what_is_waited_for() -> None:
    operation = Operation(
        "20250715T143000000000-aaaa", Kind.STARTUP, ("top",), state=OperationState.RUNNING, started_at=90.0,
        steps=(
            Step("base", "n1", StepAction.START, S, began_at=90.0, ended_at=92.5),
            Step("top", "n1", StepAction.START, W, detail="waits for middle to be healthy"),
        ),
    )  # fmt: skip
    assert drawn(operation).splitlines() == [
        "startup top  running  1 of 2 steps, 10 s  20250715T143000000000-aaaa",
        " ✔  base  start  2.50 s",
        " ·  top   start          waits for middle to be healthy",
    ]


def test_the_table_of_an_operation_that_waits_says_for_what() -> None:
    assert "waits for operation op0" in drawn(Operation("op1", Kind.SHUTDOWN, ("all",), waits_for="op0"))


def drawn(operation: Operation) -> str:
    console = Console(file=io.StringIO(), width=100, height=24, color_system=None)
    console.print(picture(operation, 100.0, console.height))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


class Terminal:
    """A pseudo-terminal of 100 × 30 with one program in it."""

    def __init__(self, cli: CommandLine, *words: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        environ = {**os.environ, **cli.environ, "TERM": "xterm-256color"}
        environ.pop("COLUMNS", None)
        command = [sys.executable, "-m", "citadel_consul", *words]
        self.process = Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True)
        os.close(slave)
        self.text = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def until(self, text: str, within: float = 20.0) -> str:
        """Read until ``text`` was shown; returns all that was."""
        for _ in self._reading(within):
            if text in self.text:
                return self.text
        raise AssertionError(f"{text!r} was not shown:\n{self.text}")

    def forget(self) -> None:
        """Let :meth:`until` look only at what is shown from now on."""
        self.text = ""

    def end(self, within: float = 20.0) -> int:
        """Read to the end; returns the exit status."""
        for _ in self._reading(within):
            continue
        return self.process.wait(within)

    def _reading(self, within: float) -> Iterator[None]:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if not select.select([self._master], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the program has closed its end
                return
            self.text += data.decode(errors="replace")
            yield


@pytest.mark.consul
@pytest.mark.slow
def test_up_draws_a_live_table_in_place_and_gives_the_terminal_back(cli: CommandLine, running: World) -> None:
    running.apply([running.tiny("base", delay=0.6)], [])
    with Terminal(cli, "up", "top") as terminal:
        assert terminal.end() == 0
        text = terminal.text
    assert "\x1b[?25l" in text, "the cursor is hidden while it draws"
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "and is back at the end"
    assert "\x1b[1A" in text, "it is drawn over itself"
    assert "waits for base to be healthy" in text
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text[text.rindex("startup top") :])
    assert re.search(r"✔ +base +start +\d\.\d\d s", last)
    assert re.search(r"✔ +top +start", last)
    assert "\x1b[32m" in text, "what is done is green"


@pytest.mark.consul
def test_watching_uses_the_other_screen_and_leaves_the_first_as_it_was(cli: CommandLine) -> None:
    cli.apply(THREE)
    with Terminal(cli, "status", "--watch") as terminal:
        terminal.until("CONTROL")
        cli.put("edges/base/top", b"{}")
        terminal.until("makes a cycle")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
    assert terminal.text.startswith("\x1b[?1049h")
    assert terminal.text.rindex("\x1b[?1049l") > terminal.text.rindex("\x1b[?1049h")
    assert "Traceback" not in terminal.text


@pytest.mark.consul
def test_watching_outlives_a_consul_that_goes_away(cli: CommandLine) -> None:
    cli.apply(THREE)
    with Terminal(cli, "status", "--watch") as terminal:
        terminal.until("CONTROL")
        cli.consul.suspend()
        try:
            terminal.until("Consul does not answer; what stands below is", 30.0)
        finally:
            cli.consul.resume()
        terminal.forget()
        terminal.until(f"\x1b[H\x1b[1m{cli.stack}", 30.0)


@pytest.mark.consul
def test_errors_are_red_on_a_terminal_only(cli: CommandLine) -> None:
    with Terminal(cli, "explain", "nosuch") as terminal:
        assert terminal.end() == 2
    assert "\x1b[31merror" in terminal.text
    assert "\x1b[" not in cli("explain", "nosuch").err


@pytest.mark.consul
@pytest.mark.parametrize("line", ["status", "status --watch", "explain nosuch", "ops list"])
def test_whoever_wants_no_colours_gets_none(cli: CommandLine, line: str) -> None:
    cli.apply(THREE)
    cli.monkeypatch.setenv("NO_COLOR", "1")
    with Terminal(cli, *line.split()) as terminal:
        if "--watch" in line:
            terminal.until("CONTROL")
        else:
            terminal.end()
    assert terminal.text
    assert not re.search(r"\x1b\[[0-9;]*m", terminal.text)


def test_nothing_is_read_from_standard_input(cli: CommandLine) -> None:
    process = cli.spawn("config", stdin=DEVNULL)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "SETTING" in out
