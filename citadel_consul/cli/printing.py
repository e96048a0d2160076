"""Printing answers: a table for people, JSON or YAML for programs."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

COLOURS = {
    "healthy": "green",
    "succeeded": "green",
    "running": "cyan",
    "starting": "cyan",
    "pending": "cyan",
    "stopping": "cyan",
    "rolling_back": "yellow",
    "degraded": "yellow",
    "held": "yellow",
    "skipped": "yellow",
    "cancelled": "yellow",
    "unhealthy": "red",
    "failed": "red",
    "unknown": "magenta",
    "leaderless": "red",
    "operational": "green",
}


def print_answer(answer: object, output: str) -> None:
    """Print ``answer`` (dataclasses, mappings, sequences) as JSON or YAML."""
    data = plain(answer)
    if output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
    else:
        import orjson

        click.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())


def plain(value: object) -> Any:
    """``value`` as dicts, lists and scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print columns, each as wide as its widest cell; words of state are coloured on a terminal."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in [list(headings), *texts]) for n in range(len(headings))]
    click.echo(_line(headings, widths, bold=True))
    for row in texts:
        click.echo(_line(row, widths))


def coloured(word: str, text: str | None = None) -> str:
    """``text`` (or the word itself) in the colour of a word of state."""
    shown = word if text is None else text
    colour = COLOURS.get(word)
    return click.style(shown, fg=colour) if colour is not None else shown


def colours_wanted() -> bool:
    """Whether colours may be used where somebody would see them: NO_COLOR (no-color.org) says no."""
    return not os.environ.get("NO_COLOR")


def is_terminal() -> bool:
    """Whether a person is looking at the standard output."""
    return sys.stdout.isatty()


def _line(cells: Sequence[str], widths: Sequence[int], *, bold: bool = False) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    shown = [click.style(text, bold=True) if bold else coloured(text.strip(), text) for text in padded]
    return "  ".join(shown).rstrip()
