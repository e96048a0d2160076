"""Configuration files: read with bounds, and every problem placed at its file, line and field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath

from citadel_consul.config import yamltree
from citadel_consul.config.findings import Finding, Path
from citadel_consul.errors import InvalidInput, Problem

MAX_BYTES = 4 * 1024 * 1024
"""The largest file that is read: some ten thousand services."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_/@~-]+")


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file that could be read.

    ``data`` are plain dicts, lists and scalars; ``findings`` is what was wrong already at this level (duplicate
    keys, keys without a value, unknown tags), to be reported together with what the reader of ``data`` finds.
    """

    name: str
    data: Mapping[str, object]
    findings: tuple[Finding, ...]
    root: yamltree.Node | None

    def line(self, path: Path) -> int:
        """The line of the key (or the list item) that ``path`` leads to, or of the nearest one above it."""
        return self._follow(path)[0]

    def depth(self, path: Path) -> int:
        """How many parts of ``path`` the document has."""
        return self._follow(path)[1]

    def _follow(self, path: Path) -> tuple[int, int]:
        line, node = (self.root.line if self.root else 1), self.root
        for depth, part in enumerate(path):
            if isinstance(node, yamltree.Mapping) and isinstance(part, str) and part in node.entries:
                line, node = node.entries[part]
            elif isinstance(node, yamltree.Sequence) and isinstance(part, int) and part < len(node.items):
                node = node.items[part]
                line = node.line
            else:
                return line, depth
        return line, len(path)

    def problems(self, findings: Iterable[Finding]) -> list[Problem]:
        """The findings as problems with places, each once, from the top of the file to its end."""
        lined = [(finding.line or self.line(finding.path), finding) for finding in findings]
        lined.sort(key=lambda pair: pair[0])
        once: dict[tuple[str, str], Problem] = {}  # one mistake in the defaults is found in every service
        for problem in (_problem(self.name, line, finding) for line, finding in lined):
            once.setdefault((problem.place, problem.message), problem)
        return list(once.values())


def read_file(path: FilePath) -> str:
    """The text of a configuration file. Raises InvalidInput if there is none, or none that is text."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InvalidInput.at(str(path), "no such file", "check the path") from error
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise InvalidInput.at(str(path), message, "check the path and its permissions") from error
    return decode(raw, str(path))


def decode(raw: bytes, name: str) -> str:
    """The bytes of a file as text. Raises InvalidInput if they are too many, or not UTF-8."""
    if len(raw) > MAX_BYTES:
        raise InvalidInput.at(name, f"larger than {MAX_BYTES // 2**20} MiB", "split it into several stacks")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidInput.at(f"{name}:{line}", "not UTF-8 text", "save the file as UTF-8") from error


def parse_document(text: str, name: str, empty_allowed: Iterable[tuple[str, ...]] = ()) -> Document:
    """Parse YAML whose root is a mapping; an empty document is an empty mapping.

    ``name`` is what places call the file. ``empty_allowed`` are paths, with ``*`` for any one key, at which a key
    may be without a value. Raises InvalidInput if the text cannot be read to its end.
    """
    if len(text) > MAX_BYTES:
        raise InvalidInput.at(name, f"larger than {MAX_BYTES // 2**20} MiB", "split it into several stacks")
    root, findings = yamltree.compose(text)
    data: object = {}
    if root is None and findings:
        raise InvalidInput(_problem(name, finding.line, finding) for finding in findings)
    if root is not None:
        data = yamltree.plain_data(root, findings, empty_allowed)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        line = root.line if root else 1
        raise InvalidInput.at(f"{name}:{line}", "the file has to hold a mapping", "start it with `key: value` lines")
    return Document(name, data, tuple(findings), root)


def format_path(path: Path) -> str:
    """``services.qdrant.checks[0].interval``; a key that is no plain word is quoted: ``meta["a b"]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _BARE_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


def _problem(name: str, line: int, finding: Finding) -> Problem:
    where = format_path(finding.path)
    place = f"{name}:{line}: {where}" if where else f"{name}:{line}"
    return Problem(place, finding.message, finding.remedy)
