"""What the docker backend does when its engine dies, hangs, is absent or must not be used."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from backend_contract import LONG, STACK, watched
from docker_engine import PrivateEngine
from docker_fixtures import breakable, containers_can_run, private_engine
from docker_harness import ContainerHarness
from engine_proxy import EngineProxy

from citadel_consul.backends.base import Exit, Running
from citadel_consul.backends.docker.backend import DockerBackend
from citadel_consul.errors import BackendError, BackendUnavailable

__all__ = ["breakable", "containers_can_run", "private_engine"]

BACK = 60.0  # an engine that was killed takes some seconds to come back


async def test_an_engine_that_is_restarted_ends_its_containers_and_that_is_noticed(
    breakable: ContainerHarness, private_engine: PrivateEngine
) -> None:
    launch = breakable.steady("web")
    async with breakable.backend() as backend:
        exits = watched(backend)
        await backend.start(launch)
        await breakable.ready(launch)
        await asyncio.to_thread(private_engine.stop)
        await asyncio.to_thread(private_engine.start)
        async with asyncio.timeout(BACK):
            exited = await exits.next()
        assert (exited.instance, exited.requested) == (launch.instance, False)
        assert breakable.is_running(await backend.start(breakable.steady("web", 2)))


async def test_an_engine_that_was_killed_is_found_again_and_what_became_of_its_containers_is_seen(
    breakable: ContainerHarness, private_engine: PrivateEngine
) -> None:
    launch = breakable.steady("web")
    async with breakable.backend() as backend:
        exits = watched(backend)
        await backend.start(launch)
        private_engine.kill()
        with pytest.raises(BackendUnavailable, match=r"there is no Docker engine at |broke off"):
            await backend.stop(launch.instance, 1.0)
        assert exits.seen == []  # nobody knows yet
        await asyncio.to_thread(private_engine.start)
        async with asyncio.timeout(BACK):
            await exits.next()  # the engine ends what it finds running
            handle = await backend.start(breakable.steady("web", 2))
        assert breakable.is_running(handle)


async def test_an_engine_that_hangs_keeps_nobody_waiting_for_ever(
    breakable: ContainerHarness, private_engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("citadel_consul.backends.docker.engine.ANSWER_SECONDS", 0.5)
    launch = breakable.steady("web")
    async with breakable.backend() as backend:
        exits = watched(backend)
        handle = await backend.start(launch)
        private_engine.signal(signal.SIGSTOP)
        try:
            with pytest.raises(BackendUnavailable, match="does not answer"):
                async with asyncio.timeout(LONG):
                    await backend.stop(launch.instance, LONG)
        finally:
            private_engine.signal(signal.SIGCONT)
        os.kill(handle.pid or 0, signal.SIGKILL)
        await exits.next()


async def test_a_stream_of_events_that_is_dead_without_a_word_costs_no_exit(
    breakable: ContainerHarness, private_engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy between agent and engine forgets the streams of events, and serves everything else."""
    launch = breakable.steady("web")
    async with EngineProxy(str(private_engine.socket), breakable.state_dir / "proxy.sock", deaf=True) as proxy:
        monkeypatch.setenv("DOCKER_HOST", proxy.host)
        async with DockerBackend(breakable.state_dir, STACK, quiet_seconds=0.5) as backend:
            exits = watched(backend)
            handle = await backend.start(launch)
            breakable.kill(handle)
            exited = await exits.next()
            assert exited.exit == Exit(None, 9, "killed by SIGKILL")


async def test_an_engine_that_is_absent_at_the_start_is_waited_for(
    breakable: ContainerHarness, private_engine: PrivateEngine
) -> None:
    launch = breakable.steady("web")
    await asyncio.to_thread(private_engine.stop)
    async with breakable.backend() as backend:
        with pytest.raises(
            BackendUnavailable, match=r"there is no Docker engine at .*: start it \(systemctl start docker\)"
        ):
            await backend.adopt(launch)
        with pytest.raises(BackendUnavailable):
            await backend.start(launch)
        await asyncio.to_thread(private_engine.start)
        exits = watched(backend)
        handle = await backend.start(launch)
        breakable.kill(handle)
        await exits.next()


async def test_what_ran_on_while_no_agent_looked_is_adopted_by_the_next(breakable: ContainerHarness) -> None:
    launch = breakable.steady("web", 3)
    async with breakable.backend() as backend:
        handle = await backend.start(launch)
    async with breakable.backend() as backend:
        assert await backend.adopt(launch) == Running(handle, 3)


async def test_a_socket_that_may_not_be_used_is_said_with_what_helps(
    breakable: ContainerHarness, private_engine: PrivateEngine
) -> None:
    launch = breakable.steady("web")
    mode = private_engine.socket.stat().st_mode
    private_engine.socket.chmod(0o600)
    os.seteuid(65534)
    try:
        async with breakable.backend() as backend:
            with pytest.raises(BackendError) as refused:
                await backend.adopt(launch)
    finally:
        os.seteuid(0)
        private_engine.socket.chmod(mode)
    assert str(refused.value).startswith("web@n1: this agent (uid 65534) may not use the Docker engine at ")
    assert "usermod -aG docker" in str(refused.value)
