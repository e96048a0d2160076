"""Installing a role: a plan that changes nothing, and its execution, which can be repeated any number of times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from citadel_consul import __version__
from citadel_consul.config.settings import Settings
from citadel_consul.errors import Refused
from citadel_consul.installation import account, files, places
from citadel_consul.installation.blueprint import Choices, PlannedFile, blueprint
from citadel_consul.installation.files import Fate, Step
from citadel_consul.installation.places import Root, unit_of
from citadel_consul.installation.record import InstalledRole, Record, encode, read_record
from citadel_consul.installation.systemctl import Systemctl

MADE_BY_INSTALLING = ("enabled", "enabled-runtime", "alias")
"""What ``systemctl is-enabled`` says of a unit that systemd starts at boot because somebody enabled it."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What is to be done. ``take_over`` are units that are started at boot so far, and what is-enabled says of them."""

    root: Root
    choices: Choices
    before: Record
    steps: tuple[Step, ...]
    take_over: Mapping[str, str]

    @property
    def unit(self) -> str:
        """The unit of the role."""
        return unit_of(self.choices.role)

    @property
    def role_as_installed(self) -> InstalledRole:
        """What the record will say of the role."""
        return InstalledRole(__version__, self.choices.units, self.choices.docker)

    @property
    def changes(self) -> bool:
        """Whether anything is not yet as it should be, as far as files and versions tell."""
        moved = any(step.changes for step in self.steps)
        return moved or bool(self.take_over) or self.before.roles.get(self.choices.role) != self.role_as_installed


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an installation. ``started``: ready, waiting, or empty if nothing was started."""

    changed: bool
    started: str = ""


def plan_installation(
    root: Root, choices: Choices, settings: Settings, *, force: bool = False, keep_enabled: bool = False
) -> Installation:
    """Look at what is there, and say what is to be done. Raises InvalidInput or Refused."""
    before = read_record(root) or Record(user=choices.user)
    if before.roles and before.user != choices.user:
        raise Refused(f"citadel is installed here for {before.user}: say --user {before.user}, or uninstall it first")
    steps = files.survey(root, before, choices.role, blueprint(choices, settings), force=force)
    for step in steps:
        if step.fate is Fate.STRANGER and step.place not in (places.CONFIG, places.ENVIRONMENT):
            raise Refused(f"{step.place} is there and was not written by citadel install: move it away first")
    units = () if keep_enabled else choices.units
    return Installation(root, choices, before, steps, _started_at_boot(root, units, before))


def install(plan: Installation, *, start: bool = True, before_start: Callable[[], None] = lambda: None) -> Result:
    """Carry a plan out; with ``start`` the role is (re)started where that is called for.

    ``before_start`` is called when everything else is done.
    """
    root, systemctl = plan.root, Systemctl(plan.root)
    record = _write_files(plan)
    record = _make_account(plan, record)
    record = replace(
        record,
        roles={**record.roles, plan.choices.role: plan.role_as_installed},
        taken_over={**record.taken_over, **plan.take_over},
    )
    if record != plan.before:
        save(root, record)  # before anything that it is needed to undo
    if not systemctl.is_there:
        return Result(plan.changes)
    if root.is_booted and any(step.changes for step in plan.steps):
        systemctl.reload()
    newly = systemctl.enablement(plan.unit) != "enabled"
    if newly:
        systemctl.enable(plan.unit)
    for unit in plan.take_over:
        systemctl.disable(unit)
    before_start()
    started = _start(plan, systemctl) if start and root.is_booted else ""
    return Result(plan.changes or newly or bool(started), started)


def save(root: Root, record: Record) -> None:
    """Write the record down."""
    files.write(root, PlannedFile(places.RECORD, encode(record), 0o600))


def _started_at_boot(root: Root, units: Iterable[str], record: Record) -> dict[str, str]:
    """Those of ``units`` that systemd starts by itself: the leader would find them started out of order."""
    systemctl = Systemctl(root)
    if not systemctl.is_there:
        return {}
    named = [unit for unit in units if "*" not in unit and unit not in record.taken_over]
    found = {unit: systemctl.enablement(unit) for unit in named}
    return {unit: state for unit, state in found.items() if state in MADE_BY_INSTALLING}


def _write_files(plan: Installation) -> Record:
    record = replace(plan.before, user=plan.choices.user)
    return files.carry_out(plan.root, record, plan.choices.role, plan.steps)


def _make_account(plan: Installation, record: Record) -> Record:
    user = plan.choices.user
    if user == "root" or not plan.root.is_machine:
        return record
    missing = not account.exists(user)
    if missing:
        account.make(user)
    environment = plan.root.path(places.ENVIRONMENT)
    if any(step.place == places.ENVIRONMENT and step.changes for step in plan.steps):
        account.give_group(environment, user)
    return replace(record, user_made=record.user_made or missing)


def _start(plan: Installation, systemctl: Systemctl) -> str:
    """Start what does not run, and restart what runs with other files or an older version than it should."""
    runs = systemctl.state(plan.unit).is_active
    known = plan.before.roles.get(plan.choices.role)
    outdated = known is None or known.version != __version__ or any(step.changes for step in plan.steps)
    if runs and not outdated:
        return ""
    return "ready" if systemctl.start(plan.unit, again=runs) else "waiting"
