"""What only units do: restart themselves, refuse, wait, complete, outlive a bus and leave things behind."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from backend_contract import LONG, eventually, until, watched
from machine_image import CHECKOUT
from managed_machine import PYTHON, Machine
from systemd_harness import SystemdHarness, unit_of

from citadel_consul.backends.base import Exit, Gone, Handle, Running
from citadel_consul.backends.systemd.inquiry import unit_states
from citadel_consul.backends.systemd.unit import UnitState
from citadel_consul.core.model import Instance, SystemdBackend
from citadel_consul.errors import BackendError, BackendUnavailable

FOREVER = "[Service]\nExecStart=/bin/sleep 1000\n"


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Machine:
    SystemdHarness.prepare(machine)
    return machine


@pytest.fixture
def harness(prepared: Machine, tmp_path: Path) -> Iterator[SystemdHarness]:
    harness = SystemdHarness(prepared, tmp_path)
    yield harness
    harness.clear()


async def refusal(harness: SystemdHarness, unit: str) -> str:
    """What a start of this unit is refused with."""
    async with harness.backend() as backend:
        with pytest.raises(BackendError) as caught:
            await backend.start(harness.launch("web", unit))
        assert await backend.adopt(harness.launch("web", unit)) == Gone()
    return str(caught.value)


class TestRefusals:
    async def test_a_unit_that_does_not_exist(self, harness: SystemdHarness) -> None:
        assert await refusal(harness, "nonesuch.service") == (
            "web@n1: backend.unit: there is no unit nonesuch.service on this node. "
            "Install what brings it; after writing a unit file, `systemctl daemon-reload`"
        )

    async def test_a_unit_that_is_masked(self, harness: SystemdHarness) -> None:
        unit = f"masked-{harness.token}.service"
        harness.machine.run(["systemctl", "mask", "--runtime", unit])
        assert f"{unit} is masked, so that nobody can start it: `systemctl unmask {unit}`" in await refusal(
            harness, unit
        )

    async def test_a_unit_file_that_makes_no_sense(self, harness: SystemdHarness) -> None:
        unit = harness.unit("[Service]\nType=nonsense\n")
        assert f"web@n1: backend.unit: {unit} cannot be loaded: Unit" in await refusal(harness, unit)

    async def test_a_unit_that_is_for_dependencies_only(self, harness: SystemdHarness) -> None:
        unit = harness.unit(f"[Unit]\nRefuseManualStart=yes\n{FOREVER}")
        assert f"{unit} refuses to be started or stopped by hand" in await refusal(harness, unit)

    async def test_a_unit_whose_requirement_fails(self, harness: SystemdHarness) -> None:
        broken = harness.unit("[Service]\nType=oneshot\nExecStart=/bin/false\n", "broken")
        unit = harness.unit(f"[Unit]\nRequires={broken}\nAfter={broken}\n{FOREVER}")
        text = await refusal(harness, unit)
        assert f"{unit} could not be started: something that it requires could not be started" in text

    async def test_a_unit_whose_condition_does_not_hold(self, harness: SystemdHarness) -> None:
        unit = harness.unit(f"[Unit]\nConditionPathExists=/nonesuch\n{FOREVER}")
        assert f"{unit} could not be started: a condition of it does not hold" in await refusal(harness, unit)

    async def test_two_instances_cannot_be_one_unit(self, harness: SystemdHarness) -> None:
        unit = harness.unit(FOREVER)
        async with harness.backend() as backend:
            await backend.start(harness.launch("web", unit))
            with pytest.raises(BackendError, match=rf"^api@n1: backend\.unit: {unit} is what web@n1 runs"):
                await backend.start(harness.launch("api", unit))
            await backend.stop(Instance("web", "n1"), LONG)
            assert (await backend.start(harness.launch("api", unit))).unit == unit


async def test_a_program_that_cannot_be_executed_is_an_end_with_systemds_reason(harness: SystemdHarness) -> None:
    async with harness.backend() as backend:
        exits = watched(backend)
        await backend.start(harness.launch("web", harness.unit("[Service]\nExecStart=/nonesuch\n")))
        assert (await exits.next()).exit == Exit(203, None, "exit status 203 (systemd: its program cannot be executed)")


async def test_the_leaders_budget_counts_starts_and_not_systemds_limit(harness: SystemdHarness) -> None:
    unit = harness.unit(f"[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=2\n{FOREVER}")
    async with harness.backend() as backend:
        exits = watched(backend)
        for generation in range(1, 6):
            handle = await backend.start(harness.launch("web", unit, generation))
            if generation % 2:  # a unit that failed is one way to the limit, one that ended well another
                harness.kill(handle)
                await exits.next()
            else:
                await backend.stop(Instance("web", "n1"), LONG)
                assert (await exits.next()).requested


class TestWhoRestarts:
    async def test_citadel_does_and_what_systemd_plans_is_cancelled(self, harness: SystemdHarness) -> None:
        unit = harness.unit("[Service]\nExecStart=/bin/sleep 1000\nRestart=always\nRestartSec=1h\n")
        async with harness.backend() as backend:
            exits = watched(backend)
            handle = await backend.start(harness.launch("web", unit))
            assert len(harness.notices) == 1
            assert f"{unit} has Restart=always, and citadel restarts it, too" in harness.notices[0]
            harness.kill(handle)
            assert (await exits.next()).exit == Exit(None, 9, "killed by SIGKILL")
            await until(lambda: harness.machine.shown(unit, "ActiveState") in {"inactive", "failed"})
            again = await backend.start(harness.launch("web", unit, 2))
            assert harness.is_running(again)
            assert len(harness.notices) == 1

    async def test_what_systemd_started_before_it_could_be_kept_from_it_is_stopped(
        self, harness: SystemdHarness
    ) -> None:
        unit = harness.unit("[Service]\nExecStart=/bin/sleep 1000\nRestart=always\nRestartSec=0\n")
        async with harness.backend() as backend:
            exits = watched(backend)
            handle = await backend.start(harness.launch("web", unit))
            harness.kill(handle)
            assert (await exits.next()).requested is False
            again = await backend.start(harness.launch("web", unit, 2))
            assert harness.is_running(again)
            assert harness.machine.shown(unit, "MainPID") == str(again.pid)
            assert exits.seen == []

    async def test_an_ordered_start_takes_the_place_of_systemds_own(self, harness: SystemdHarness) -> None:
        unit = harness.unit("[Service]\nExecStart=/bin/sleep 1000\nRestart=always\nRestartSec=1h\n")
        async with harness.backend() as backend:
            exits = watched(backend)
            harness.kill(await backend.start(harness.launch("web", unit)))
            await exits.next()
            async with asyncio.timeout(LONG):
                assert harness.is_running(await backend.start(harness.launch("web", unit, 2)))
            assert exits.seen == []

    async def test_systemd_does_if_it_is_left_to_it(self, harness: SystemdHarness) -> None:
        unit = harness.unit("[Service]\nExecStart=/bin/sleep 1000\nRestart=always\nRestartSec=50ms\n")
        launch = harness.launch("web", unit, restarts="systemd")
        async with harness.backend() as backend:
            exits = watched(backend)
            first = await backend.start(launch)
            harness.kill(first)
            await until(lambda: any("systemd has started it again" in notice for notice in harness.notices))
            second = await backend.start(launch)
            assert second != first
            assert harness.is_running(second)
            assert exits.seen == []
            assert await backend.stop(launch.instance, LONG) is not None
            assert [exited.requested for exited in exits.seen] == [True]

    async def test_an_end_is_told_when_systemd_gives_up(self, harness: SystemdHarness) -> None:
        limit = "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=3\n"
        unit = harness.unit(f"{limit}[Service]\nExecStart=/bin/false\nRestart=on-failure\nRestartSec=10ms\n")
        async with harness.backend() as backend:
            exits = watched(backend)
            await backend.start(harness.launch("web", unit, restarts="systemd"))
            exited = await exits.next()
            assert exited.exit.code == 1
            assert int(harness.machine.shown(unit, "NRestarts")) >= 2
            assert exits.seen == []

    async def test_a_restart_by_hand_ends_one_run_and_the_next_is_taken_over(self, harness: SystemdHarness) -> None:
        launch = harness.steady("web")
        async with harness.backend() as backend:
            exits = watched(backend)
            first = await backend.start(launch)
            await asyncio.to_thread(harness.machine.run, ["systemctl", "restart", unit_of(launch)])
            assert (await exits.next()).requested is False
            second = await backend.start(harness.steady("web", 2))
            assert second.invocation != first.invocation
            assert harness.is_running(second)
            assert harness.machine.shown(unit_of(launch), "MainPID") == str(second.pid)


async def test_what_is_given_back_runs_on_and_is_ours_no_longer(harness: SystemdHarness) -> None:
    launch = harness.steady("web")
    async with harness.backend() as backend:
        exits = watched(backend)
        handle = await backend.start(launch)
        await backend.give_back(launch.instance)
        assert await backend.survivors() == ()
        assert await backend.stop(launch.instance, LONG) is None
        assert harness.is_running(handle)
        harness.kill(handle)
        await until(lambda: not harness.is_running(handle))
        assert exits.seen == []


async def test_what_is_taken_over_is_said(harness: SystemdHarness) -> None:
    launch = harness.steady("web")
    await harness.start_by_hand(launch)
    async with harness.backend() as backend:
        handle = await backend.start(launch)
        await backend.start(launch)
    async with harness.backend() as backend:
        assert await backend.adopt(launch) == Running(handle, 1)
    assert harness.notices == [f"web@n1: {unit_of(launch)} ran already, and is taken over as it is"]


async def test_what_is_enabled_is_said_once_and_noted(harness: SystemdHarness) -> None:
    unit = harness.unit(f"{FOREVER}[Install]\nWantedBy=multi-user.target\n")
    harness.machine.run(["systemctl", "enable", unit])
    launch = harness.launch("web", unit)
    async with harness.backend() as backend:
        await backend.start(launch)
        await backend.stop(launch.instance, LONG)
        await backend.start(replace(launch, generation=2))
    async with harness.backend() as backend:
        assert isinstance(await backend.adopt(launch), Running)
    assert [f"{unit} is enabled: at boot systemd starts it by itself" in notice for notice in harness.notices] == [True]
    harness.machine.run(["systemctl", "disable", unit])


async def test_a_start_does_not_wait_until_the_service_is_ready(harness: SystemdHarness) -> None:
    unit = harness.unit("[Service]\nType=notify\nExecStart=/bin/sleep 1000\nTimeoutStartSec=infinity\n")
    async with harness.backend() as backend:
        async with asyncio.timeout(LONG):
            handle = await backend.start(harness.launch("web", unit))
        assert harness.is_running(handle)
        assert harness.machine.shown(unit, "ActiveState") == "activating"
        assert await backend.stop(Instance("web", "n1"), LONG) == Exit(None, 15, "killed by SIGTERM")


async def test_what_goes_before_the_program_can_be_stopped(harness: SystemdHarness) -> None:
    unit = harness.unit(
        "[Service]\nExecStartPre=/bin/sleep 1000\nExecStart=/bin/sleep 1000\nTimeoutStartSec=infinity\n"
    )
    async with harness.backend() as backend, asyncio.timeout(LONG):
        handle = await backend.start(harness.launch("web", unit))
        assert handle.pid is None
        assert await backend.stop(Instance("web", "n1"), LONG) is not None
        assert harness.machine.shown(unit, "SubState") in {"dead", "failed"}


@pytest.mark.parametrize("remains", ["no", "yes"])
async def test_a_job_completes_and_runs_again_at_the_next_start(harness: SystemdHarness, remains: str) -> None:
    script = f"echo ran >>/run/contract/{harness.token}"
    unit = harness.unit(f'[Service]\nType=oneshot\nRemainAfterExit={remains}\nExecStart=/bin/sh -c "{script}"\n')
    async with harness.backend() as backend:
        exits = watched(backend)
        for generation in (1, 2):
            await backend.start(harness.launch("job", unit, generation))
            assert (await exits.next()).exit.succeeded
        assert (harness.machine.root / "run/contract" / harness.token).read_text() == "ran\nran\n"


async def test_what_a_dead_service_left_behind_is_ended_before_the_next_start(harness: SystemdHarness) -> None:
    script = "(trap '' TERM; while :; do sleep 0.05; done) & exec sleep 1000"
    unit = harness.unit(f'[Service]\nExecStart=/bin/sh -c "{script}"\nTimeoutStopSec=infinity\n')
    async with harness.backend() as backend:
        exits = watched(backend)
        handle = await backend.start(harness.launch("web", unit))
        harness.kill(handle)
        await exits.next()
        began = time.monotonic()
        again = await backend.start(harness.launch("web", unit, 2))
        assert time.monotonic() - began < LONG
        assert harness.is_running(again)


async def test_a_stop_command_that_hangs_is_killed_after_the_time_out(harness: SystemdHarness) -> None:
    unit = harness.unit("[Service]\nExecStart=/bin/sleep 1000\nExecStop=/bin/sleep 1000\nTimeoutStopSec=infinity\n")
    async with harness.backend() as backend:
        handle = await backend.start(harness.launch("web", unit))
        async with asyncio.timeout(LONG):
            assert await backend.stop(Instance("web", "n1"), 0.2) == Exit(None, 9, "killed by SIGKILL")
        assert not harness.is_running(handle)


async def test_what_was_started_is_stopped_whatever_the_spec_says_by_now(harness: SystemdHarness) -> None:
    old, new = harness.unit(FOREVER, "old"), harness.unit(FOREVER, "new")
    async with harness.backend() as backend:
        first = await backend.start(harness.launch("web", old))
    async with harness.backend() as backend:
        assert await backend.adopt(harness.launch("web", new)) == Running(first, 1)
        assert await backend.stop(Instance("web", "n1"), LONG) is not None
        assert not harness.is_running(first)
        assert (await backend.start(harness.launch("web", new, 2))).unit == new


async def test_a_damaged_record_costs_the_generation_and_nothing_else(harness: SystemdHarness) -> None:
    launch = harness.steady("web", 4)
    async with harness.backend() as backend:
        handle = await backend.start(launch)
    (record,) = harness.state_dir.rglob("web.json")
    record.write_text("{")
    async with harness.backend() as backend:
        assert await backend.adopt(harness.steady("web", 9)) == Running(handle, 9)


async def test_systemd_that_executes_itself_anew_is_followed(harness: SystemdHarness) -> None:
    async with harness.backend() as backend:
        exits = watched(backend)
        handle = await backend.start(harness.steady("web"))
        await asyncio.to_thread(harness.machine.run, ["systemctl", "daemon-reexec"])
        assert await eventually(lambda: backend.start(harness.steady("web"))) == handle
        assert exits.seen == []
        harness.kill(handle)
        assert (await exits.next()).exit == Exit(None, 9, "killed by SIGKILL")
        assert harness.is_running(await eventually(lambda: backend.start(harness.steady("web", 2))))


async def test_units_that_are_read_anew_go_on(harness: SystemdHarness) -> None:
    async with harness.backend() as backend:
        exits = watched(backend)
        handle = await backend.start(harness.steady("web"))
        await asyncio.to_thread(harness.machine.daemon_reload)
        assert await backend.start(harness.steady("web")) == handle
        assert await backend.stop(Instance("web", "n1"), LONG) is not None
        assert len(exits.seen) == 1


async def test_a_stop_goes_on_over_a_restart_of_the_bus(harness: SystemdHarness) -> None:
    async with harness.backend() as backend:
        launch = harness.stubborn("web")
        handle = await backend.start(launch)
        await harness.ready(launch)
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(backend.stop(launch.instance, 2.0))
            await asyncio.sleep(0.1)
            async with harness.absence():
                pass
        assert stopping.result() == Exit(None, 9, "killed by SIGKILL")
        assert not harness.is_running(handle)


@pytest.mark.slow
async def test_a_machine_that_was_rebooted_has_nothing_running(new_machine: object, tmp_path: Path) -> None:
    assert callable(new_machine)
    machine: Machine = new_machine()
    SystemdHarness.prepare(machine)
    harness = SystemdHarness(machine, tmp_path)
    ours = harness.launch("web", harness.unit(FOREVER, "ours"))
    own = harness.unit(f"{FOREVER}[Install]\nWantedBy=multi-user.target\n", "enabled")
    machine.run(["systemctl", "enable", own])
    theirs = harness.launch("api", own)
    before: list[Handle] = []
    async with harness.backend() as backend:
        before += [await backend.start(ours), await backend.start(theirs)]
    await asyncio.to_thread(machine.reboot)
    async with harness.backend() as backend:
        assert await backend.adopt(ours) == Gone(1, Exit.unknown("no agent saw its end"))
        found = await backend.adopt(theirs)
        assert isinstance(found, Running)
        assert (found.generation, found.handle.unit) == (1, own)
        assert found.handle.invocation != before[1].invocation


def test_a_user_may_not_manage_the_systems_units_and_may_manage_its_own(prepared: Machine) -> None:
    machine, home = prepared, "/home/somebody"
    machine.unit("theirs.service", FOREVER)
    machine.daemon_reload()
    machine.write(f"{home}/.config/systemd/user/ours.service", FOREVER)
    machine.run(["chown", "-R", "somebody:", home])
    machine.run(["loginctl", "enable-linger", "somebody"])
    uid = machine.output("id", "-u", "somebody")
    bus = ["test", "-S", f"/run/user/{uid}/bus"]
    machine.until(lambda: machine.run(bus, check=False).returncode == 0, "somebody has a bus")
    program = [PYTHON, f"{CHECKOUT}/tests/managers/unprivileged_agent.py", f"{home}/state", "theirs.service"]
    environment = {"XDG_RUNTIME_DIR": f"/run/user/{uid}", "HOME": home}
    said = json.loads(machine.run([*program, "ours.service"], user="somebody", env=environment).stdout)
    assert said.pop("refusal") == (
        "BackendError: theirs@n1: this user may not manage theirs.service: Interactive authentication required. "
        "Let polkit allow it (`citadel install agent` writes a rule), or run the node agent as root"
    )
    assert said.pop("pid") > 0
    assert said == {"unit": "ours.service", "exit": "killed by SIGTERM", "told": [True]}
    assert machine.shown("theirs.service", "ActiveState") == "inactive"


async def test_units_can_be_asked_about_without_running_any(harness: SystemdHarness) -> None:
    known = SystemdBackend(harness.unit("[Service]\nExecStart=/bin/true\nRestart=always\n"))
    strange, elsewhere = SystemdBackend("nonesuch.service"), SystemdBackend("x.service", bus="user")
    addresses = {"system": harness.machine.system_bus, "user": f"unix:path={harness.state_dir}/no-bus"}
    answers = await unit_states((known, strange, elsewhere, known), addresses)
    state = answers[known]
    assert isinstance(state, UnitState)
    assert (state.load, state.restart, state.active) == ("loaded", "always", "inactive")
    missing = answers[strange]
    assert isinstance(missing, UnitState)
    assert missing.load == "not-found"
    assert isinstance(answers[elsewhere], BackendUnavailable)
