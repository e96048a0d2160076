"""systemd's refusals in the words of the error tree, each with what to do about it."""

from __future__ import annotations

from citadel_consul.backends.systemd.unit import UnitState
from citadel_consul.errors import BackendError, BackendUnavailable

_SYSTEMD = "org.freedesktop.systemd1."
_DBUS = "org.freedesktop.DBus.Error."

_DENIED = frozenset(
    {
        f"{_DBUS}AccessDenied",
        f"{_DBUS}InteractiveAuthorizationRequired",
        f"{_DBUS}AuthFailed",
        "org.freedesktop.PolicyKit1.Error.NotAuthorized",
    }
)
# They pass by themselves: systemd is just starting, going down or reading its units anew, or the bus lost it.
_TEMPORARY = frozenset(
    {
        f"{_SYSTEMD}ShuttingDown",
        f"{_SYSTEMD}TransactionIsDestructive",
        f"{_SYSTEMD}TransactionJobsConflicting",
        *(
            _DBUS + name
            for name in (
                *("NoReply", "Timeout", "TimedOut", "ServiceUnknown", "NameHasNoOwner", "Disconnected"),
                *("LimitsExceeded", "NoMemory", "NoServer", "NotConnected", "Spawn.ServiceNotFound"),
            )
        ),
    }
)


def translated(unit: str, name: str, text: str) -> BackendError | BackendUnavailable:
    """The error for a reply with D-Bus's error ``name``."""
    if name in _TEMPORARY:
        return BackendUnavailable(f"{unit}: systemd does not take it now: {text}")
    if name in _DENIED:
        return BackendError(
            f"this user may not manage {unit}: {text.rstrip('.')}. "
            f"Let polkit allow it (`citadel install agent` writes a rule), or run the node agent as root"
        )
    if name == f"{_SYSTEMD}NoSuchUnit":
        return BackendError(no_such_unit(unit))
    if name == f"{_SYSTEMD}UnitMasked":
        return BackendError(masked(unit))
    if name == f"{_SYSTEMD}OnlyByDependency":
        return BackendError(f"backend.unit: {unit} refuses to be started or stopped by hand (RefuseManual…=)")
    return BackendError(f"backend.unit: {unit}: {text.rstrip('.')}")


def not_loaded(unit: str, state: UnitState) -> BackendError | None:
    """The error for a unit that systemd could not load; None if it could."""
    if state.load == "loaded":
        return None
    if state.load == "not-found":
        return BackendError(no_such_unit(unit))
    if state.load == "masked":
        return BackendError(masked(unit))
    why = state.load_error.rstrip(".") or state.load
    return BackendError(f"backend.unit: {unit} cannot be loaded: {why}. `systemd-analyze verify {unit}` tells more")


def no_such_unit(unit: str) -> str:
    """What to say of a unit that does not exist."""
    return (
        f"backend.unit: there is no unit {unit} on this node. "
        f"Install what brings it; after writing a unit file, `systemctl daemon-reload`"
    )


def masked(unit: str) -> str:
    """What to say of a unit that is masked."""
    return f"backend.unit: {unit} is masked, so that nobody can start it: `systemctl unmask {unit}`"


def failed_job(unit: str, result: str, state: UnitState) -> BackendError:
    """The error for a start that systemd took and that came to nothing."""
    reasons = {
        "dependency": "something that it requires could not be started",
        "timeout": "it took longer than its own time-out",
        "canceled": "somebody else cancelled it",
        "done": "a condition of it does not hold",
        "skipped": "a condition of it does not hold",
        "invalid": "a unit in its state cannot be started",
        "assert": "an assertion of it does not hold",
        "unsupported": "this system does not support it",
        "once": "it can be started only once",
    }
    why = reasons.get(result, f"its result is {state.result or result}")
    return BackendError(f"{unit} could not be started: {why}. `systemctl status {unit}` tells more")
