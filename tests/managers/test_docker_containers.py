"""What happens to containers beside what citadel does with them, and what their engine would do by itself."""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from backend_contract import LONG, NODE, until, watched
from docker_fixtures import containers, containers_can_run, proxy, single
from docker_harness import STEADY, ContainerHarness

from citadel_consul.backends.base import Backend, Exit, Gone, Notice, Running
from citadel_consul.core import model
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError

__all__ = ["containers", "containers_can_run", "proxy", "single"]

WEB = Instance("web", NODE)


def told(backend: Backend) -> list[Notice]:
    """What a backend thinks people should know, from now on."""
    notices: list[Notice] = []
    backend.set_notice_sink(notices.append)
    return notices


def named(single: ContainerHarness, **host: object) -> tuple[str, model.DockerBackend]:
    """A steady container with these settings of the engine, and its spec."""
    name = f"citadel-test-{single.containers.run}-{secrets.token_hex(3)}"
    single.containers.create(name, "/bin/sh", "-c", STEADY, host=host)
    return name, model.DockerBackend(container=name)


def policy(single: ContainerHarness, name: str) -> object:
    """When the engine itself restarts a container."""
    found = single.containers.inspect(name)
    assert found is not None
    return found["HostConfig"]["RestartPolicy"]["Name"]  # type: ignore[index]


# Ends.


async def test_an_exit_is_noticed_as_soon_as_the_engine_tells(single: ContainerHarness) -> None:
    delays = []
    async with single.backend() as backend:
        exits = watched(backend)
        for generation in range(1, 8):
            handle = await backend.start(single.steady("web", generation))
            begun = time.perf_counter()
            os.kill(handle.pid or 0, 9)
            await exits.next()
            delays.append(time.perf_counter() - begun)
    assert statistics.median(delays) < 0.5


async def test_a_container_that_is_restarted_by_somebody_else_has_ended(single: ContainerHarness) -> None:
    launch = single.steady("web")
    async with single.backend() as backend:
        exits = watched(backend)
        first = await backend.start(launch)
        await single.ready(launch)
        await asyncio.to_thread(single.containers.restart, single.name(launch))
        exited = await exits.next()
        assert (exited.generation, exited.requested) == (1, False)
        await until(lambda: single.containers.state(single.name(launch))["Running"] is True)
        # It runs again by now: the start that the leader orders takes it as it is.
        second = await backend.start(single.steady("web", 2))
        assert second != first
        assert single.is_running(second)


async def test_a_container_that_is_removed_has_ended(single: ContainerHarness) -> None:
    launch = single.steady("web")
    async with single.backend() as backend:
        exits = watched(backend)
        await backend.start(launch)
        await asyncio.to_thread(single.containers.remove, single.name(launch))
        assert (await exits.next()).exit in {
            Exit(None, 9, "killed by SIGKILL"),
            Exit.unknown("its container was removed"),
        }
        with pytest.raises(BackendError, match=r"^web@n1: backend\.container: there is no container '"):
            await backend.start(single.launch("web", launch.backend, 2))  # type: ignore[arg-type]


async def test_a_container_that_removes_itself_tells_its_status(single: ContainerHarness) -> None:
    name = f"citadel-test-{single.containers.run}-once"
    single.containers.create(name, "/bin/sh", "-c", "sleep 0.3; exit 4", host={"AutoRemove": True})
    async with single.backend() as backend:
        exits = watched(backend)
        await backend.start(single.launch("web", model.DockerBackend(container=name)))
        assert (await exits.next()).exit == Exit(4, None, "exit status 4")


async def test_want_of_memory_is_said(single: ContainerHarness) -> None:
    name = f"citadel-test-{single.containers.run}-greedy"
    script = "a=x; while :; do a=$a$a; done"
    limit = 16 * 1024 * 1024
    single.containers.create(name, "/bin/sh", "-c", script, host={"Memory": limit, "MemorySwap": limit})
    async with single.backend() as backend:
        exits = watched(backend)
        await backend.start(single.launch("web", model.DockerBackend(container=name)))
        exited = await exits.next()
    if single.containers.state(name)["OOMKilled"]:  # it is for the kernel to say: without the cgroup there is no limit
        assert exited.exit.detail == "killed by SIGKILL: it ran out of the memory that its container may use"
    else:
        assert exited.exit.detail


async def test_a_frozen_container_stops_politely(single: ContainerHarness) -> None:
    launch = single.steady("web")
    async with single.backend() as backend:
        await backend.start(launch)
        await single.ready(launch)
        await asyncio.to_thread(single.containers.pause, single.name(launch))
        assert await backend.stop(WEB, LONG) == Exit(None, 15, "killed by SIGTERM")


async def test_the_stop_signal_of_the_image_is_the_one_sent(single: ContainerHarness) -> None:
    name = f"citadel-test-{single.containers.run}-quits"
    script = "trap 'exit 11' QUIT; echo ready; while :; do sleep 1000 & wait $!; done"
    single.containers.create(name, "/bin/sh", "-c", script, StopSignal="SIGQUIT")
    launch = single.launch("web", model.DockerBackend(container=name))
    async with single.backend() as backend:
        await backend.start(launch)
        await single.ready(launch)
        assert await backend.stop(WEB, LONG) == Exit(11, None, "exit status 11")


