"""Compose makes containers and does nothing else: no dependency is started, and no change of the file is overlooked."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest
from backend_contract import LONG, NODE, watched
from busybox_image import can_run
from compose_plugin import settings_with_compose
from docker_fixtures import composed, containers, containers_can_run, proxy
from docker_harness import STEADY, ComposeHarness

from citadel_consul.backends.docker.compose import Compose, project_of
from citadel_consul.core import model
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError, ConsulUnavailable

__all__ = ["composed", "containers", "containers_can_run", "proxy"]

WEB = Instance("web", NODE)
RUN: dict[str, object] = {"command": ["/bin/sh", "-c", STEADY]}


@pytest.fixture(params=["docker compose", "docker-compose"])
def one_compose(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A PATH on which only this one of the two compose commands is found."""
    words: list[str] = request.param.split()
    if words == ["docker", "compose"] and not can_run(*words, "version"):
        try:
            monkeypatch.setenv("DOCKER_CONFIG", str(settings_with_compose()))
        except ConsulUnavailable as error:
            pytest.skip(f"docker compose is not installed here, and not to be had: {error}")
    if not can_run(*words, "version"):
        pytest.skip(f"{request.param} is not installed here")
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / words[0]).symlink_to(shutil.which(words[0]) or "")
    monkeypatch.setenv("PATH", str(folder))
    return str(request.param)


async def test_what_compose_depends_on_is_not_started_with_it(composed: ComposeHarness, one_compose: str) -> None:
    spec = composed.spec("web", RUN | {"depends_on": ["db"]}, {"db": RUN})
    async with composed.backend() as backend:
        handle = await backend.start(composed.launch("web", spec))
        assert composed.is_running(handle)
        states = [composed.containers.state(c) for c in composed.containers.of_project(composed.project("web"))]
        assert [state["Running"] for state in states] == [True]  # and db is not even made


async def test_a_changed_file_makes_another_container_at_the_next_start(
    composed: ComposeHarness, one_compose: str
) -> None:
    launch = composed.launch("web", composed.spec("web", RUN))
    async with composed.backend() as backend:
        first = await backend.start(launch)
        await composed.ready(launch)
        composed.spec("web", RUN | {"environment": {"COLOUR": "red"}})
        assert await backend.start(launch) == first  # it runs, and is left alone
        await backend.stop(WEB, LONG)
        second = await backend.start(composed.launch("web", model_of(launch.backend), 2))
        found = composed.containers.inspect(composed.name(launch))
    assert found is not None
    assert "COLOUR=red" in found["Config"]["Env"]  # type: ignore[index]
    assert (first.invocation or "").partition("/")[0] != (second.invocation or "").partition("/")[0]


async def test_an_unchanged_file_keeps_the_container_and_does_not_ask_compose(composed: ComposeHarness) -> None:
    launch = composed.launch("web", composed.spec("web", RUN))
    async with composed.backend() as backend:
        exits = watched(backend)
        first = await backend.start(launch)
        composed.kill(first)
        await exits.next()
    made = (first.invocation or "").partition("/")[0]
    before = os.environ["PATH"]
    os.environ["PATH"] = "/nonesuch"  # the next agent cannot find any compose
    try:
        async with composed.backend() as backend:
            second = await backend.start(composed.launch("web", model_of(launch.backend), 2))
    finally:
        os.environ["PATH"] = before
    assert (second.invocation or "").partition("/")[0] == made


async def test_a_file_that_was_only_touched_keeps_the_container(composed: ComposeHarness, one_compose: str) -> None:
    launch = composed.launch("web", composed.spec("web", RUN))
    async with composed.backend() as backend:
        first = await backend.start(launch)
        await composed.ready(launch)
        await backend.stop(WEB, LONG)
        later = time.time() + 5
        os.utime(composed.file("web"), (later, later))
        second = await backend.start(composed.launch("web", model_of(launch.backend), 2))
    assert (first.invocation or "").partition("/")[0] == (second.invocation or "").partition("/")[0]


async def test_another_image_of_the_same_name_makes_another_container(
    composed: ComposeHarness, one_compose: str
) -> None:
    name = f"citadel-test/{composed.containers.run}"
    engine, image = composed.containers.engine, composed.containers.image
    engine.post(f"/images/{image}/tag", params={"repo": name, "tag": "latest"}).raise_for_status()
    launch = composed.launch("web", composed.spec("web", RUN | {"image": f"{name}:latest"}))
    try:
        async with composed.backend() as backend:
            first = await backend.start(launch)
            await composed.ready(launch)
            await backend.stop(WEB, LONG)
            committed = engine.post(
                "/commit",
                params={"container": composed.name(launch), "repo": name, "tag": "latest"},
                json={"Labels": {"version": "2"}},
            )
            committed.raise_for_status()
            second = await backend.start(composed.launch("web", model_of(launch.backend), 2))
            found = composed.containers.inspect(composed.name(launch))
        assert found is not None
        assert found["Image"] == committed.json()["Id"]
        assert first.invocation != second.invocation
    finally:
        composed.clear()
        engine.delete(f"/images/{name}:latest", params={"force": "1"})


