"""What doctor says of the units that services are."""

from __future__ import annotations

from typing import Any

import pytest

from citadel_consul.backends.systemd.unit import UnitState
from citadel_consul.core.model import SystemdBackend
from citadel_consul.doctor.units import findings_on

FINE: dict[str, Any] = {"LoadState": "loaded", "Restart": "no", "UnitFileState": "disabled", "ActiveState": "inactive"}
UNIT = SystemdBackend("redis-server.service")


def codes(spec: SystemdBackend = UNIT, **properties: object) -> dict[str, str]:
    found = findings_on("redis", spec, UnitState.of(FINE | properties))
    assert all(finding.place == f"redis, {spec.unit}" and finding.message and finding.remedy for finding in found)
    return {f.code: f.command for f in findings_on("redis", spec, UnitState.of(FINE | properties))}


def test_nothing_is_said_of_a_unit_that_is_left_to_citadel() -> None:
    assert codes() == {}


def test_two_who_restart_are_one_too_many_unless_it_is_said_who_does() -> None:
    assert codes(Restart="always") == {"unit-restarts-itself": "systemctl edit redis-server.service"}
    assert codes(SystemdBackend(UNIT.unit, restarts="systemd"), Restart="always") == {}


def test_what_starts_at_boot_by_itself_is_said_with_the_way_out() -> None:
    user = SystemdBackend("a.service", bus="user")
    assert codes(user, UnitFileState="enabled") == {"unit-enabled": "systemctl --user disable a.service"}


@pytest.mark.parametrize("load", ["not-found", "masked", "bad-setting", "error"])
def test_a_unit_that_cannot_run_is_an_error_and_nothing_else_is_said_of_it(load: str) -> None:
    assert codes(LoadState=load, Restart="always", UnitFileState="enabled") == {"unit-unfit": ""}
