"""Showing something again and again: in place on a terminal, one below the other elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

import click

from citadel_consul.cli.printing import colours_wanted, is_terminal, plain
from citadel_consul.cli.screen import BLANK, Line, draw, terminal_width

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _TO_END_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


class Canvas(Protocol):
    """Where a screen is shown. ``answer`` makes the same for programs; None if there is nothing new for them."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, lines: Sequence[Line], answer: Callable[[], object] | None) -> None: ...


def canvas_for(output: str) -> Canvas:
    """The canvas that suits where the output goes."""
    if output != "table":
        return Documents(output)
    return Alternate() if is_terminal() else Pages()


class Alternate:
    """The terminal's alternate screen, drawn over without flicker; what was there before comes back at the end."""

    def __enter__(self) -> Self:
        sys.stdout.write(_ENTER)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()

    def show(self, lines: Sequence[Line], answer: Callable[[], object] | None) -> None:
        del answer
        drawn = draw(lines, terminal_width())
        if not colours_wanted():
            drawn = [click.unstyle(line) for line in drawn]
        height = shutil.get_terminal_size().lines
        if len(drawn) > height:
            drawn = [*drawn[: height - 1], f"… {len(drawn) - height + 1} more lines: make the terminal higher"]
        sys.stdout.write(_HOME + "\n".join(line + _TO_END_OF_LINE for line in drawn) + _BELOW)
        sys.stdout.flush()


class Pages:
    """Prints one screen below the other."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, lines: Sequence[Line], answer: Callable[[], object] | None) -> None:
        del answer
        for line in draw([*lines, BLANK], None):
            click.echo(line)


class Documents:
    """Prints each answer as a document of its own: a line of JSON, or a YAML document."""

    def __init__(self, output: str) -> None:
        self._output = output

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, lines: Sequence[Line], answer: Callable[[], object] | None) -> None:
        del lines
        if answer is not None:
            print_document(answer(), self._output)


def print_document(answer: object, output: str) -> None:
    """Print one of a stream of documents: JSON on a line of its own, or YAML after a line of dashes."""
    if output == "yaml":
        import yaml

        click.echo("---\n" + yaml.safe_dump(plain(answer), sort_keys=False, allow_unicode=True), nl=False)
    else:
        import orjson

        click.echo(orjson.dumps(plain(answer)).decode())
