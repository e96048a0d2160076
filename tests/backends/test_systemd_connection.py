"""The systemd backend where no systemd answers: no bus, a bus that is silent, a bus that ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from citadel_consul.backends.base import Launch
from citadel_consul.backends.launches import Launches, LaunchRecord
from citadel_consul.backends.systemd import bus
from citadel_consul.backends.systemd.backend import SystemdBackend
from citadel_consul.core import model
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError, BackendUnavailable

UNIT = model.SystemdBackend("x.service")
LAUNCH = Launch("s", Instance("web", "n1"), 1, UNIT, 1.0)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(bus, "RETRY_SECONDS", 0.02)


def backend_at(folder: Path) -> SystemdBackend:
    return SystemdBackend(folder, "s", addresses={"system": f"unix:path={folder}/bus"})


@asynccontextmanager
async def silent_bus(folder: Path, *, hangs_up: bool) -> AsyncIterator[list[int]]:
    """A bus that takes connections and never says a word; yields how many it took."""
    taken: list[int] = []

    async def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(1)
        try:
            if not hangs_up:
                await _reader.read()
        finally:
            writer.close()

    server = await asyncio.start_unix_server(take, folder / "bus")
    async with server:
        yield taken


async def test_no_bus_is_unavailable_and_says_why(tmp_path: Path) -> None:
    async with backend_at(tmp_path) as backend:
        for call in (backend.start, backend.adopt):
            with pytest.raises(BackendUnavailable, match=r"^web@n1: x\.service: systemd does not .* No such file"):
                await call(LAUNCH)


async def test_a_bus_that_is_silent_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with silent_bus(tmp_path, hangs_up=False), backend_at(tmp_path) as backend:
        with pytest.raises(BackendUnavailable, match=r"^web@n1: x\.service: systemd does not answer"):
            await backend.start(LAUNCH)


async def test_a_bus_that_hangs_up_is_tried_again(tmp_path: Path) -> None:
    async with silent_bus(tmp_path, hangs_up=True) as taken, backend_at(tmp_path) as backend:
        with pytest.raises(BackendUnavailable, match=r"^web@n1: "):
            await backend.start(LAUNCH)
        assert len(taken) >= 2


async def test_without_a_bus_a_stop_of_what_never_ran_is_no_error_and_of_what_may_run_is(tmp_path: Path) -> None:
    async with backend_at(tmp_path) as backend:
        assert await backend.stop(LAUNCH.instance, 1.0) is None
        Launches(tmp_path, "s", "systemd").write(LAUNCH.instance, LaunchRecord(1, UNIT))
        with pytest.raises(BackendUnavailable, match=r"^web@n1: "):
            await backend.stop(LAUNCH.instance, 1.0)


async def test_a_spec_of_another_kind_is_refused(tmp_path: Path) -> None:
    async with backend_at(tmp_path) as backend:
        with pytest.raises(BackendError, match=r"^web@n1: backend\.kind: 'process' is not for units of systemd"):
            await backend.start(Launch("s", LAUNCH.instance, 1, model.ProcessBackend(("x",)), 1.0))


def test_buses_are_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert bus.default_address("system") == "unix:path=/run/dbus/system_bus_socket"
    assert bus.default_address("user") == "unix:path=/run/user/7/bus"
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/elsewhere")
    assert bus.default_address("user") == "unix:path=/elsewhere"
