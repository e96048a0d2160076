"""A YAML document as a tree in which every node knows its line.

The tree is built from PyYAML's events, not by its constructors, for four reasons. A problem can then name the line
it is on, duplicate keys are seen instead of the last one silently winning, a problem does not hide the next one, and
no input can make it recurse or expand without bound (``MAX_DEPTH`` and ``MAX_NODES`` count what aliases stand for).

Scalars follow YAML 1.2's core schema (less its infinities), under which ``no`` is text and ``22:22`` is no number.
Keys are always text. Anchors, aliases and the merge key ``<<`` work as usual; tags are refused, the standard ones
apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import yaml

from citadel_consul.config.findings import Finding, Path

MAX_DEPTH = 40
MAX_NODES = 500_000

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+")
_STANDARD_TAG = "tag:yaml.org,2002:"
_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class WrittenInt(int):
    """A whole number that remembers how it was written: ``text`` of ``0640`` is ``"0640"``."""

    text: str


class WrittenFloat(float):
    """A number that remembers how it was written: ``text`` of ``1.10`` is ``"1.10"``."""

    text: str


@dataclass(slots=True)
class Node:
    """Anything in the tree, aliases followed.

    ``size`` counts the node and all nodes below it, ``height`` the levels of mappings and sequences.
    """

    line: int
    size: int = field(default=1, init=False)
    height: int = field(default=1, init=False)


@dataclass(slots=True)
class Scalar(Node):
    """A value without parts; ``broken`` means that a finding already says why it has no value."""

    text: str
    data: object
    plain: bool = False
    broken: bool = False

    def __post_init__(self) -> None:
        self.height = 0


@dataclass(slots=True)
class Sequence(Node):
    items: list[Node] = field(default_factory=list)


class Entry(NamedTuple):
    """A key's line, and its value."""

    line: int
    node: Node


@dataclass(slots=True)
class Mapping(Node):
    entries: dict[str, Entry] = field(default_factory=dict)


class _Stop(Exception):
    """What follows cannot be read; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding


@dataclass(slots=True)
class _Frame:
    """A collection that is still being read; ``key`` is the key whose value comes next."""

    node: Sequence | Mapping
    anchor: str | None
    key: Scalar | None = None
    merges: list[Mapping] = field(default_factory=list)


def compose(text: str) -> tuple[Node | None, list[Finding]]:
    """The tree of ``text`` and all that is wrong with it. No tree for an empty or an unreadable document."""
    composer = _Composer()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except _Stop as stop:
        composer.findings.append(stop.finding)
        return None, composer.findings
    except yaml.YAMLError as error:
        composer.findings.append(_syntax_finding(error, text))
        return None, composer.findings
    return composer.root, composer.findings


class _Composer:
    def __init__(self) -> None:
        self.root: Node | None = None
        self.findings: list[Finding] = []
        self._documents = 0
        self._frames: list[_Frame] = []
        self._anchors: dict[str, Node] = {}

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 1
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise _Stop(Finding((), "a second YAML document starts here", "keep one document a file", line))
            case yaml.ScalarEvent():
                self._place(self._scalar(event, line), event.anchor)
            case yaml.AliasEvent():
                self._place(self._alias(event.anchor or "", line), None)
            case yaml.CollectionStartEvent():
                self._check_tag(event, "seq" if isinstance(event, yaml.SequenceStartEvent) else "map", line)
                node = Sequence(line) if isinstance(event, yaml.SequenceStartEvent) else Mapping(line)
                self._frames.append(_Frame(node, event.anchor))
                self._check_bounds(0, 1, line)
            case yaml.CollectionEndEvent():
                frame = self._frames.pop()
                self._apply_merges(frame)
                self._place(frame.node, frame.anchor)

    def _path(self) -> Path:
        path: list[str | int] = []
        for frame in self._frames:
            if isinstance(frame.node, Sequence):
                path.append(len(frame.node.items))
            elif frame.key is not None:
                path.append(frame.key.text)
        return tuple(path)

    def _find(self, message: str, remedy: str, line: int) -> None:
        self.findings.append(Finding(self._path(), message, remedy, line))

    def _check_bounds(self, height: int, size: int, line: int) -> None:
        if len(self._frames) + height > MAX_DEPTH:
            raise _Stop(Finding((), f"nested more than {MAX_DEPTH} levels deep", "make it flatter", line))
        if sum(frame.node.size for frame in self._frames) + size > MAX_NODES:
            raise _Stop(Finding((), f"more than {MAX_NODES} values, aliases followed", "split the file", line))

    def _check_tag(self, event: yaml.NodeEvent, expected: str, line: int) -> None:
        tag = getattr(event, "tag", None)
        if tag not in {None, "!", _STANDARD_TAG + expected}:
            self._find(f"the tag {_shown_tag(tag)} is not allowed here", "remove the tag", line)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Scalar:
        text, plain = event.value, event.implicit[0]
        if event.tag is None or event.tag == "!":
            return Scalar(line, text, _resolve(text) if plain else text, plain=plain)
        kind = event.tag.removeprefix(_STANDARD_TAG)
        data = text if kind == "str" else _resolve(text)
        if kind not in {"str", "int", "float", "bool", "null"} or _kind(data) != kind:
            self._find(f"the tag {_shown_tag(event.tag)} is not allowed here", "remove the tag", line)
            return Scalar(line, text, None, broken=True)
        return Scalar(line, text, data)

    def _alias(self, anchor: str, line: int) -> Node:
        node = self._anchors.get(anchor)
        if node is None:
            self._find(f"*{anchor} refers to no anchor above it", f"define it before, with &{anchor}", line)
            return Scalar(line, anchor, None, broken=True)
        return node

    def _place(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._frames:
            self.root = node
            return
        frame = self._frames[-1]
        if isinstance(frame.node, Sequence):
            self._grow(frame.node, node)
            frame.node.items.append(node)
        elif frame.key is None:
            frame.key = self._key(node)
        else:
            self._grow(frame.node, node)
            self._add_entry(frame, frame.node, frame.key, node)
            frame.key = None

    def _grow(self, parent: Node, child: Node) -> None:
        self._check_bounds(child.height, child.size, child.line)
        parent.size += child.size
        parent.height = max(parent.height, child.height + 1)

    def _key(self, node: Node) -> Scalar:
        if isinstance(node, Scalar):
            return node
        self._find("a key has to be text", "use a plain word as the key", node.line)
        return Scalar(node.line, "", None, broken=True)

    def _add_entry(self, frame: _Frame, mapping: Mapping, key: Scalar, node: Node) -> None:
        if key.broken:
            return
        if key.plain and key.text == "<<":
            frame.merges.extend(self._merged(node))
        elif key.text in mapping.entries:
            earlier = mapping.entries[key.text].line
            self._find(f"the key is given twice, first on line {earlier}", "keep one of the two", key.line)
        else:
            mapping.entries[key.text] = Entry(key.line, node)

    def _merged(self, node: Node) -> list[Mapping]:
        parts = node.items if isinstance(node, Sequence) else [node]
        mappings = [part for part in parts if isinstance(part, Mapping)]
        if len(mappings) != len(parts):
            self._find("<< merges mappings, and this is none", "give it an alias of a mapping, like *base", node.line)
        return mappings

    @staticmethod
    def _apply_merges(frame: _Frame) -> None:
        if isinstance(frame.node, Mapping):
            for merged in frame.merges:  # what is written in the mapping itself wins, then the first that is merged
                for key, entry in merged.entries.items():
                    frame.node.entries.setdefault(key, entry)


def _resolve(text: str) -> object:
    """The value of an unquoted scalar."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        whole = WrittenInt(int(text, 0) if text[:2] in {"0o", "0x"} else int(text))
        whole.text = text
        return whole
    if _FLOAT.fullmatch(text):
        number = WrittenFloat(text)
        number.text = text
        return number
    return text


