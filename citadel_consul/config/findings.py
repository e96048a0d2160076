"""What is wrong in a configuration file, before it has a place that people can read."""

from __future__ import annotations

from typing import NamedTuple

Path = tuple[str | int, ...]
"""Where something is in a document: keys of mappings and indices of sequences, from the root."""


class Finding(NamedTuple):
    """A :class:`~citadel_consul.errors.Problem` to be: ``line`` counts from 1, and 0 means the line of ``path``."""

    path: Path
    message: str
    remedy: str = ""
    line: int = 0
