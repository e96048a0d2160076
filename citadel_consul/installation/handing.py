"""Giving units back to systemd's boot, on the machine on which they were taken over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from citadel_consul.backends.journal import UnreadableRecord
from citadel_consul.backends.launches import Launches
from citadel_consul.config.settings import Settings
from citadel_consul.core.model import Instance, SystemdBackend
from citadel_consul.errors import BackendError, InvalidInput
from citadel_consul.installation.blueprint import Choices
from citadel_consul.installation.installing import install, plan_installation, save
from citadel_consul.installation.places import Root
from citadel_consul.installation.program import find_program, protect_home
from citadel_consul.installation.record import Record, read_record
from citadel_consul.installation.systemctl import Systemctl

KIND = "systemd"


def give_back(settings: Settings, stack: str, units: Mapping[str, str], missing: Iterable[str]) -> dict[str, str]:
    """Start units at boot again as they were, and take them out of what the agent may manage.

    ``units`` is the unit of each service, ``missing`` are services whose unit only the records of this machine can
    tell. Returns what became of each of those known here. Without the right to do it, it says what to do.
    """
    root = Root(Path("/"))
    try:
        record = read_record(root)
        found = {**units, **_recorded(settings, stack, missing)}
    except InvalidInput as error:
        return {name: f"{unit}: {error}" for name, unit in units.items()}
    if record is None or "agent" not in record.roles:
        return {name: f"{unit}: at boot as it was: citadel install was not used here" for name, unit in found.items()}
    try:
        record = _enable(root, record, found.values())
    except BackendError as error:
        return {name: f"{unit}: run this as root: {error}" for name, unit in found.items()}
    _withdraw_right(root, record, settings, found.values())
    systemctl = Systemctl(root)
    return {name: f"{unit}: {_words(systemctl, unit)}" for name, unit in found.items()}


def _recorded(settings: Settings, stack: str, services: Iterable[str]) -> dict[str, str]:
    """The units of services as the node agent of this node has them on record."""
    found = {}
    launches = Launches(settings.state_dir, stack, KIND)
    for name in services:
        try:
            launch = launches.read(Instance(name, settings.node))
        except UnreadableRecord as error:
            raise InvalidInput.at(name, str(error), "run this as root") from error
        if launch is not None and isinstance(launch.backend, SystemdBackend):
            found[name] = launch.backend.unit
    return found


def _enable(root: Root, record: Record, units: Iterable[str]) -> Record:
    systemctl, left = Systemctl(root), dict(record.taken_over)
    for unit in units:
        if unit in left:
            systemctl.enable(unit)
            del left[unit]
    after = replace(record, taken_over=left)
    if after != record:
        save(root, after)
    return after


def _withdraw_right(root: Root, record: Record, settings: Settings, units: Iterable[str]) -> None:
    """Install the node agent anew without ``units``: the rule that lets it manage them has to go, too."""
    installed, gone = record.roles["agent"], set(units)
    kept = tuple(unit for unit in installed.units if unit not in gone)
    if kept == installed.units:
        return
    program = find_program()
    choices = Choices("agent", str(program), record.user, kept, installed.docker, protect_home(program))
    install(plan_installation(root, choices, settings, keep_enabled=True), start=False)


def _words(systemctl: Systemctl, unit: str) -> str:
    state = systemctl.state(unit)
    return f"{state.active}, {state.enabled or state.load} at boot"
