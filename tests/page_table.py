"""Tables in the documents that a program renews: between a comment that names the command and one that ends it."""

from __future__ import annotations

from pathlib import Path

END = "<!-- as far as here -->"


def renew(page: Path, command: str, table: str) -> None:
    """Replace what stands in ``page`` between ``<!-- command -->`` and :data:`END`. ``ValueError`` without them."""
    begin = f"<!-- {command} -->"
    before, found, rest = page.read_text().partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f"{page.name} has no place for the table: {begin} … {END}")
    page.write_text(f"{before}{begin}\n\n{table}\n\n{END}{after}")
