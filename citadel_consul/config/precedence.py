"""Where settings come from, and which origin wins: flag, environment, configuration file, default."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from citadel_consul.config import options
from citadel_consul.config.findings import Finding
from citadel_consul.config.options import CONFIG, Setting
from citadel_consul.config.receivers import Receivers
from citadel_consul.config.suggestions import suggest
from citadel_consul.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from citadel_consul.config.source import Document

T = TypeVar("T")

MASK = "********"
_INNER = re.compile(r"\[(\d+)\]|\.([^.\[\]]+)")
"""A step of the way to a place within a structured value: an index, or a key."""
_ALL: tuple[Setting[object], ...] = (CONFIG, *options.ALL)


class Effective(NamedTuple):
    """The effective value of a setting as text, and where it came from."""

    name: str
    value: str
    origin: str


class Rank(IntEnum):
    """The kinds of origin, the nearest first."""

    FLAG = 0
    ENVIRONMENT = 1
    FILE = 2
    DEFAULT = 3


class Given(NamedTuple):
    """A value that somebody gave, not yet parsed. ``place`` is what a problem with it is placed at."""

    rank: Rank
    value: object
    origin: str
    place: str


class _Resolved(NamedTuple):
    value: object
    rank: Rank
    origin: str
    place: str


@dataclass(slots=True)
class Sources:
    """The origins of the settings of one process. It collects problems as values are asked for."""

    flags: Mapping[str, object]
    environ: Mapping[str, str]
    document: Document | None = None
    _problems: list[Problem] = field(default_factory=list)
    _resolved: dict[str, _Resolved] = field(default_factory=dict)

    @classmethod
    def open(cls, flags: Mapping[str, object], environ: Mapping[str, str], config_path: Path | None) -> Sources:
        """Find and read the configuration file. Raises InvalidInput if it cannot be read as YAML."""
        by_key = {name.replace(".", "_"): value for name, value in flags.items() if value is not None}
        if config_path is not None:
            by_key[CONFIG.key] = config_path
        sources = cls(by_key, environ)
        path = sources.value(CONFIG)
        if sources.is_given(CONFIG) or path.exists():  # one that is named has to exist
            sources.read(path)
        sources.check_flags()
        return sources

    def read(self, path: Path) -> None:
        """Take the configuration file in. What is wrong with its keys is kept for :meth:`raise_problems`."""
        from citadel_consul.config import source  # PyYAML is needed only if there is a file

        document = source.parse_document(source.read_file(path), str(path))
        findings = [*document.findings, *_unknown_keys(document.data)]
        self._problems += document.problems(findings)
        self.document = document

    def check_flags(self) -> None:
        """Object to flags that are no settings, and to secrets on the command line."""
        known = {setting.key: setting for setting in _ALL}
        for key in self.flags:
            flag = "flag --" + key.replace("_", "-")
            if key not in known or known[key].structured:
                offered = [name for name, setting in known.items() if not setting.structured]
                self._problems.append(Problem(flag, "no such setting", suggest(key, offered, "settings")))
            elif known[key].secret:
                remedy = f"set {known[key].variable}, or name a file"
                self._problems.append(Problem(flag, "a secret on a command line is seen by every user", remedy))

    def is_given(self, setting: Setting[object]) -> bool:
        """Whether anybody set it."""
        self.value(setting)
        return self._resolved[setting.name].rank is not Rank.DEFAULT

    def is_nearer(self, setting: Setting[object], other: Setting[object]) -> bool:
        """Whether ``setting`` comes from a nearer origin than ``other``."""
        self.value(setting)
        self.value(other)
        return self._resolved[setting.name].rank < self._resolved[other.name].rank

    def value(self, setting: Setting[T]) -> T:
        """The effective value; the default in place of one that is wrong, which is reported in the end."""
        if setting.name not in self._resolved:
            self._resolved[setting.name] = self._resolve(setting)
        return cast("T", self._resolved[setting.name].value)

    def set_aside(self, setting: Setting[Path | None], reason: str) -> None:
        """Take a setting that was given as not given, and show why."""
        resolved = self._resolved[setting.name]
        self._resolved[setting.name] = resolved._replace(value=None, origin=f"{resolved.origin}, set aside: {reason}")

    def object_to(self, setting: Setting[object], message: str, remedy: str) -> None:
        """Report a value that is well formed, but may not stand."""
        self.value(setting)
        self._problems.append(Problem(self._resolved[setting.name].place, message, remedy))

    def require_pair(self, one: Setting[Path | None], other: Setting[Path | None]) -> None:
        """Report two settings of which only one is given."""
        for given, missing in ((one, other), (other, one)):
            if self.value(given) is not None and self.value(missing) is None:
                self.object_to(given, f"{given.name} is of no use without {missing.name}", f"set {missing.name}")

    def effective(self) -> tuple[Effective, ...]:
        """Every setting with its value and its origin, secrets masked."""
        rows = []
        for setting in _ALL:
            text = options.shown(self.value(setting))
            masked = MASK if setting.secret and text else text
            rows.append(Effective(setting.name, masked, self._resolved[setting.name].origin))
        return tuple(rows)

    def raise_problems(self) -> None:
        """Raise InvalidInput if anything was wrong."""
        if self._problems:
            raise InvalidInput(dict.fromkeys(self._problems))

    def _resolve(self, setting: Setting[object]) -> _Resolved:
        winner: _Resolved | None = None
        for given in self._given(setting):
            try:
                value = setting.parse(given.value)
            except InvalidInput as error:
                self._problems += [self._placed(setting, given, found) for found in error.problems]
                continue
            if winner is None:
                winner = _Resolved(self._anchored(value, given.rank), given.rank, given.origin, given.place)
        if winner is not None:
            return winner
        origin = f"default ({setting.default_text.replace('`', '')})" if setting.default_text else "default"
        return _Resolved(setting.usual(self.environ), Rank.DEFAULT, origin, f"setting {setting.name}")

    def _placed(self, setting: Setting[object], given: Given, found: Problem) -> Problem:
        """A problem at the place of its value, or within it, if it says where: ``[1].webhook``."""
        if not found.place or self.document is None or given.rank is not Rank.FILE:
            return Problem(given.place, found.message, found.remedy)
        inner = [int(i) if i else name for i, name in _INNER.findall(found.place)]
        line = self.document.line((*setting.name.split("."), *inner))
        return Problem(f"{self.document.name}:{line}: {setting.name}{found.place}", found.message, found.remedy)

    def _given(self, setting: Setting[object]) -> Iterator[Given]:
        """The values that were given, the nearest first. An empty variable counts as not set, as with Consul."""
        flag = self.flags.get(setting.key)
        if flag is not None and not setting.secret and not setting.structured:
            text = str(flag) if isinstance(flag, Path) else flag
            yield Given(Rank.FLAG, text, f"flag {setting.flag}", f"flag {setting.flag}")
        variable = self.environ.get(setting.variable) if setting.variable else None
        if variable:
            origin = f"environment {setting.variable}"
            yield Given(Rank.ENVIRONMENT, variable, origin, origin)
        if self.document is not None and setting is not CONFIG:
            path = tuple(setting.name.split("."))
            written = _lookup(self.document.data, path)
            if written is not None:
                line = f"{self.document.name}:{self.document.line(path)}"
                yield Given(Rank.FILE, written, f"file {line}", f"{line}: {setting.name}")

    def _anchored(self, value: object, rank: Rank) -> object:
        """Relative paths in the file mean the file's folder; elsewhere, the current one."""
        if rank is Rank.FILE and self.document is not None:
            folder = Path(self.document.name).absolute().parent
            return value.anchored(folder) if isinstance(value, Receivers) else _below(folder, value)
        return value.absolute() if isinstance(value, Path) else value


