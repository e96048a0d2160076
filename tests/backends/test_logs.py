"""Logs of instances: bounded, and read across their rotation."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from citadel_consul.backends.logs import follow, log_path, open_for_service, rotate, sweep, tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "web.log"


def _append(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def _replace(log: Path, text: str, moved: Path | None = None) -> None:
    """Cut the log, or move it away, and write."""
    if moved:
        log.rename(moved)
    log.write_text(text)


@contextlib.asynccontextmanager
async def _following(log: Path, lines: int = 0) -> AsyncIterator[AsyncIterator[str]]:
    """A follower that does not wait between two looks."""
    async with contextlib.aclosing(follow(log, lines, poll_seconds=0)) as follower, asyncio.timeout(10):
        yield follower


async def _take(follower: AsyncIterator[str], count: int) -> list[str]:
    return [await anext(follower) for _ in range(count)]


async def _looks(follower: AsyncIterator[str]) -> asyncio.Task[str]:
    """The next line to come, of a follower that has looked at the log and found none."""

    async def next_line() -> str:
        return await anext(follower)

    task = asyncio.ensure_future(next_line())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


def test_the_path_of_a_log_names_stack_node_and_service(tmp_path: Path) -> None:
    assert log_path(tmp_path, "shop", "n1", "web") == tmp_path / "shop" / "n1" / "logs" / "web.log"


def test_a_log_is_no_business_of_other_users_and_never_a_link(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "web.log"
    os.close(open_for_service(path, None))
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.parent.stat().st_mode & 0o777 == 0o750
    link = tmp_path / "logs" / "other.log"
    link.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        open_for_service(link, None)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        ("", 5, []),
        ("a\nb\nc\n", 2, ["b", "c"]),
        ("a\nb\nc\n", 5, ["a", "b", "c"]),
        ("a\nb\nc", 2, ["b", "c"]),
        ("a\r\nb\r\n", 5, ["a", "b"]),
        ("a\n\n\n", 2, ["", ""]),
        ("a\nb\n", 0, []),
        ("progress 1\rprogress 2\nend\n", 5, ["progress 1\rprogress 2", "end"]),
    ],
)
def test_the_tail_of_a_log(log: Path, content: str, lines: int, expected: list[str]) -> None:
    log.write_bytes(content.encode())
    assert tail(log, lines) == expected


def test_the_tail_of_a_long_log_and_of_none(log: Path) -> None:
    assert tail(log, 5) == []
    log.write_text("".join(f"line {number}\n" for number in range(50_000)))
    assert tail(log, 20_000) == [f"line {number}" for number in range(30_000, 50_000)]


def test_what_is_no_text_is_shown_as_far_as_it_is(log: Path) -> None:
    log.write_bytes(b"caf\xe9\n")
    assert tail(log, 1) == ["caf\ufffd"]


def test_a_rotation_keeps_as_many_files_as_it_may(log: Path) -> None:
    for number in range(5):
        _append(log, f"{number}" * 20)
        assert rotate(log, 10, 3)
    assert sorted(path.name for path in log.parent.iterdir()) == ["web.log", "web.log.1", "web.log.2"]
    assert (log.read_text(), log.with_name("web.log.1").read_text()) == ("", "4" * 20)
    assert log.with_name("web.log.2").read_text() == "3" * 20


def test_a_log_within_its_bound_or_absent_is_left_alone(log: Path) -> None:
    assert not rotate(log, 10, 3)
    _append(log, "x" * 10)
    assert not rotate(log, 10, 3)
    assert log.read_text() == "x" * 10


def test_a_single_file_is_cut(log: Path) -> None:
    _append(log, "x" * 11)
    assert rotate(log, 10, 1)
    assert [path.name for path in log.parent.iterdir()] == ["web.log"]
    assert log.read_text() == ""


def test_a_rotation_that_was_killed_after_the_cut_loses_nothing(log: Path) -> None:
    log.with_name("web.log.partial").write_text("older")
    _append(log, "x" * 11)
    assert rotate(log, 10, 3)
    assert log.with_name("web.log.1").read_text() == "x" * 11
    assert log.with_name("web.log.2").read_text() == "older"


async def test_a_follower_begins_with_the_last_lines_and_misses_none_after_them(log: Path) -> None:
    _append(log, "a\nb\nc\nhal")
    async with _following(log, 2) as follower:
        assert await _take(follower, 2) == ["b", "c"]
        _append(log, "f\nd\n")
        assert await _take(follower, 2) == ["half", "d"]


async def test_a_follower_waits_for_a_log_that_is_not_there_yet(log: Path) -> None:
    async with _following(log) as follower:
        line = await _looks(follower)
        _append(log, "first\n")
        assert await line == "first"


async def test_a_follower_reads_on_across_a_rotation(log: Path) -> None:
    _append(log, "a\n")
    async with _following(log, 1) as follower:
        assert await anext(follower) == "a"
        _append(log, "b\nc\n")
        rotate(log, 1, 3)
        _append(log, "d\n")
        assert await _take(follower, 3) == ["b", "c", "d"]
        line = await _looks(follower)
        rotate(log, 1, 3)
        _append(log, "a longer line than any of those before it, so that the size does not tell\n")
        assert (await line).startswith("a longer line")


async def test_a_follower_begins_anew_when_somebody_else_cuts_or_replaces_the_log(log: Path) -> None:
    _append(log, "a\nb\n")
    async with _following(log, 1) as follower:
        assert await anext(follower) == "b"
        line = await _looks(follower)
        _replace(log, "c\n")
        assert await line == "c"
        line = await _looks(follower)
        _replace(log, "d\n", moved=log.with_name("moved"))
        assert await line == "d"


async def test_a_follower_waits_while_a_rotation_is_half_done(log: Path) -> None:
    _append(log, "a\n")
    async with _following(log, 1) as follower:
        assert await anext(follower) == "a"
        partial = log.with_name("web.log.partial")
        _append(partial, "a\nb\n")
        _replace(log, "c and more than was there before\n")
        line = await _looks(follower)
        partial.replace(log.with_name("web.log.1"))
        assert await line == "b"
        assert await anext(follower) == "c and more than was there before"


async def test_a_follower_does_not_wait_for_a_rotation_that_was_killed(log: Path) -> None:
    _append(log, "a\nb\n")
    partial = log.with_name("web.log.partial")
    _append(partial, "a\nb\n")
    os.utime(partial, (1, 1))
    async with _following(log, 1) as follower:
        assert await anext(follower) == "b"
        _replace(log, "c\n")
        assert await anext(follower) == "c"


def test_old_logs_of_services_that_nobody_knows_any_more_are_swept_away(tmp_path: Path) -> None:
    for name in ("web.log", "gone.log", "gone.log.1", "gone.log.partial", "late.log", "notes.txt"):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (1000.0, 1000.0))
    os.utime(tmp_path / "late.log")
    sweep(tmp_path, {"web"})
    assert {path.name for path in tmp_path.iterdir()} == {"web.log", "late.log", "notes.txt"}
    sweep(tmp_path / "nonesuch", set())