async def test_an_agent_that_is_killed_leaves_what_the_next_one_adopts(single: ContainerHarness) -> None:
    launch = single.steady("web", 2)
    program = f"""
import asyncio, os, signal
from pathlib import Path
from citadel_consul.backends.base import Launch
from citadel_consul.backends.docker.backend import DockerBackend
from citadel_consul.core import model
spec = model.DockerBackend(container={single.name(launch)!r}, reload_signal="SIGHUP")
async def main():
    async with DockerBackend(Path({str(single.state_dir)!r}), {launch.stack!r}) as backend:
        await backend.start(Launch({launch.stack!r}, model.Instance("web", {NODE!r}), 2, spec, 1.0))
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], timeout=60, check=False)
    async with single.backend() as backend:
        exits = watched(backend)
        assert await backend.survivors() == (WEB,)
        found = await backend.adopt(launch)
        assert isinstance(found, Running)
        assert found.generation == 2
        single.kill(found.handle)
        assert (await exits.next()).exit == Exit(None, 9, "killed by SIGKILL")


async def test_what_was_killed_between_order_and_start_is_found_by_its_name(single: ContainerHarness) -> None:
    """The agent dies after it has asked the engine, and before it can write down what the engine did."""
    launch = single.steady("web", 5)
    async with single.backend() as backend:
        starting = asyncio.create_task(backend.start(launch))
        await until(lambda: single.containers.state(single.name(launch))["Running"] is True)
        starting.cancel()
        await asyncio.wait({starting})
    async with single.backend() as backend:
        found = await backend.adopt(launch)
        assert isinstance(found, Running)
        assert found.generation == 5


# Who restarts.


@pytest.mark.parametrize("name", ["always", "unless-stopped", "on-failure"])
async def test_the_engine_does_not_restart_what_citadel_restarts(single: ContainerHarness, name: str) -> None:
    container, spec = named(single, RestartPolicy={"Name": name})
    async with single.backend() as backend:
        notices, exits = told(backend), watched(backend)
        handle = await backend.start(single.launch("web", spec))
        assert policy(single, container) == "no"
        (notice,) = notices
        assert notice.message == (
            f"container {container} had the restart policy {name!r}, and citadel restarts it: switched off "
            f"(docker update --restart={name} {container} puts it back, and so does citadel handback)"
        )
        os.kill(handle.pid or 0, 9)
        await exits.next()
        await asyncio.sleep(0.3)  # the engine would wait for 100 ms
        assert single.containers.state(container)["Running"] is False


async def test_a_container_that_the_engine_restarts_again_and_again_is_taken_out_of_its_hands(
    single: ContainerHarness,
) -> None:
    container = f"citadel-test-{single.containers.run}-crashing"
    single.containers.create(container, "/bin/false", host={"RestartPolicy": {"Name": "always"}})
    single.containers.start(container)
    launch = single.launch("web", model.DockerBackend(container=container))
    async with single.backend() as backend:
        exits = watched(backend)
        if isinstance(await backend.adopt(launch), Gone):  # as it happens to be: between two starts, or in one
            await backend.start(launch)
        assert (await exits.next()).exit == Exit(1, None, "exit status 1")
        assert policy(single, container) == "no"
        await asyncio.sleep(0.5)
        assert single.containers.state(container)["Running"] is False


async def test_a_container_that_is_given_back_runs_on_with_the_policy_that_it_had(single: ContainerHarness) -> None:
    container, spec = named(single, RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 4})
    launch = single.launch("web", spec)
    async with single.backend() as backend:
        handle = await backend.start(launch)
    async with single.backend() as backend:  # the next agent knows it as well
        exits = watched(backend)
        await backend.adopt(launch)
        await backend.give_back(WEB)
        assert single.is_running(handle)
        assert await backend.survivors() == ()
        found = single.containers.inspect(container)
        assert found is not None
        assert found["HostConfig"]["RestartPolicy"] == {  # type: ignore[index]
            "Name": "on-failure",
            "MaximumRetryCount": 4,
        }
        assert exits.seen == []
        # Wanted again, it is taken in hand again.
        assert await backend.adopt(launch) == Running(handle, 1)
        assert policy(single, container) == "no"


# The container's own health.


async def test_a_failing_health_check_of_the_container_is_said_with_its_output(single: ContainerHarness) -> None:
    name = f"citadel-test-{single.containers.run}-ill"
    probe = {"Test": ["CMD-SHELL", "echo disk full; test -e /tmp/well"], "Interval": 10**9, "Retries": 1}
    single.containers.create(name, "/bin/sh", "-c", STEADY, Healthcheck=probe)
    single.quiet_seconds = 2.0
    async with single.backend() as backend:
        notices, exits = told(backend), watched(backend)
        await backend.start(single.launch("web", model.DockerBackend(container=name)))
        await until(lambda: len(notices) == 1)
        assert notices[0] == Notice(WEB, "its container's own health check fails: disk full")
        words = ["docker", "exec", name, "/bin/touch", "/tmp/well"]
        await asyncio.to_thread(subprocess.run, words, check=True, timeout=30)
        await until(lambda: len(notices) == 2)
        assert notices[1] == Notice(WEB, "its container's own health check passes again")
        assert exits.seen == []


# Refusals.


async def test_what_the_engine_refuses_is_said_in_its_words(single: ContainerHarness, tmp_path: Path) -> None:
    name = f"citadel-test-{single.containers.run}-broken"
    single.containers.create(name, "/nonesuch/program")
    async with single.backend() as backend:
        with pytest.raises(BackendError, match=r"^web@n1: backend\.container: the Docker engine says: .*nonesuch"):
            await backend.start(single.launch("web", model.DockerBackend(container=name)))
        assert await backend.survivors() == ()


async def test_a_docker_host_that_cannot_be_reached_that_way_is_refused(
    single: ContainerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://somewhere")
    with pytest.raises(BackendError, match=r"^DOCKER_HOST=ssh://somewhere: citadel reaches a Docker engine at unix"):
        single.backend()
