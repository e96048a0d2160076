"""What systemd says of a unit, and what that means for an instance. Pure: from its properties to an answer.

A unit has a life of its own: it fails, is put off (``auto-restart``), goes through states in which its main process is
gone and it is not over yet. Two questions are what matters here. Is it *up*, or has it ended, so that
somebody has to be told how? Is it *settled*, so that nothing of it is left?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from citadel_consul.backends.base import Exit

UNIT_INTERFACE = "org.freedesktop.systemd1.Unit"
SERVICE_INTERFACE = "org.freedesktop.systemd1.Service"

PROPERTIES = (
    *("LoadState", "LoadError", "ActiveState", "SubState", "InvocationID", "Job", "UnitFileState", "CanReload"),
    *("MainPID", "ExecMainCode", "ExecMainStatus", "Result", "Type", "Restart", "NRestarts"),
)
"""What a state is made of; a unit has 400 more."""

# si_code of a child's end, as ExecMainCode has it.
_EXITED, _DUMPED = 1, 3
# How systemd itself calls an end that the exit status of the main process tells as well.
_PLAIN_RESULTS = frozenset({"success", "exit-code", "signal", "core-dump"})
# Exit statuses with which systemd itself ends a process that it could not make the program of the unit.
_OWN_STATUSES = {
    200: "its working folder cannot be entered",
    203: "its program cannot be executed",
    209: "its standard output cannot be set up",
    216: "its group cannot be set",
    217: "its user cannot be set",
    226: "its namespaces cannot be set up",
    238: "its state folder cannot be set up",
}


@dataclass(frozen=True, slots=True)
class UnitState:
    """The properties that matter, by the names that ``systemctl show`` gives them.

    ``invocation`` is the InvocationID in hexadecimal, new at every start and empty for what never ran. ``job`` is the
    number of the job that systemd has for the unit, 0 if there is none. ``restarts`` counts how often systemd
    started it again by itself since somebody last did.
    """

    load: str
    load_error: str
    active: str
    sub: str
    invocation: str
    job: int
    main_pid: int
    exit_code: int
    exit_status: int
    result: str
    type: str
    restart: str
    restarts: int
    enabled: str
    can_reload: bool

    @classmethod
    def of(cls, properties: Mapping[str, object]) -> UnitState:
        """From the properties of both interfaces as D-Bus gives them; what is missing is as if it never ran."""
        return cls(
            load=_text(properties.get("LoadState")),
            load_error=_text(_part(properties.get("LoadError"), 1)),
            active=_text(properties.get("ActiveState")),
            sub=_text(properties.get("SubState")),
            invocation=_hexadecimal(properties.get("InvocationID")),
            job=_number(_part(properties.get("Job"), 0)),
            main_pid=_number(properties.get("MainPID")),
            exit_code=_number(properties.get("ExecMainCode")),
            exit_status=_number(properties.get("ExecMainStatus")),
            result=_text(properties.get("Result")),
            type=_text(properties.get("Type")),
            restart=_text(properties.get("Restart")),
            restarts=_number(properties.get("NRestarts")),
            enabled=_text(properties.get("UnitFileState")),
            can_reload=properties.get("CanReload") is True,
        )

    @property
    def restarts_itself(self) -> bool:
        """Whether the unit is to be started again by systemd after an end of some kind."""
        return self.restart not in {"", "no"}

    @property
    def awaits_restart(self) -> bool:
        """Whether systemd is about to start it again by itself."""
        return self.active == "activating" and self.sub.startswith("auto-restart")

    @property
    def is_done(self) -> bool:
        """Whether it is a job that has run to its end and counts as active nevertheless (``RemainAfterExit=yes``)."""
        return self.type == "oneshot" and self.active == "active" and self.sub == "exited"

    @property
    def is_up(self) -> bool:
        """Whether it runs: also while it starts, reloads, or is asked to stop and has not done so yet."""
        if self.awaits_restart or self.is_done or self._lost_its_process:
            return False
        return self.active in {"active", "activating", "reloading", "refreshing", "deactivating", "maintenance"}

    @property
    def has_begun(self) -> bool:
        """Whether a start that was ordered has come to something: its program runs, or what goes before it does."""
        return self.job == 0 or (self.is_up and (self.main_pid > 0 or self.sub in {"condition", "start-pre"}))

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it is left."""
        return self.active in {"inactive", "failed"} or self.is_done

    @property
    def _lost_its_process(self) -> bool:
        return self.active == "deactivating" and self.main_pid == 0 and self.exit_code != 0

    def exit(self) -> Exit:
        """How what ran last has ended. To be asked once it has."""
        known = self._exit_of_main_process()
        if known.code in _OWN_STATUSES:
            return Exit(known.code, None, f"{known.detail} (systemd: {_OWN_STATUSES[known.code]})")
        if self.result in _PLAIN_RESULTS or not self.result:
            return known
        return Exit(known.code, known.signal, f"{known.detail} (systemd: {self.result})")

    def _exit_of_main_process(self) -> Exit:
        if self.exit_code == 0:
            return Exit.unknown(f"systemd says {self.result or 'nothing'}")
        if self.exit_code == _EXITED:
            return Exit.with_status(self.exit_status)
        return Exit.by_signal(self.exit_status, core_dumped=self.exit_code == _DUMPED)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _part(value: object, index: int) -> object:
    return value[index] if isinstance(value, list | tuple) and len(value) > index else None


def _hexadecimal(value: object) -> str:
    return bytes(value).hex() if isinstance(value, bytes | bytearray | list) else ""
