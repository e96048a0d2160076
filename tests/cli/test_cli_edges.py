"""The graph: shown in five forms, changed by command and by hand, and never harmed by a bad key."""

from __future__ import annotations

import subprocess

import pytest
import yaml
from command_line import THREE, CommandLine
from real_world import World

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.core.operation import Kind, OperationState

pytestmark = pytest.mark.consul


def test_the_graph_is_shown_as_a_table(cli: CommandLine) -> None:
    cli.apply(THREE)
    lines = [line.split() for line in cli.ok("deps").out.splitlines()]
    assert lines[0][:2] == ["SERVICE", "NEEDS"]
    assert lines[1] == ["middle", "base", "healthy", "hard", "all", "notify"]
    assert lines[2] == ["top", "middle", "healthy", "hard", "all", "notify"]


def test_the_graph_is_shown_as_a_tree_with_dependents_on_top(cli: CommandLine) -> None:
    cli.apply(THREE)
    cli.ok("deps", "add", "top", "base", "--strength", "soft")
    assert cli.ok("deps", "--tree").out == "top\n├─ base (soft)\n└─ middle\n   └─ base\n"


def test_the_graph_is_shown_for_graphviz_and_for_mermaid(cli: CommandLine) -> None:
    cli.apply(THREE)
    dot = cli.ok("deps", "--dot").out
    assert f'digraph "{cli.stack}" {{' in dot
    assert '"top" -> "middle" [style=solid, label="healthy"];' in dot
    mermaid = cli.ok("deps", "--mermaid").out
    assert mermaid.startswith("graph BT\n")
    assert "  top -->|healthy| middle" in mermaid


def test_the_graph_is_had_as_json_and_yaml(cli: CommandLine) -> None:
    cli.apply(THREE)
    seen = cli.json("deps")
    assert [(e["service"], e["dependency"]) for e in seen["edges"]] == [("middle", "base"), ("top", "middle")]
    assert seen["problems"] == []
    assert yaml.safe_load(cli.ok("deps", "-o", "yaml").out) == seen


def test_an_edge_is_added_changed_and_removed(cli: CommandLine) -> None:
    cli.apply(THREE)
    words = ("deps", "add", "top", "base")
    assert cli.ok(*words).out == "top needs base to be healthy (hard)\n"
    assert cli.get("edges/top/base") == {"v": 1}
    cli.ok(*words, "--condition", "started", "--strength", "milestone", "--min-instances", "1", "--on-recovery", "none")
    edge = {"v": 1, "condition": "started", "strength": "milestone", "min_instances": 1, "on_recovery": "none"}
    assert cli.get("edges/top/base") == edge
    assert cli.ok("deps", "remove", "top", "base").out == "top no longer needs base\n"
    assert f"{cli.prefix}edges/top/base" not in cli.own_kv()


def test_what_was_done_to_an_edge_can_be_had_as_json(cli: CommandLine) -> None:
    cli.apply(THREE)
    assert cli.json("deps", "add", "top", "base")["edge"]["condition"] == "healthy"
    assert cli.json("deps", "remove", "top", "base") == {"removed": {"service": "top", "dependency": "base"}}


def test_an_edge_added_with_consul_kv_put_shows_up_at_once(cli: CommandLine, consul_binary: ConsulBinary) -> None:
    cli.apply(THREE)
    consul_kv(consul_binary, cli, "put", f"{cli.prefix}edges/top/base", '{"condition": "started"}')
    assert "top      base" in cli.ok("deps").out
    assert {"service": "top", "dependency": "base"}.items() <= cli.json("deps")["edges"][2].items()


def test_an_empty_value_is_an_edge_with_all_defaults(cli: CommandLine) -> None:
    cli.apply(THREE)
    cli.put("edges/top/base", b"")
    assert "top      base    healthy    hard" in cli.ok("deps").out


BAD_EDGES = [
    ("edges/base/top", b"{}", "edge base → top", "makes a cycle: base → top → middle → base"),
    ("edges/top/base", b"{oops", "edges/top/base", "is not JSON"),
    ("edges/top/base", b'"healthy"', "edges/top/base", "is a JSON str, not an object"),
    ("edges/top/base", b'{"conditon": "healthy"}', "edges/top/base", "has an unknown field 'conditon'"),
    ("edges/top/base", b'{"condition": "fine"}', "edges/top/base", "condition: "),
    ("edges/top/base", b'{"v": 9}', "edges/top/base", "has version 9"),
    ("edges/top", b"{}", "edges/top", "is not of the form edges/<service>/<dependency>"),
    ("edges/top/nosuch", b"{}", "edge top → nosuch", "unknown service 'nosuch'"),
    ("edges/top/top", b"{}", "edge top → top", "makes a cycle: top → top"),
]


@pytest.mark.parametrize(("key", "value", "place", "message"), BAD_EDGES, ids=[m for *_, m in BAD_EDGES])
def test_a_bad_edge_is_reported_and_the_good_ones_stay_in_force(
    cli: CommandLine, key: str, value: bytes, place: str, message: str
) -> None:
    cli.apply(THREE)
    cli.put(key, value)
    status = cli.ok("status").out
    assert place in status
    assert message in status
    problems = cli.json("status")["orchestrator_status"]["problems"]
    assert any(place.removeprefix("edge ") in p["place"] and message in p["message"] for p in problems)
    shown = cli.ok("deps")
    assert message in shown.err
    assert len(shown.out.splitlines()) == 3, "a heading and the two good edges"
    order = [line.split()[1] for line in cli.ok("plan", "up").out.splitlines()[1:]]
    assert order == ["base", "middle", "top"]


def test_the_remedy_that_status_names_mends_a_bad_edge(cli: CommandLine) -> None:
    cli.apply(THREE)
    cli.put("edges/base/top", b"{}")
    remedy = "citadel deps remove base top"
    assert remedy in cli.ok("status").out
    cli.ok(*remedy.split()[1:])
    assert "makes a cycle" not in cli.ok("status").out


@pytest.mark.slow
def test_an_edge_put_by_hand_holds_in_the_next_startup_and_a_bad_one_does_no_harm(
    cli: CommandLine, world: World, consul_binary: ConsulBinary
) -> None:
    """Without the edge, quick would be ready long before slow."""
    world.apply([world.tiny("quick"), world.tiny("slow", delay=0.5), world.tiny("third")], [("third", "slow")])
    world.orchestrator()
    world.agent()
    consul_kv(consul_binary, cli, "put", f"{cli.prefix}edges/quick/slow", "{}")
    consul_kv(consul_binary, cli, "put", f"{cli.prefix}edges/slow/third", "{}")
    consul_kv(consul_binary, cli, "put", f"{cli.prefix}edges/third/quick", "{not json")
    assert "quick    slow" in cli.ok("deps").out
    assert world.operate(Kind.STARTUP).state is OperationState.SUCCEEDED
    when = {(entry.service, entry.what): entry.at for entry in world.chronicle()}
    assert when["quick", "started"] >= when["slow", "ready"]
    status = cli.ok("status").out
    assert "makes a cycle: slow → third → slow" in status
    assert f"key {cli.prefix}edges/third/quick" in status
    assert "3 of 3 services healthy" in status
    assert world.operate(Kind.SHUTDOWN).state is OperationState.SUCCEEDED


def consul_kv(binary: ConsulBinary, cli: CommandLine, *words: str) -> None:
    """Consul's own command, as an operator would use it."""
    subprocess.run(
        [binary.path, "kv", words[0], f"-http-addr={cli.consul.address}", *words[1:]], check=True, capture_output=True
    )
