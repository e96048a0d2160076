"""Puts tables into a Markdown document, each between its marks: ``<!-- bench:X -->`` and ``<!-- /bench:X -->``."""

from __future__ import annotations

import re
from collections.abc import Mapping

_BLOCK = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- /bench:\2 -->)", re.DOTALL)


def renewed(text: str, tables: Mapping[str, str]) -> str:
    """``text`` with what lies between marks replaced, where there is a table of that name; all else stays."""

    def block(found: re.Match[str]) -> str:
        table = tables.get(found[2])
        return found[0] if table is None else f"{found[1]}\n{table}\n\n{found[3]}"

    return _BLOCK.sub(block, text)
