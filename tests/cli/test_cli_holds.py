"""hold and unhold: what they write, and what they refuse."""

from __future__ import annotations

import time

import pytest
from command_line import CommandLine
from real_world import World

from citadel_consul.cli.holds import parse_scope
from citadel_consul.core.snapshot import Hold

pytestmark = pytest.mark.consul


def holds(world: World) -> tuple[Hold, ...]:
    return world.snapshot().holds


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("redis",), ("service", "redis")),
        (("service", "redis"), ("service", "redis")),
        (("service", "stack"), ("service", "stack")),
        (("node", "n1"), ("node", "n1")),
        (("stack",), ("stack", "")),
    ],
)
def test_what_is_to_be_held_is_told_by_its_words(words: tuple[str, ...], expected: tuple[str, str]) -> None:
    assert parse_scope(words) == expected


def test_a_hold_is_written_with_all_that_was_said(cli: CommandLine, world: World) -> None:
    world.apply([world.tiny("redis")])
    before = time.time()
    result = cli("hold", "redis", "--for", "30m", "--reason", "moving its disk", "--maintenance")
    assert result.status == 0, result
    assert result.out.startswith("redis is held until ")
    (hold,) = holds(world)
    assert (hold.scope, hold.name, hold.reason, hold.maintenance) == ("service", "redis", "moving its disk", True)
    assert hold.until is not None
    assert before + 1800.0 <= hold.until <= time.time() + 1800.0
    assert "@" in hold.by


@pytest.mark.parametrize(("words", "place"), [(("node", "n1"), "node n1"), (("stack",), "the stack")])
def test_nodes_and_the_stack_can_be_held_and_let_go(
    cli: CommandLine, world: World, words: tuple[str, ...], place: str
) -> None:
    world.apply([world.tiny("redis")])
    assert cli("hold", *words).out == f"{place} is held until it is taken back\n"
    assert len(holds(world)) == 1
    assert cli("unhold", *words).out == f"{place} is held no longer\n"
    assert holds(world) == ()


def test_a_second_hold_takes_the_place_of_the_first(cli: CommandLine, world: World) -> None:
    world.apply([world.tiny("redis")])
    cli("hold", "redis", "--reason", "one")
    cli("hold", "redis", "--reason", "two")
    assert [hold.reason for hold in holds(world)] == ["two"]


def test_a_hold_is_printed_as_json_on_request(cli: CommandLine, world: World) -> None:
    world.apply([world.tiny("redis")])
    answer = cli("hold", "redis", "-o", "json").json
    assert (answer["scope"], answer["name"], answer["until"]) == ("service", "redis", None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("hold", "reddis"), "unknown service 'reddis'"),
        (("hold", "node", "n7"), "unknown node 'n7' (the stack is on n1)"),
        (("hold", "node"), "cannot tell what 'node' is"),
        (("hold", "a", "b"), "cannot tell what 'a b' is"),
        (("hold", "redis", "--for", "soon"), "--for"),
        (("hold", "redis", "--for", "0s"), "a hold of no time holds nothing"),
        (("unhold", "redis"), "redis is not held"),
        (("unhold", "stack"), "the stack is not held"),
    ],
)
def test_what_cannot_be_held_is_refused(cli: CommandLine, world: World, words: tuple[str, ...], message: str) -> None:
    world.apply([world.tiny("redis")])
    result = cli(*words)
    assert result.status == 2, result
    assert message in result.err
    assert holds(world) == ()