async def test_two_instances_of_a_service_that_was_scaled_up_are_not_guessed_at(composed: ComposeHarness) -> None:
    launch = composed.launch("web", composed.spec("web", RUN))
    async with composed.backend() as backend:
        await backend.start(launch)
    composed.scale_up(WEB)
    async with composed.backend() as backend:
        with pytest.raises(BackendError, match=r"^web@n1: 2 containers of compose service 'web' run \(.*-second"):
            await backend.start(launch)


async def test_an_image_that_cannot_be_had_is_said(composed: ComposeHarness, one_compose: str) -> None:
    # A registry on a closed port of this machine.
    launch = composed.launch("web", composed.spec("web", RUN | {"image": "localhost:1/nonesuch:1"}))
    async with composed.backend() as backend:
        with pytest.raises(BackendError) as refused:
            await backend.start(launch)
        assert await backend.survivors() == ()
    assert str(refused.value).startswith(f"web@n1: backend.service: {one_compose} cannot make 'web' of ")
    assert "localhost:1" in str(refused.value)


async def test_a_service_that_is_not_in_the_file_is_said(composed: ComposeHarness, one_compose: str) -> None:
    spec = composed.spec("web", RUN)
    other = model.DockerBackend(file=spec.file, service="nonesuch", project=spec.project)
    async with composed.backend() as backend:
        with pytest.raises(BackendError, match=r"^web@n1: backend\.service: .*cannot make 'nonesuch'.*nonesuch"):
            await backend.start(composed.launch("web", other))


async def test_a_file_that_is_not_there_is_said(composed: ComposeHarness, tmp_path: Path) -> None:
    spec = model.DockerBackend(file=str(tmp_path / "nonesuch.yaml"), service="web")
    async with composed.backend() as backend:
        with pytest.raises(BackendError, match=r"^web@n1: backend\.file: there is no file .*/nonesuch\.yaml$"):
            await backend.start(composed.launch("web", spec))


async def test_a_machine_without_compose_is_told_what_to_install(
    composed: ComposeHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with composed.backend() as backend:
        with pytest.raises(BackendError, match=r"there is neither 'docker compose' nor 'docker-compose' in PATH"):
            await backend.start(composed.steady("web"))


async def test_the_project_is_named_as_compose_names_it(
    composed: ComposeHarness, one_compose: str, tmp_path: Path
) -> None:
    """What compose made by itself is found without its project being named in the stack file."""
    spec = composed.spec("web", RUN)
    folder = tmp_path / "My Shop_2.0"
    folder.mkdir()
    file = shutil.copy(spec.file or "", folder / "compose.yaml")
    assert project_of(Path(file), None) == "myshop_20"
    words = [*one_compose.split(), "-f", str(file), "up", "-d", "web"]
    composed.projects.add("myshop_20")
    process = await asyncio.create_subprocess_exec(*words, cwd=folder, stdout=-3, stderr=-3)
    assert await process.wait() == 0
    async with composed.backend() as backend:
        handle = await backend.start(composed.launch("web", model.DockerBackend(file=str(file), service="web")))
        assert [(handle.invocation or "").partition("/")[0]] == composed.containers.of_project("myshop_20")


async def test_compose_sees_no_secret_of_citadel(composed: ComposeHarness, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    fake = tmp_path / "docker-compose"
    fake.write_text(f"#!/bin/sh\n/usr/bin/env >{seen}\n")
    fake.chmod(0o755)
    env = {"PATH": str(tmp_path), "CONSUL_HTTP_TOKEN": "secret", "CITADEL_TOKEN_FILE": "x", "COLOUR": "red"}
    file = composed.spec("web", RUN).file or ""
    await Compose(env).make(WEB, Path(file), "p", "web")
    lines = seen.read_text().splitlines()
    assert "COLOUR=red" in lines
    assert not [line for line in lines if line.startswith(("CONSUL_", "CITADEL_"))]


def model_of(backend: model.Backend) -> model.DockerBackend:
    """The spec of a launch."""
    assert isinstance(backend, model.DockerBackend)
    return backend
