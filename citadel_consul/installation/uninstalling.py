"""Taking a role, or all of citadel, off a machine: what was written goes, services stay as they are.

The order is that of any way back: citadel's processes are stopped first, so that nobody acts on what follows; then
units that were started at boot before are so again; then the files go. Each step can be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from citadel_consul.errors import BackendError
from citadel_consul.installation import account, files, leftovers, places
from citadel_consul.installation.files import Fate, Step
from citadel_consul.installation.installing import save
from citadel_consul.installation.places import Root, unit_of
from citadel_consul.installation.record import Record
from citadel_consul.installation.systemctl import Systemctl


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to be done. ``purge``: edited files, state, and the account go, too."""

    root: Root
    before: Record
    roles: tuple[str, ...]
    steps: tuple[Step, ...]
    give_back: Mapping[str, str]
    purge: bool

    @property
    def after(self) -> Record:
        """What stays installed."""
        record = self.before
        for role in self.roles:
            record = record.without_role(role)
        return record


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is left, and why: ``kept`` are paths (or the account), each with the reason."""

    kept: Mapping[str, str]


def plan_removal(root: Root, record: Record, roles: tuple[str, ...], *, purge: bool = False) -> Removal:
    """Say what removing ``roles`` would do."""
    removal = Removal(root, record, roles, (), record.taken_over if "agent" in roles else {}, purge)
    doomed = [place for place in record.files if place not in removal.after.files]
    return replace(removal, steps=files.survey_removal(root, record, doomed, force=purge))


def uninstall(plan: Removal) -> Outcome:
    """Carry a plan out; returns what is left."""
    root, systemctl, kept = plan.root, Systemctl(plan.root), dict[str, str]()
    _stop(plan, systemctl)
    for unit, state in plan.give_back.items():
        if systemctl.is_there and state != "enabled-runtime":
            systemctl.enable(unit)
    record = replace(plan.before, taken_over={} if "agent" in plan.roles else plan.before.taken_over)
    record = files.carry_out(root, record, "", plan.steps)
    kept |= {step.place: "edited by hand" for step in plan.steps if step.fate is Fate.EDITED}
    if root.is_booted:
        systemctl.reload()
        for role in plan.roles:
            systemctl.forget_failure(unit_of(role))
    if plan.after.roles:
        folders = files.remove_folders(root, record.folders)
        save(root, replace(plan.after, taken_over=record.taken_over, folders=folders))
        return Outcome(kept)
    return Outcome({**kept, **_remove_the_rest(plan, record)})


def _stop(plan: Removal, systemctl: Systemctl) -> None:
    if not systemctl.is_there:
        return
    for role in reversed(plan.roles):  # who gives orders goes first
        if plan.root.is_booted:
            systemctl.stop(unit_of(role))
        if systemctl.enablement(unit_of(role)) == "enabled":
            systemctl.disable(unit_of(role))


def _remove_the_rest(plan: Removal, record: Record) -> dict[str, str]:
    """What belongs to no role: state, account, record and folders."""
    kept = _remove_state(plan) if plan.purge else {}
    state = plan.root.path(places.STATE)
    if state.exists() and not plan.purge:
        kept[places.STATE] = "records and output of services (--purge removes it)"
    if record.user_made and plan.root.is_machine and account.exists(record.user):
        reason = _remove_account(record.user, state_is_left=state.exists())
        if reason:
            kept[f"account {record.user}"] = reason
    plan.root.path(places.RECORD).unlink(missing_ok=True)
    files.remove_folders(plan.root, record.folders)
    return kept


def _remove_state(plan: Removal) -> dict[str, str]:
    state = plan.root.path(places.STATE)
    running = leftovers.running_processes(state)
    if running:
        return {places.STATE: f"{', '.join(map(str, running))} still run and write there"}
    for path in leftovers.state_entries(state):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    return {str(folder): "data of services" for folder in leftovers.data_folders(state)}


def _remove_account(user: str, *, state_is_left: bool) -> str:
    """Remove the account if nothing is its own any more; returns why not."""
    if state_is_left:
        return f"{places.STATE} is left, which is its own"
    if account.has_processes(user):
        return "processes run as it"
    try:
        account.remove(user)
    except BackendError as error:
        return str(error)
    return ""
