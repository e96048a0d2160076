"""Operations by command line on a stack that really runs."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
import yaml
from command_line import CommandLine, Lines
from real_world import World

from citadel_consul.core.model import ProcessBackend, RecoveryPolicy
from citadel_consul.core.operation import Kind

pytestmark = [pytest.mark.consul, pytest.mark.slow]


def test_up_starts_in_order_and_says_so_line_by_line(cli: CommandLine, running: World) -> None:
    result = cli.ok("up", "top", "--reason", "a test")
    done = re.findall(r"✔ start (\w+)@n1 \(\d+\.\d\d s\)", result.out)
    assert done == ["base", "middle", "top"], "what it needs first, and nothing else"
    assert re.search(r"startup succeeded \(3 of 3 steps, \d+\.\d\d s\)", result.out)
    assert "\x1b[" not in result.out
    assert cli.json("ops", "list")["operations"][0]["reason"] == "a test"


def test_down_without_cascade_is_refused_and_names_the_dependents(cli: CommandLine, running: World) -> None:
    cli.ok("up")
    before = running.running_pids()
    result = cli("down", "base")
    assert result.status == 4
    assert "stopping base would take down top, middle; ask for it with --cascade" in result.err
    assert cli("plan", "down", "base").status == 4
    assert running.running_pids() == before
    assert [op["kind"] for op in cli.json("ops", "list")["operations"]] == ["startup"], "it was not even asked for"
    stopped = re.findall(r"✔ stop  (\w+)@n1", cli.ok("down", "base", "--cascade").out)
    assert stopped == ["top", "middle", "base"]
    assert set(filter(None, map(len, running.running_pids().values()))) == {1}, "aside goes on"


def test_a_plan_shows_the_order_and_what_needs_nothing_done(cli: CommandLine, running: World) -> None:
    cli.ok("up", "base")
    lines = [line.split(maxsplit=4) for line in cli.ok("plan", "up", "top").out.splitlines()[1:]]
    assert [line[:3] for line in lines] == [["1", "base", "n1"], ["2", "middle", "n1"], ["3", "top", "n1"]]
    assert lines[0][3:] == ["start", "(runs already)"]
    steps = cli.json("plan", "down", "base", "--cascade")["steps"]
    assert steps == [{"order": 1, "service": "base", "node": "n1", "step": "stop", "after": ""}]
    assert len(cli.json("ops", "list")["operations"]) == 1, "planning asks for nothing"


def test_the_results_of_operations_are_those_of_the_api(cli: CommandLine, running: World) -> None:
    started = cli.json("up")["startup_result"]
    assert started["total_services"] == 4
    assert started["success_rate"] == 100.0
    recovered = cli.json("recover", "aside")["recovery_result"]
    assert recovered["recovery_successful"] is True
    restarted = yaml.safe_load(cli.ok("restart", "middle", "-o", "yaml").out)["restart_result"]
    assert restarted["state"] == "succeeded"
    stopped = cli.json("down")["shutdown_result"]
    assert stopped["failed_services"] == []


def test_an_operation_that_fails_ends_with_status_1_and_says_where_to_look(cli: CommandLine, running: World) -> None:
    _break_middle(running)
    result = cli("up", "top")
    assert result.status == 1
    assert "✘ start middle@n1: exit status 1" in result.out
    assert "- start top@n1: needs middle, which is not healthy" in result.out
    assert "see citadel logs middle · citadel explain middle" in result.err
    assert "error: startup failed: start of middle@n1: exit status 1" in result.err
    status = cli.ok("status").out
    assert re.search(r"✘ middle +unhealthy +exit status 1", status)
    assert "needed by top" in status
    told = cli.json("explain", "top")
    assert told["chain"] == ["top needs middle to be healthy, and it is unhealthy (exit status 1)"]
    assert told["do"] == "mend middle first: citadel explain middle"
    assert "skipped its start" in told["why"]
    assert told["when"] == "as soon as what it needs is back: it is still wanted"


def _break_middle(world: World) -> None:
    """It ends at once, and citadel leaves it at that."""
    left_alone = RecoveryPolicy(enabled=False)
    world.apply([world.tiny("middle", backend=ProcessBackend(command=("false",)), recovery=left_alone)], [])


def test_a_failed_start_is_undone_if_that_is_asked_for(cli: CommandLine, running: World) -> None:
    _break_middle(running)
    result = cli("up", "top", "--on-failure", "rollback")
    assert result.status == 1
    assert "✔ stop  base@n1" in result.out
    assert "undone" in result.err
    assert not any(running.running_pids().values())


def test_two_operations_on_the_same_service_do_not_run_at_once(cli: CommandLine, running: World) -> None:
    """The first is held up by a service that is slow to start; the second waits and says for what."""
    running.apply([running.tiny("base", delay=2.0)], [])
    first = cli.ok("up", "base", "--detach").out.strip()
    running.until(lambda: (op := running.operation(first)) is not None and op.started_at, what="the first to begin")
    second = cli.ok("down", "--detach").out.strip()
    running.until(lambda: (op := running.operation(second)) is not None and op.waits_for, what="the second to wait")
    assert f"waits for {first}" in cli.ok("ops", "list").out
    assert cli.json("ops", "show", second)["waits_for"] == first
    status = cli.ok("status").out
    assert re.search(rf"shutdown pending +all.*{second}", status)
    assert f"waits for operation {first}" in status
    assert cli.json("explain", "base")["operation"] == first, "the one that has it in hand"
    shown = cli.ok("ops", "show", second, "--follow").out
    assert f"shutdown waits for operation {first} to end" in shown
    assert "shutdown succeeded" in shown
    ended = {op["id"]: op for op in cli.json("ops", "list")["operations"]}
    assert ended[second]["started_at"] >= ended[first]["ended_at"]


def test_an_operation_is_cancelled(cli: CommandLine, running: World) -> None:
    running.apply([running.tiny("base", delay=1.0)], [])
    operation = cli.ok("up", "top", "--detach").out.strip()
    running.until(lambda: running.lives("base"), what="the first step")
    assert f"ops show {operation}" in cli.ok("ops", "cancel", operation).out
    shown = cli("ops", "show", operation, "--follow")
    assert shown.status == 1
    assert "startup cancelled" in shown.out
    assert "middle@n1: cancelled by" in shown.out
    assert not running.lives("top")
    again = cli("ops", "cancel", operation)
    assert again.status == 4
    assert "has already cancelled" in again.err or "cancelled" in again.err


def test_an_operation_is_shown_with_its_steps(cli: CommandLine, running: World) -> None:
    cli.ok("up", "top", "--reason", "night shift")
    operation = cli.json("ops", "list")["operations"][0]["id"]
    text = cli.ok("ops", "show", operation).out
    assert f"startup {operation}" in text
    assert re.search(r"state +succeeded", text)
    assert re.search(r"reason +night shift", text)
    assert re.search(r"✔ +start +middle@n1 +succeeded +\d+\.\d\d", text)
    steps = cli.json("ops", "show", operation)["steps"]
    assert [(s["service"], s["state"]) for s in steps] == [(n, "succeeded") for n in ("base", "middle", "top")]


def test_a_detached_request_is_had_as_json(cli: CommandLine, running: World) -> None:
    request = cli.json("up", "aside", "--detach")
    assert request["state"] == "pending"
    assert request["targets"] == ["aside"]
    assert running.end_of(request["id"]).ended


def test_ctrl_c_ends_the_watching_and_not_the_operation(cli: CommandLine, running: World) -> None:
    running.apply([running.tiny("base", delay=1.5)], [])
    following = cli.spawn("up", "base")
    running.until(lambda: running.lives("base"), what="the start")
    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=15)
    assert following.returncode == 130
    operation = cli.json("ops", "list")["operations"][0]["id"]
    assert f"operation {operation} goes on without you: `citadel ops show {operation} --follow`" in said
    assert "Traceback" not in said
    assert running.end_of(operation).state == "succeeded"


def test_the_status_of_a_stack_that_is_well(cli: CommandLine, running: World) -> None:
    cli.ok("up")
    text = cli.ok("status").out
    leader = running.until_led()
    assert text.startswith(f"{cli.stack}  healthy  4 of 4 services healthy")
    assert "nothing is wrong" in text
    assert re.search(rf"leader +{leader['id']}, epoch {leader['epoch']}, since \d{{4}}-", text)
    assert "standbys  none: nobody takes over" in text
    assert re.search(r"agents +n1", text)
    assert re.search(r"last +startup of all succeeded in", text)


def test_the_status_names_standbys_and_missing_agents(cli: CommandLine, running: World) -> None:
    running.apply([running.tiny("far", ("n7",))], [])
    running.orchestrator("o2")
    running.until(lambda: cli.json("status")["orchestrator_status"]["standbys"], what="a standby")
    text = cli.ok("status").out
    assert re.search(r"standbys +o2:\d+", text)
    assert "node n7  no node agent runs on it" in text
    assert "citadel agent --node n7, on that node" in text
    assert cli.json("explain", "far")["do"] == "citadel agent --node n7, on that node"


def test_the_status_as_json_is_that_of_the_api_and_more(cli: CommandLine, running: World) -> None:
    cli.ok("up", "base")
    cli.put("holds/service/base", {"v": 1, "by": "alice", "reason": "migration"})
    seen = cli.json("status")
    assert seen["orchestrator_status"]["status"] == "operational"
    assert seen["orchestrator_status"]["managed_services"] == 4
    assert seen["orchestrator_status"]["uptime_seconds"] is None, "no orchestrator was asked"
    assert set(seen["system_health"]) == {
        "overall_status", "critical_services_healthy", "non_critical_services_healthy", "health_score",
    }  # fmt: skip
    assert seen["holds"][0]["by"] == "alice"
    assert seen["unfinished_operations"] == []
    text = cli.ok("status").out
    assert "service base  by alice: migration, until it is taken back" in text


def test_a_service_that_dies_is_what_is_wrong(cli: CommandLine, running: World) -> None:
    cli.ok("up")
    cli.put("holds/service/base", {"v": 1, "by": "test"})
    os.kill(running.lives("base")[-1], signal.SIGKILL)
    running.until(lambda: "SIGKILL" in cli.ok("status").out, what="its end to be seen")
    text = cli.ok("status").out
    wrong = text[text.index("WRONG") : text.index("SERVICES")]
    assert re.search(r"base +held +killed by SIGKILL; held by test", wrong)
    assert "needed by top, middle" in wrong
    health = cli.ok("health").out
    assert re.search(r"base +held +0 +- +- +killed by SIGKILL; held by test", health)


def test_services_are_listed_with_order_and_instances(cli: CommandLine, running: World) -> None:
    cli.ok("up", "middle")
    rows = {line.split()[0]: line.split() for line in cli.ok("services").out.splitlines()[1:]}
    assert rows["base"][1:] == ["healthy", "test", "yes", "1", "3", f"tcp://127.0.0.1:{running.ports['base']}", "-"]
    assert rows["top"][1] == "stopped"
    assert rows["aside"][3] == "no"
    one = cli.ok("services", "base").out
    assert re.search(rf"base@n1 +healthy +ready +\S+Z +{running.lives('base')[0]} +\d+", one)
    assert [s["name"] for s in cli.json("services", "base")["services"]] == ["base"]


def test_health_is_had_in_every_form(cli: CommandLine, running: World) -> None:
    cli.ok("up", "base")
    seen = cli.json("health")
    assert seen["service_health"]["base"]["status"] == "healthy"
    assert seen["service_health"]["base"]["health_score"] > 75
    assert seen["health_summary"]["critical_services_healthy"] is False
    text = cli.ok("health").out
    assert re.search(r"base +healthy +[\d.]+ +[\d.]+ ms +\d", text)
    assert re.search(r"top +stopped +- +- +-", text)


def test_a_service_that_starts_is_explained_with_an_estimate(cli: CommandLine, running: World) -> None:
    running.apply([running.tiny("base", delay=1.5)], [])
    cli.ok("up", "top")
    cli.ok("down")
    operation = cli.ok("up", "top", "--detach").out.strip()
    running.until(lambda: len(running.lives("base")) == 2, what="the second start")
    told = cli.json("explain", "top")
    assert told["operation"] == operation
    assert "waits for middle to be healthy" in told["why"]
    estimate = r"(in about \d+(\.\d)? s, going by the last starts|it takes longer than the last time); given up in"
    assert re.match(estimate, told["when"])
    below = cli.json("explain", "base")
    assert re.match(r"it has been starting for \d+(\.\d)? s, and may take 1 min", below["why"])
    running.end_of(operation)
    assert cli.json("explain", "top")["why"] == "it runs, and nothing says otherwise"


def test_what_nobody_asked_for_is_explained_as_that(cli: CommandLine, running: World) -> None:
    told = cli.json("explain", "aside")
    assert (told["why"], told["do"]) == ("nobody has asked for it", "citadel up aside")
    cli.ok("up", "aside")
    cli.ok("down", "aside")
    assert re.match(r"shutdown \S+ stopped it \(\S+ asked for it\)", cli.json("explain", "aside")["why"])


def test_the_output_of_a_service_is_shown_and_followed(cli: CommandLine, running: World) -> None:
    script = "import time\nfor n in range(5000):\n    print('line', n, flush=True)\n    time.sleep(0.05)"
    command = ("python3", "-u", "-c", script)
    running.apply([running.tiny("aside", backend=ProcessBackend(command=command), checks=())], [])
    cli.ok("up", "aside")
    running.until(lambda: "line 3" in cli.ok("logs", "aside").out, what="some output")
    assert len(cli.ok("logs", "aside", "-n", "2").out.splitlines()) == 2
    first = json.loads(cli.ok("logs", "aside", "-o", "json", "-n", "1").out)
    assert first["node"] == "n1"
    assert first["line"].startswith("line ")
    with Lines(cli.spawn("logs", "aside", "-f", "-n", "1")) as following:
        numbers = [int(following.next().split()[1]) for _ in range(4)]
    assert numbers == list(range(numbers[0], numbers[0] + 4))


def test_events_tell_what_happened_and_can_be_followed(cli: CommandLine, running: World) -> None:
    cli.ok("up", "base")
    text = cli.ok("events").out
    assert re.search(r"operation-succeeded +- +startup succeeded", text)
    kinds = [event["kind"] for event in cli.json("events")["events"]]
    assert kinds.index("operation-running") < kinds.index("operation-succeeded")
    with Lines(cli.spawn("events", "-f", "-n", "1", "-o", "json")) as following:
        following.until("operation-succeeded")  # the last of what is there: from here on it follows
        running.operate(Kind.SHUTDOWN, "base")
        event = json.loads(following.until("operation-succeeded"))
    assert event["message"] == "shutdown succeeded"
    assert event["epoch"] == running.until_led()["epoch"]