def _below(folder: Path, value: object) -> object:
    return folder / value if isinstance(value, Path) else value


def _lookup(data: Mapping[str, object], path: tuple[str, ...]) -> object | None:
    value: object = data
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _unknown_keys(data: Mapping[str, object]) -> Iterator[Finding]:
    names = {setting.name: setting for setting in options.ALL}
    sections = {name.partition(".")[0] for name in names if "." in name}
    for key, value in data.items():
        if key in sections and isinstance(value, dict):
            known = [name.partition(".")[2] for name in names if name.startswith(f"{key}.")]
            for inner in value:
                if inner not in known:
                    yield Finding((key, inner), "unknown key", suggest(inner, known, "known keys"))
        elif key in sections:
            yield Finding((key,), "has to hold settings", f"write `{key}:` and its settings indented below it")
        elif key not in names:
            yield Finding((key,), "unknown key", _remedy(key))


def _remedy(key: str) -> str:
    """What to write instead of an unknown key: people write flat names, and names of variables."""
    for setting in options.ALL:
        if key in (setting.name, setting.key, setting.variable):
            section, _, inner = setting.name.rpartition(".")
            return f"write `{inner}` under `{section}`" if section else f"write `{inner}`"
    known = dict.fromkeys(setting.name.partition(".")[0] for setting in options.ALL)
    return suggest(key, known, "known keys")
