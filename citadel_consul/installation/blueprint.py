"""What an installation consists of: the files of a role, from choices and settings alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files

import jinja2
import yaml

from citadel_consul.config.settings import Settings
from citadel_consul.errors import InvalidInput, Problem
from citadel_consul.installation import places

WATCHDOG_SECONDS = 30
"""How long a loop may hang. A starved machine, and a Consul that answers nothing in time, must fit in."""

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\*@-]+\.(service|socket|target|timer|mount|path|slice|scope)")
_PLAIN = re.compile(r"[A-Za-z0-9_./+@:-]+")


@dataclass(frozen=True, slots=True)
class Choices:
    """What the operator chose. ``units`` are those that the agent may manage; ``*`` stands for any part of a name."""

    role: str
    program: str
    user: str = places.ACCOUNT
    units: tuple[str, ...] = ()
    docker: bool = False
    home: str = "yes"
    """What ``ProtectHome=`` is."""

    def check(self) -> None:
        """Raise InvalidInput with all that cannot go into a unit file, or should not."""
        problems = []
        if not _USER.fullmatch(self.user):
            problems.append(Problem("--user", f"{self.user!r} is no name of a user", "like citadel"))
        if not _PLAIN.fullmatch(self.program) or not self.program.startswith("/"):
            remedy = "install citadel in a folder with a plain name, like /opt/citadel"
            problems.append(Problem("", f"a unit cannot name the program {self.program!r}", remedy))
        strange = [unit for unit in self.units if not _UNIT.fullmatch(unit) or unit.startswith("*")]
        problems += [Problem("--unit", f"{u!r} is no name of a unit", "like redis-server.service") for u in strange]
        if self.role != "agent" and (self.units or self.docker):
            problems.append(Problem("", "--unit, --stack-file and --docker are for the node agent", "leave them out"))
        if problems:
            raise InvalidInput(problems)


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file as it should be. ``place`` is its path on the installed machine."""

    place: str
    content: str
    mode: int = 0o644


def blueprint(choices: Choices, settings: Settings) -> tuple[PlannedFile, ...]:
    """The files of a role. Raises InvalidInput if a choice cannot be written into one."""
    choices.check()
    names = _names(choices, settings)
    unit = places.unit_of(choices.role)
    planned = [
        PlannedFile(places.CONFIG, _rendered("orchestrator.yaml", names)),
        PlannedFile(places.ENVIRONMENT, _rendered("citadel.env", names), 0o640),
        PlannedFile(f"{places.UNITS}/{unit}", _rendered(unit, names)),
    ]
    if choices.user != "root":
        planned.append(PlannedFile(places.SYSUSERS, _rendered("sysusers.conf", names)))
        if choices.units:
            planned.append(PlannedFile(places.POLKIT, _rendered("polkit.rules", names)))
    return tuple(planned)


def pattern_of(unit: str) -> str:
    """The regular expression for a unit's name, in which ``*`` stands for anything."""
    return "^" + ".*".join(re.escape(part) for part in unit.split("*")) + "$"


def _names(choices: Choices, settings: Settings) -> Mapping[str, object]:
    return {
        "user": choices.user,
        "program": choices.program,
        "docker": choices.docker,
        "home": choices.home,
        "low_port": 0 < settings.api.bind.port < 1024,
        "watchdog": f"{WATCHDOG_SECONDS}s",
        "environment": places.ENVIRONMENT,
        "config": places.CONFIG,
        "state": places.STATE.removeprefix("/var/lib/"),
        "state_path": places.STATE,
        "patterns": [pattern_of(unit) for unit in choices.units],
        "settings": _as_yaml(_chosen(settings)),
    }


def _rendered(name: str, names: Mapping[str, object]) -> str:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # units and rules are not HTML; what goes into them was checked
    )
    source = files("citadel_consul").joinpath("installation", "templates", f"{name}.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(names)


def _chosen(settings: Settings) -> Iterable[tuple[str, str]]:
    """The settings that somebody chose, and the state folder, whose default is another for each user."""
    for row in settings.origins():
        if row.name == "state_dir":
            yield row.name, places.STATE if row.origin.startswith("default") else row.value
        elif row.name not in ("config", "consul.token") and row.value and not row.origin.startswith("default"):
            yield row.name, row.value


def _as_yaml(rows: Iterable[tuple[str, str]]) -> str:
    document: dict[str, object] = {}
    for name, text in rows:
        section, _, key = name.rpartition(".")
        holder = document.setdefault(section, {}) if section else document
        if isinstance(holder, dict):
            holder[key] = _natural(text)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip("\n")


def _natural(text: str) -> object:
    """``text`` as a person would write it in YAML: ``true`` and ``3`` without quotes, if that reads the same."""
    value = yaml.safe_load(text)
    return value if isinstance(value, bool | int) and str(value).lower() == text else text
