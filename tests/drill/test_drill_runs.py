"""Drills of a small stack by real processes: one that passes, and faults that are really there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from drill_stack import Drill, DrilledWorld
from planted_bug import planted

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import Instance
from citadel_consul.core.operation import Kind
from citadel_consul.store.keys import Keys

pytestmark = [pytest.mark.consul, pytest.mark.long]

NEVER_MENDS = (
    "agent/agent.py",
    "        await mend_for_ever(self._registrar, self._consul_node, MEND_SECONDS)\n",
    "        return\n",
)
"""A node agent that does not register again what others have deregistered."""
CONTROL = Path(__file__).parents[2] / "bin" / "orchestrator_control.sh"


def assert_fails(drill: Drill, line: str, reason: str) -> None:
    assert drill.status == 1, drill
    assert line in drill.failures, drill
    assert reason in drill.failures[line], drill


def test_a_drill_of_a_sound_stack_passes_and_leaves_it_as_it_was(world: DrilledWorld) -> None:
    world.bring_up()
    before = world.snapshot()
    drill = world.drill("--yes", "--data", str(world.data()))
    assert drill.status == 0, drill
    assert "❌" not in drill.out
    assert "➖" not in drill.out
    assert drill.out.splitlines()[0] == "Orchestration Full Cycle Test Results:"
    assert "✅ Simulated service failure (store)" in drill.out
    assert "✅ Dependent services notified (2 of 2)" in drill.out
    assert "✅ No data loss detected (2 of 2 found again)" in drill.out
    assert "✅ System ready for production use" in drill.out
    after = world.snapshot()
    assert {i for i in after.observed if after.is_alive(i)} == {i for i in before.observed if before.is_alive(i)}
    assert not after.checks


def test_a_stack_that_was_down_is_down_again_after_its_drill(world: DrilledWorld) -> None:
    world.bring_up(start=False)
    drill = world.drill("--yes", "--phase", "2", "--phase", "3", "-o", "json")
    assert drill.status == 0, drill
    assert [phase["number"] for phase in drill.answer["phases"]] == [2, 3]
    assert len(world.lives("api")) == 1, "it was started once, and that start was judged"
    assert all(not pids for pids in world.running_pids().values())


def test_what_did_not_run_before_does_not_run_after(world: DrilledWorld) -> None:
    world.bring_up(start=False)
    world.operate(Kind.STARTUP, "report")
    drill = world.drill("--yes", "--phase", "1")
    assert drill.status == 0, drill
    after = world.snapshot()
    assert {i.service for i in after.observed if after.is_alive(i)} == {"store", "report"}


def test_a_service_that_ignores_its_stop_signal_spoils_the_clean_shutdown(world: DrilledWorld) -> None:
    world.bring_up("deaf")
    drill = world.drill("--yes", "--phase", "5", "-o", "json")
    assert_fails(drill, "Clean shutdown completed", "store@n1 did not end on SIGTERM and was killed")
    assert set(drill.failures) == {"Clean shutdown completed"}


def test_lost_data_is_noticed(world: DrilledWorld) -> None:
    world.bring_up("forgetful")
    drill = world.drill("--yes", "--phase", "5", "--data", str(world.data()), "-o", "json")
    assert_fails(drill, "No data loss detected", "datum 1 of 2 is gone")
    assert set(drill.failures) == {"No data loss detected"}


def test_a_wrong_health_endpoint_is_noticed(world: DrilledWorld) -> None:
    world.bring_up("lost")
    drill = world.drill("--yes", "--phase", "1", "-o", "json")
    assert_fails(drill, "Health endpoints validated", "HTTP 404")


def test_a_service_that_nobody_can_find_is_noticed(world: DrilledWorld) -> None:
    world.bring_up(agent=planted(world.folder / "planted", *NEVER_MENDS))

    async def deregister(client: ConsulClient) -> None:
        await client.deregister_service(f"{world.stack}.report.n1")

    world.ask(deregister)
    drill = world.drill("--yes", "--phase", "1", "-o", "json")
    assert_fails(drill, "All services registered successfully", "report@n1 is not registered")


def test_a_startup_over_its_target_is_noticed(world: DrilledWorld) -> None:
    world.bring_up(web={"delay": 1.5})
    drill = world.drill("--yes", "--phase", "2", "--target", "1s", "-o", "json")
    assert drill.status == 1
    (line,) = drill.failures
    assert line.startswith("Total startup time: ")
    assert line.endswith("(target: <1s)")


def test_recovery_that_is_switched_off_is_noticed_and_the_stack_mended_all_the_same(world: DrilledWorld) -> None:
    world.bring_up(ORCHESTRATOR_RECOVERY_ENABLED="false")
    drill = world.drill("--yes", "--phase", "4", "-o", "json")
    assert_fails(drill, "Automatic recovery triggered", "automatic recovery is switched off")
    assert world.snapshot().is_alive(Instance("store", "n1"))
    assert sum(world.is_store(pid) for pid in world.lives("store")) == 1


def test_a_hold_on_the_victim_is_noticed(world: DrilledWorld) -> None:
    world.bring_up()

    async def hold(client: ConsulClient) -> None:
        await client.kv_put(Keys(world.stack).hold("service", "api"), b'{"by": "ops"}')

    world.ask(hold)
    drill = world.drill("--yes", "--phase", "4", "--victim", "api", "-o", "json")
    assert_fails(drill, "Automatic recovery triggered", "a hold stands on it, by ops")


def test_a_process_that_outlives_its_service_is_noticed(world: DrilledWorld) -> None:
    """It bears the mark that a node agent gives to what it starts, and no node agent knows of it."""
    world.bring_up()
    marks = {"CITADEL_LAUNCH": "x", "CITADEL_STACK": world.stack, "CITADEL_SERVICE": "api"}
    with subprocess.Popen(["sleep", "1000"], env={**os.environ, **marks}) as orphan:
        try:
            drill = world.drill("--yes", "--phase", "5", "-o", "json")
        finally:
            orphan.kill()
    assert_fails(drill, "Clean shutdown completed", f"api: process {orphan.pid} (sleep) is left")


def test_an_edge_that_is_not_in_force_is_noticed(world: DrilledWorld) -> None:
    world.bring_up()

    async def close_a_cycle(client: ConsulClient) -> None:
        await client.kv_put(Keys(world.stack).edge("store", "web"), b"{}")

    world.ask(close_a_cycle)
    drill = world.drill("--yes", "--phase", "1", "-o", "json")
    assert_fails(drill, "Dependency graph resolved correctly", "store → web is not in force")


START_RULE = ("core/rules.py", "        and not snapshot.edge_met(edge)\n", "        and False\n")
TELLING = ("core/plan.py", "                steps += [replace(_step(i, action), after=starts) for i in running]\n", "")
STOP_RULE = ("core/rules.py", "        if running:\n", "        if False:\n")


def test_an_orchestrator_that_starts_in_the_wrong_order_is_noticed(world: DrilledWorld) -> None:
    world.bring_up(environ=planted(world.folder / "planted", *START_RULE))
    drill = world.drill("--yes", "--phase", "2", "-o", "json")
    assert_fails(drill, "Services started in correct order", " was started before ")


def test_an_orchestrator_that_stops_in_the_wrong_order_is_noticed(world: DrilledWorld) -> None:
    world.bring_up(environ=planted(world.folder / "planted", *STOP_RULE))
    drill = world.drill("--yes", "--phase", "5", "-o", "json")
    assert_fails(drill, "Services stopped in reverse dependency order", "store@n1 was stopped while ")


def test_an_orchestrator_that_tells_no_dependents_is_noticed(world: DrilledWorld) -> None:
    world.bring_up(environ=planted(world.folder / "planted", *TELLING))
    drill = world.drill("--yes", "--phase", "4", "-o", "json")
    assert_fails(drill, "Dependent services notified", "report@n1 was not told")


# --- beginning, and who may ------------------------------------------------------------------------------------------


def test_a_stack_that_is_not_of_citadel_dev_is_not_drilled_without_a_word(world: DrilledWorld) -> None:
    world.bring_up()
    lives = {service: world.lives(service) for service in ("store", "api", "web")}
    drill = world.drill()
    assert drill.status == 4
    assert "--yes says that it may" in drill.err
    assert {service: world.lives(service) for service in lives} == lives


def test_bad_input_is_told_before_anything_is_touched(world: DrilledWorld) -> None:
    world.bring_up()
    assert "did you mean store?" in world.drill("--yes", "--victim", "stor").err
    assert "--target" in world.drill("--yes", "--target", "soon").err
    assert world.drill("--yes", "--data", str(world.folder / "none.yaml")).status == 2
    (world.folder / "bad.yaml").write_text("write: {url: 'ftp://h'}\n")
    bad = world.drill("--yes", "--data", str(world.folder / "bad.yaml"))
    assert bad.status == 2
    assert "read" in bad.err
    assert len(world.lives("api")) == 1


def test_without_a_leader_or_an_agent_there_is_no_drill(world: DrilledWorld) -> None:
    world.apply([world.store()])
    assert world.drill("--yes").status == 3
    world.orchestrator()
    world.until_led()
    refused = world.drill("--yes")
    assert refused.status == 4
    assert "no node agent answers for n1" in refused.err


def test_the_control_script_runs_the_drill_and_shows_the_status(world: DrilledWorld) -> None:
    world.bring_up()
    environ = {**os.environ, "CONSUL_HTTP_ADDR": world.consul, "CITADEL_STACK": world.stack}

    def control(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(CONTROL), *words], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=180, check=False, cwd="/",
        )  # fmt: skip

    done = control("--test-full-cycle", "--phase", "1", "--yes")
    assert done.returncode == 0, done
    assert "Test Phase 1: Service Discovery" in done.stdout
    assert control("--test-full-cycle", "--phase", "1").returncode == 4
    assert "store" in control("--status").stdout
    assert "--test-full-cycle" in control("--help").stdout
    assert control("--unknown").returncode == 2
    assert control().returncode == 2
