"""What the docker backend makes of the engine's answers, and of files, without an engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from citadel_consul.backends.base import Exit
from citadel_consul.backends.docker.compose import changed_at, project_of
from citadel_consul.backends.docker.container import decode, exit_of
from citadel_consul.backends.docker.engine import Engine, EngineRefusedError, Event
from citadel_consul.errors import BackendError, BackendUnavailable

INSPECTED: dict[str, object] = {
    "Id": "abc",
    "Name": "/shop-db-1",
    "Created": "2026-01-01T10:00:00Z",
    "Image": "sha256:1",
    "State": {"Running": True, "Pid": 77, "StartedAt": "2026-01-02T10:00:00.5Z", "ExitCode": 0},
    "Config": {"Image": "postgres:16", "Labels": None},
    "HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
}


# Containers.


def test_each_start_of_a_container_is_another_run() -> None:
    container = decode(INSPECTED)
    assert container.handle.unit == "shop-db-1"
    assert container.handle.pid == 77
    assert container.invocation == "abc/2026-01-02T10:00:00.5Z"
    again = decode(INSPECTED | {"State": {"Running": True, "StartedAt": "2026-01-02T10:00:01Z"}})
    assert again.invocation != container.invocation


def test_the_restart_policy_and_the_stop_signal_have_defaults() -> None:
    assert (decode(INSPECTED).restart_policy, decode(INSPECTED).restart_attempts) == ("on-failure", 3)
    plain = decode(INSPECTED | {"HostConfig": {"RestartPolicy": {"Name": "", "MaximumRetryCount": 0}}})
    assert (plain.restart_policy, plain.stop_signal) == ("no", "SIGTERM")


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        (0, Exit(0, None, "exit status 0")),
        (3, Exit(3, None, "exit status 3")),
        (128, Exit(128, None, "exit status 128")),
        (137, Exit(None, 9, "killed by SIGKILL")),
        (143, Exit(None, 15, "killed by SIGTERM")),
        (255, Exit(255, None, "exit status 255")),
    ],
)
def test_an_exit_code_of_the_engine_can_mean_a_signal(code: int, ended: Exit) -> None:
    assert exit_of(code) == ended


def test_want_of_memory_is_no_mere_kill() -> None:
    state = {"Running": False, "StartedAt": "x", "ExitCode": 137, "OOMKilled": True}
    assert "ran out of the memory" in decode(INSPECTED | {"State": state}).exit.detail


def test_the_last_line_of_the_health_check_is_what_is_quoted() -> None:
    log = [{"Output": "old"}, {"Output": "connecting …\nrefused\n"}]
    state = {"Running": True, "StartedAt": "x", "Health": {"Status": "unhealthy", "Log": log}}
    container = decode(INSPECTED | {"State": state})
    assert (container.health, container.health_output) == ("unhealthy", "refused")


@pytest.mark.parametrize("answer", [{}, {"State": None}, INSPECTED | {"State": []}, INSPECTED | {"Config": None}])
def test_an_answer_that_makes_no_sense_is_no_container(answer: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError)):
        decode(answer)


# Compose.


@pytest.mark.parametrize(
    ("folder", "text", "named", "project"),
    [
        ("shop", "services: {}\n", None, "shop"),
        ("My Shop_2.0", "services: {}\n", None, "myshop_20"),
        ("_-shop", "services: {}\n", None, "shop"),
        ("äöü", "services: {}\n", None, "default"),
        ("shop", "name: other\nservices: {}\n", None, "other"),
        ("shop", "services: {}\nname: 'other' # as it is\n", None, "other"),
        ("shop", "services:\n  db:\n    name: inner\n", None, "shop"),
        ("shop", "name: other\n", "said", "said"),
    ],
)
def test_a_project_has_the_name_that_compose_gives_it(
    tmp_path: Path, folder: str, text: str, named: str | None, project: str
) -> None:
    file = tmp_path / folder / "compose.yaml"
    file.parent.mkdir()
    file.write_text(text)
    assert project_of(file, named) == project


def test_a_change_of_the_variables_beside_a_compose_file_is_a_change_of_it(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    assert changed_at(file) == 0.0
    assert changed_at(tmp_path) == 0.0  # a folder is no compose file
    file.write_text("services: {}\n")
    before = changed_at(file)
    assert before > 0.0
    (tmp_path / ".env").write_text("TAG=2\n")
    assert changed_at(file) >= before


# The engine, played by a server on a socket of its own.

Answer = Callable[[str], tuple[int, object] | None]


@asynccontextmanager
async def engine(tmp_path: Path, answer: Answer) -> AsyncIterator[Engine]:
    """A client of an engine that answers a request line with a status and a body; with ``None`` it breaks off."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[0]
        known = (200, "OK") if "/_ping" in line else answer(line)
        if known is not None:
            status, body = known
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            head = (
                f"HTTP/1.1 {status} x\r\nApi-Version: 1.41\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + data)
        writer.close()

    path = tmp_path / "engine.sock"
    server = await asyncio.start_unix_server(serve, path)
    client = Engine({"DOCKER_HOST": f"unix://{path}"})
    try:
        yield client
    finally:
        await client.aclose()
        server.close()
        await server.wait_closed()


async def test_the_engine_is_asked_in_the_version_of_its_own_api(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(line: str) -> tuple[int, object]:
        asked.append(line)
        return 200, INSPECTED

    async with engine(tmp_path, answer) as client:
        await client.inspect("a/b")
    assert asked == ["GET /v1.41/containers/a%2Fb/json HTTP/1.1"]


async def test_a_container_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    async with engine(tmp_path, lambda _: (404, {"message": "No such container: x"})) as client:
        assert await client.inspect("x") is None
        assert await client.signal("x", "SIGTERM") is False


async def test_a_refusal_is_quoted_and_an_engine_that_shuts_down_is_unavailable(tmp_path: Path) -> None:
    answers: list[tuple[int, object]] = [
        (409, {"message": "name in use "}),
        (500, b"<html>"),
        (503, {"message": "bye"}),
    ]
    async with engine(tmp_path, lambda _: answers.pop(0)) as client:
        with pytest.raises(EngineRefusedError, match=r"^name in use$"):
            await client.start("x")
        with pytest.raises(EngineRefusedError, match=r"^HTTP 500$"):
            await client.start("x")
        with pytest.raises(BackendUnavailable, match=r"cannot do it now: bye$"):
            await client.start("x")


async def test_an_answer_that_is_broken_off_is_unavailability(tmp_path: Path) -> None:
    async with engine(tmp_path, lambda _: None) as client:
        with pytest.raises(BackendUnavailable, match="broke off"):
            await client.start("x")


async def test_a_description_that_makes_no_sense_is_unavailability(tmp_path: Path) -> None:
    async with engine(tmp_path, lambda _: (200, {"Id": "x"})) as client:
        with pytest.raises(BackendUnavailable, match="describes container x oddly"):
            await client.inspect("x")


async def test_events_that_cannot_be_read_are_passed_over_and_an_end_of_the_stream_is_said(tmp_path: Path) -> None:
    die = {"Action": "die", "Actor": {"ID": "abc", "Attributes": {"exitCode": "137"}}}
    ill = {"Action": "health_status: unhealthy", "Actor": {"ID": "abc", "Attributes": None}}
    lines = b"\n".join([b"{", b"[]", json.dumps(die).encode(), b'{"Action": "die"}', json.dumps(ill).encode()])
    seen: list[Event] = []

    async def follow(client: Engine) -> None:
        async with client.events(5.0) as events:
            async for event in events:
                seen.append(event)  # noqa: PERF401 - what comes before the stream breaks off counts

    async with engine(tmp_path, lambda _: (200, lines)) as client:
        with pytest.raises(BackendUnavailable, match="ended the stream of events"):
            await follow(client)
    assert seen == [Event("die", "abc", 137), Event("health_status: unhealthy", "abc", None)]


async def test_a_stream_of_events_that_is_refused_is_said(tmp_path: Path) -> None:
    async with engine(tmp_path, lambda _: (400, {"message": "bad filter"})) as client:
        with pytest.raises(EngineRefusedError, match="bad filter"):
            async with client.events(5.0):
                pytest.fail("there is no stream")


async def test_an_engine_that_is_absent_is_named_with_its_address(tmp_path: Path) -> None:
    client = Engine({"DOCKER_HOST": f"unix://{tmp_path}/nonesuch.sock"})
    with pytest.raises(BackendUnavailable, match=r"there is no Docker engine at unix:///.*/nonesuch\.sock: start it"):
        await client.greet()
    await client.aclose()


async def test_an_engine_over_tcp_that_refuses_is_unavailable() -> None:
    client = Engine({"DOCKER_HOST": "tcp://127.0.0.1:1"})
    with pytest.raises(BackendUnavailable, match=r"^the Docker engine at tcp://127\.0\.0\.1:1 broke off"):
        await client.greet()
    await client.aclose()


def test_certificates_that_cannot_be_read_are_said_with_their_folder(tmp_path: Path) -> None:
    env = {"DOCKER_HOST": "tcp://127.0.0.1:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    with pytest.raises(BackendError, match=rf"certificates for the Docker engine in {tmp_path} cannot be read"):
        Engine(env)


@pytest.mark.parametrize("host", ["ssh://somewhere", "unix://", "somewhere"])
def test_an_address_of_another_kind_is_refused(host: str) -> None:
    with pytest.raises(BackendError, match="unix:///path or tcp://host:port only"):
        Engine({"DOCKER_HOST": host})