def _kind(data: object) -> str:
    kinds = {WrittenInt: "int", WrittenFloat: "float", bool: "bool", type(None): "null"}
    return kinds.get(type(data), "str")


def _shown_tag(tag: str) -> str:
    return tag.replace(_STANDARD_TAG, "!!")


def _syntax_finding(error: yaml.YAMLError, text: str) -> Finding:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        column = f", column {mark.column + 1}" if mark is not None else ""
        message = " ".join(part for part in (error.context, error.problem) if part)
        remedy = "indent with spaces, not tabs" if "\t" in _line_of(text, line) else ""
        return Finding((), f"not valid YAML: {message}{column}", remedy, line)
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return Finding((), f"the character U+{_code_point(error):04X} is not allowed", "remove it", line)
    return Finding((), f"not valid YAML: {error}", "", 1)


def _code_point(error: yaml.reader.ReaderError) -> int:
    # PyYAML's own reader gives the character as text, libyaml's its number.
    character: object = error.character
    return character if isinstance(character, int) else ord(str(character)[:1] or "\0")


def _line_of(text: str, line: int) -> str:
    lines = text.splitlines()
    return lines[line - 1] if line <= len(lines) else ""


def plain_data(node: Node, findings: list[Finding], empty_allowed: Iterable[tuple[str, ...]] = ()) -> object:
    """The tree as dicts, lists and scalars. Keys without a value are left out, each with a finding.

    ``empty_allowed`` are paths, with ``*`` for any one key, at which a key may be without a value.
    """
    patterns = tuple(empty_allowed)

    def convert(node: Node, path: Path) -> object:
        if isinstance(node, Scalar):
            return node.data
        if isinstance(node, Sequence):
            return [convert(item, (*path, index)) for index, item in enumerate(node.items)]
        data: dict[str, object] = {}
        for key, entry in node.entries.items() if isinstance(node, Mapping) else ():
            if not isinstance(entry.node, Scalar) or entry.node.data is not None or _matches((*path, key), patterns):
                data[key] = convert(entry.node, (*path, key))
            elif not entry.node.broken:
                findings.append(Finding((*path, key), "has no value", "give it one, or remove the key", entry.line))
        return data

    return convert(node, ())


def _matches(path: Path, patterns: tuple[tuple[str, ...], ...]) -> bool:
    return any(
        len(path) == len(pattern) and all(want in ("*", part) for part, want in zip(path, pattern, strict=True))
        for pattern in patterns
    )
