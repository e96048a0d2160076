"""Giving units back to systemd's boot, on the machine on which they were taken over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from citadel_consul.config.settings import Settings
from citadel_consul.errors import BackendError, InvalidInput
from citadel_consul.installation.blueprint import Choices
from citadel_consul.installation.installing import install, plan_installation, save
from citadel_consul.installation.places import Root
from citadel_consul.installation.program import find_program, protect_home
from citadel_consul.installation.record import Record, read_record
from citadel_consul.installation.systemctl import Systemctl


def give_back(settings: Settings, units: Iterable[str]) -> dict[str, str]:
    """Start units at boot again as they were, and take them out of what the agent may manage.

    Returns what became of each. Without the right to do it, it says what to do.
    """
    root, wanted = Root(Path("/")), tuple(units)
    if not wanted:
        return {}
    try:
        record = read_record(root)
        if record is None or "agent" not in record.roles:
            return dict.fromkeys(wanted, "at boot as it was: citadel install was not used here")
        record = _enable(root, record, wanted)
        _withdraw_right(root, record, settings, wanted)
    except (InvalidInput, BackendError) as error:
        return {unit: f"as root: citadel handback --unit {unit} ({error})" for unit in wanted}
    systemctl = Systemctl(root)
    return {unit: _words(systemctl, unit) for unit in wanted}


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
