"""What systemd says of a unit, and what that means: a table of the states that were seen on a real one."""

from __future__ import annotations

from typing import Any

import pytest

from citadel_consul.backends.base import Exit
from citadel_consul.backends.systemd.refusals import failed_job, not_loaded, translated
from citadel_consul.backends.systemd.unit import UnitState
from citadel_consul.errors import BackendError, BackendUnavailable

RUNNING: dict[str, Any] = {
    "LoadState": "loaded",
    "LoadError": ["", ""],
    "ActiveState": "active",
    "SubState": "running",
    "InvocationID": bytes.fromhex("d6a2b7c07ae84b72b3c25cc5455ec91a"),
    "Job": [0, "/"],
    "MainPID": 94,
    "ExecMainCode": 0,
    "ExecMainStatus": 0,
    "Result": "success",
    "Type": "simple",
    "Restart": "no",
    "NRestarts": 0,
    "UnitFileState": "static",
    "CanReload": False,
}


def state(active: str = "active", sub: str = "running", **changes: object) -> UnitState:
    return UnitState.of({**RUNNING, "ActiveState": active, "SubState": sub, **changes})


def test_the_invocation_is_read_as_systemctl_shows_it() -> None:
    assert state().invocation == "d6a2b7c07ae84b72b3c25cc5455ec91a"


def test_what_was_never_heard_of_is_as_if_it_never_ran() -> None:
    nothing = UnitState.of({})
    assert (nothing.invocation, nothing.main_pid, nothing.is_up, nothing.restarts_itself) == ("", 0, False, False)


@pytest.mark.parametrize(
    ("seen", "is_up", "is_settled"),
    [
        (state(), True, False),
        (state("reloading", "reload"), True, False),
        (state("activating", "start"), True, False),
        (state("activating", "start-pre", MainPID=0), True, False),
        (state("activating", "auto-restart", MainPID=0, ExecMainCode=2), False, False),
        (state("activating", "auto-restart-queued", MainPID=0, ExecMainCode=2), False, False),
        (state("deactivating", "stop-sigterm"), True, False),
        (state("deactivating", "final-sigterm", MainPID=0, ExecMainCode=1), False, False),
        (state("deactivating", "stop-post", MainPID=0, ExecMainCode=2), False, False),
        (state("inactive", "dead", MainPID=0), False, True),
        (state("failed", "failed", MainPID=0, ExecMainCode=2), False, True),
        (state("active", "exited", MainPID=0, Type="oneshot"), False, True),
        (state("active", "exited", MainPID=0, Type="forking"), True, False),
    ],
)
def test_a_unit_is_up_or_over_and_settled_when_nothing_is_left(seen: UnitState, is_up: bool, is_settled: bool) -> None:
    assert (seen.is_up, seen.is_settled) == (is_up, is_settled)


@pytest.mark.parametrize(
    ("seen", "has_begun"),
    [
        (state(Job=[68, "/job/68"]), True),
        (state("inactive", "dead", Job=[68, "/job/68"]), False),  # as it is told between the fork and the start
        (state("failed", "failed", Job=[68, "/job/68"]), False),
        (state("activating", "start-pre", MainPID=0, Job=[68, "/job/68"]), True),
        (state("activating", "start", MainPID=0, Job=[68, "/job/68"]), False),
        (state("failed", "failed", MainPID=0, ExecMainCode=1), True),  # over before it was seen to run
    ],
)
def test_a_start_has_begun_when_its_program_runs_or_its_job_is_over(seen: UnitState, has_begun: bool) -> None:
    assert seen.has_begun is has_begun


@pytest.mark.parametrize(
    ("code", "status", "result", "ended"),
    [
        (1, 0, "success", Exit(0, None, "exit status 0")),
        (1, 3, "exit-code", Exit(3, None, "exit status 3")),
        (2, 9, "signal", Exit(None, 9, "killed by SIGKILL")),
        (3, 11, "core-dump", Exit(None, 11, "killed by SIGSEGV (core dumped)")),
        (2, 9, "oom-kill", Exit(None, 9, "killed by SIGKILL (systemd: oom-kill)")),
        (2, 6, "watchdog", Exit(None, 6, "killed by SIGABRT (systemd: watchdog)")),
        (1, 203, "exit-code", Exit(203, None, "exit status 203 (systemd: its program cannot be executed)")),
        (1, 1, "start-limit-hit", Exit(1, None, "exit status 1 (systemd: start-limit-hit)")),
        (0, 0, "resources", Exit(None, None, "exit status unknown: systemd says resources (systemd: resources)")),
        (0, 0, "success", Exit(None, None, "exit status unknown: systemd says success")),
    ],
)
def test_an_end_is_told_by_what_the_main_process_left(code: int, status: int, result: str, ended: Exit) -> None:
    seen = state("failed", "failed", MainPID=0, ExecMainCode=code, ExecMainStatus=status, Result=result)
    assert seen.exit() == ended


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("org.freedesktop.systemd1.NoSuchUnit", BackendError, "there is no unit x.service on this node"),
        ("org.freedesktop.systemd1.UnitMasked", BackendError, "`systemctl unmask x.service`"),
        ("org.freedesktop.systemd1.OnlyByDependency", BackendError, "refuses to be started or stopped by hand"),
        ("org.freedesktop.DBus.Error.AccessDenied", BackendError, "Let polkit allow it"),
        ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", BackendError, "may not manage x.service"),
        ("org.freedesktop.systemd1.ShuttingDown", BackendUnavailable, "does not take it now"),
        ("org.freedesktop.DBus.Error.NoReply", BackendUnavailable, "does not take it now"),
        ("org.freedesktop.DBus.Error.InvalidArgs", BackendError, "backend.unit: x.service: said so"),
    ],
)
def test_a_refusal_tells_by_its_type_whether_trying_again_can_help(name: str, kind: type, text: str) -> None:
    error = translated("x.service", name, "said so.")
    assert type(error) is kind
    assert text in str(error)


@pytest.mark.parametrize(
    ("load", "text"),
    [("not-found", "there is no unit"), ("masked", "is masked"), ("bad-setting", "cannot be loaded: it is odd")],
)
def test_a_unit_that_is_not_loaded_is_said_to_be_so(load: str, text: str) -> None:
    assert text in str(not_loaded("x.service", state(LoadState=load, LoadError=["some.error", "it is odd."])))


def test_a_unit_that_is_loaded_is_fine() -> None:
    assert not_loaded("x.service", state()) is None


def test_a_job_that_came_to_nothing_says_why() -> None:
    assert "something that it requires" in str(failed_job("x.service", "dependency", state()))
    assert "its result is resources" in str(failed_job("x.service", "failed", state(Result="resources")))
