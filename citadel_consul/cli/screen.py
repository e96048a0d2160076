"""A screen of text: lines of coloured pieces, folded to the width of the terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import click

from citadel_consul.cli.printing import COLOURS, is_terminal

MIN_WIDTH = 40


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of one look."""

    text: str
    fg: str | None = None
    bold: bool = False
    dim: bool = False

    def draw(self) -> str:
        """The text with its escape sequences; click takes them out again where nobody would see colours."""
        if self.fg is None and not self.bold and not self.dim:
            return self.text
        return click.style(self.text, fg=self.fg, bold=self.bold or None, dim=self.dim or None)


@dataclass(frozen=True, slots=True)
class Line:
    """``pieces``, and after them ``text``, which is folded under its own beginning if it is too long."""

    pieces: tuple[Piece, ...] = ()
    text: str = ""
    dim: bool = False

    def fold(self, width: int | None) -> list[str]:
        """The line as it is printed; None is as wide as it takes."""
        pieces = self.pieces if self.text else _without_end_blanks(self.pieces)
        lead = "".join(piece.draw() for piece in pieces)
        indent = sum(len(piece.text) for piece in self.pieces)
        room = None if width is None else max(MIN_WIDTH // 2, width - indent)
        parts = [self.text] if room is None else textwrap.wrap(self.text, room) or [""]
        shown = [Piece(part, dim=self.dim).draw() if part else "" for part in parts]
        return [lead + shown[0], *(" " * indent + part for part in shown[1:])]


def _without_end_blanks(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    while pieces and not pieces[-1].text.strip():
        pieces = pieces[:-1]
    return (*pieces[:-1], replace(pieces[-1], text=pieces[-1].text.rstrip())) if pieces else ()


BLANK = Line()


def word(text: str, width: int = 0, *, bold: bool = False) -> Piece:
    """A word of state in its colour, padded to ``width``."""
    return Piece(text.ljust(width), fg=COLOURS.get(text), bold=bold)


def heading(text: str, fg: str | None = None) -> Line:
    """A heading of a section."""
    return Line((Piece(text, fg=fg, bold=True),))


def columns(rows: Sequence[Sequence[Piece]], texts: Sequence[str] = (), indent: int = 2) -> list[Line]:
    """Rows of pieces, each column as wide as its widest; ``texts`` is the last column, which is folded."""
    widths = [max(len(piece.text.rstrip()) for piece in column) for column in zip(*rows, strict=True)]
    lines = []
    for number, row in enumerate(rows):
        cells = [
            Piece(piece.text.rstrip().ljust(width + 2), piece.fg, piece.bold, piece.dim)
            for piece, width in zip(row, widths, strict=True)
        ]
        lines.append(Line((Piece(" " * indent), *cells), texts[number] if texts else ""))
    return lines


def terminal_width() -> int | None:
    """How wide the terminal is; None where the output is no terminal."""
    return max(MIN_WIDTH, shutil.get_terminal_size().columns) if is_terminal() else None


def draw(lines: Iterable[Line], width: int | None) -> list[str]:
    """All lines as they are printed."""
    return [drawn for line in lines for drawn in line.fold(width)]
