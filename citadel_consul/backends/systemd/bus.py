"""The connection to a service manager (systemd, or that of a user) over D-Bus, made again whenever it is lost.

Signals tell what changes: ``PropertiesChanged`` of the units that are watched, and ``JobRemoved``. A connection can
end (dbus restarted), and systemd can leave the bus and come back under another name (``systemctl daemon-reexec``).
Either loses signals, so after either the watched units are looked at afresh: ``on_return`` is called.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.errors import AuthError, DBusError, InvalidAddressError

from citadel_consul.backends.systemd import refusals
from citadel_consul.backends.systemd.unit import SERVICE_INTERFACE, UNIT_INTERFACE
from citadel_consul.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

SYSTEMD = "org.freedesktop.systemd1"
_PATH, _MANAGER = "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"
_DBUS, _DBUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
_PROPERTIES = "org.freedesktop.DBus.Properties"

_INTERFACES = (UNIT_INTERFACE, SERVICE_INTERFACE)
_Outcome = dict[str, object] | BackendError | BackendUnavailable

CALL_SECONDS = 25.0  # systemd answers in a millisecond, but while it reads all units anew it answers nobody
PATIENCE_SECONDS = 2.0  # how long a call waits for a connection: a restart of dbus takes less
RETRY_SECONDS = 0.25
_KEPT_RESULTS = 1000

_OWNER_RULE = f"type='signal',sender='{_DBUS}',member='NameOwnerChanged',arg0='{SYSTEMD}'"
_JOBS_RULE = f"type='signal',sender='{SYSTEMD}',member='JobRemoved'"

Changed = Callable[["SystemdBus", str, Mapping[str, object]], None]


def default_address(name: str) -> str:
    """Where the bus is: that of the ``system``, or of the ``user`` that this process runs as."""
    if name == "system":
        return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket"
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return os.environ.get("DBUS_SESSION_BUS_ADDRESS") or f"unix:path={folder}/bus"


class SystemdBus:
    """One service manager. :meth:`run` has to run in a task for anything else to work.

    ``on_change`` is called with this object, the path of a watched unit and those of its properties that changed;
    ``on_return`` when signals may have been missed.
    """

    def __init__(
        self, name: str, address: str, *, on_change: Changed, on_return: Callable[[SystemdBus], Awaitable[None]]
    ) -> None:
        self.name = name
        self._address = address
        self._on_change = on_change
        self._on_return = on_return
        self._bus: MessageBus | None = None
        self._owner = ""
        self._connected = asyncio.Event()
        self._anew = asyncio.Event()
        self._why = "not connected yet"
        self._watched: set[str] = set()
        self._jobs: dict[str, asyncio.Future[str]] = {}
        self._results: dict[str, str] = {}

    # The connection.

    async def run(self) -> None:
        """Keep a connection, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    bus = await MessageBus(bus_address=self._address).connect()
            except (OSError, EOFError, AuthError, InvalidAddressError, DBusError, TimeoutError) as error:
                self._why = str(error) or type(error).__name__
            else:
                await self._serve(bus)
            await asyncio.sleep(RETRY_SECONDS)

    async def _serve(self, bus: MessageBus) -> None:
        bus.add_message_handler(self._on_message)
        self._bus = bus
        try:
            async with asyncio.TaskGroup() as group:
                observing = group.create_task(self._observe(bus))
                with suppress(OSError, EOFError):
                    await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
                observing.cancel()
            self._why = "the connection was lost"
            _log.warning("the %s bus ended the connection; connecting again", self.name)
        finally:
            self._connected.clear()
            self._bus = None
            self._owner = ""
            self._give_up_jobs()
            await _close(bus)

    async def _observe(self, bus: MessageBus) -> None:
        """Subscribe, and look at everything, whenever systemd is there anew."""
        matched: set[str] = set()
        while True:
            self._anew.clear()
            try:
                for rule in (_OWNER_RULE, _JOBS_RULE, *(_rule(path) for path in tuple(self._watched))):
                    if rule not in matched:
                        await self._ask_bus(bus, "AddMatch", rule)
                        matched.add(rule)
                self._owner = await self._ask_bus(bus, "GetNameOwner", SYSTEMD)
                await self._subscribe(bus)
                self._connected.set()
                await self._on_return(self)
            except (BackendError, BackendUnavailable) as error:
                self._why = str(error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                await self._anew.wait()

    async def _subscribe(self, bus: MessageBus) -> None:
        """Have systemd send signals. One that has executed itself anew remembers who wanted them."""
        reply = await self._exchange(bus, "systemd", Message(SYSTEMD, _PATH, _MANAGER, "Subscribe"))
        if reply.message_type is MessageType.ERROR and reply.error_name != f"{SYSTEMD}.AlreadySubscribed":
            raise refusals.translated("systemd", str(reply.error_name), str(reply.body))

    async def _ask_bus(self, bus: MessageBus, member: str, argument: str) -> str:
        answer = await self._call(bus, _DBUS_PATH, _DBUS, member, "s", [argument], destination=_DBUS)
        return str(answer[0]) if answer else ""

    def _on_message(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.member == "NameOwnerChanged" and message.sender == _DBUS:
            self._owner = str(message.body[2])
            self._connected.clear()
            self._why = "systemd is not on the bus"
            self._give_up_jobs()
            if self._owner:
                self._anew.set()
        elif message.sender == self._owner and message.member == "JobRemoved":
            self._take_result(str(message.body[1]), str(message.body[3]))
        elif message.sender == self._owner and message.member == "PropertiesChanged" and message.path in self._watched:
            self._on_change(self, message.path, {name: value.value for name, value in message.body[1].items()})

    # Asking.

    async def load(self, unit: str) -> str:
        """The object path of a unit, loaded if need be; units that do not exist have one, too."""
        return str((await self._ask(unit, "LoadUnit", "s", [unit]))[0])

    async def properties(self, unit: str, path: str) -> dict[str, object]:
        """All properties of a unit at this moment."""
        found: dict[str, object] = {}
        async with asyncio.TaskGroup() as group:
            asking = [
                group.create_task(self._outcome(unit, path, interface))
                for interface in (UNIT_INTERFACE, SERVICE_INTERFACE)
            ]
        for task in asking:
            outcome = task.result()
            if isinstance(outcome, BackendError | BackendUnavailable):
                raise outcome
            found |= outcome
        return found

    async def watch(self, path: str) -> None:
        """Have the changes of a unit told from now on."""
        if path not in self._watched:
            self._watched.add(path)
            try:
                await self._ask_bus(await self._there(path), "AddMatch", _rule(path))
            except BaseException:
                self._watched.discard(path)
                raise

    # Ordering.

    async def job(self, unit: str, member: str) -> str:
        """Order ``StartUnit``, ``StopUnit``, ``RestartUnit`` or ``ReloadUnit``; returns the job, for :meth:`result`."""
        return str((await self._ask(unit, member, "ss", [unit, "replace"]))[0])

    async def result(self, job: str) -> str:
        """Wait for the result of a job: ``done``, ``failed``, ``canceled``, ``timeout``, ``dependency``, …

        Raises BackendUnavailable if the connection ends meanwhile.
        """
        if job in self._results:
            return self._results.pop(job)
        future = self._jobs.setdefault(job, asyncio.get_running_loop().create_future())
        return await asyncio.shield(future)

    async def reset_failed(self, unit: str) -> None:
        """Make a failed unit an inactive one, and forget how often it was started lately."""
        await self._ask(unit, "ResetFailedUnit", "s", [unit])

    async def kill(self, unit: str, number: int) -> None:
        """Send a signal to every process of a unit."""
        await self._ask(unit, "KillUnit", "ssi", [unit, "all", number])

    # Below.

    async def _ask(self, unit: str, member: str, signature: str, body: list[object]) -> list[object]:
        return await self._call(await self._there(unit), _PATH, _MANAGER, member, signature, body, unit=unit)

    async def _outcome(
        self, unit: str, path: str, interface: str
    ) -> dict[str, object] | BackendError | BackendUnavailable:
        """The properties of one interface. A failure is returned: a group of tasks would wrap it."""
        try:
            bus = await self._there(unit)
            (values,) = await self._call(bus, path, _PROPERTIES, "GetAll", "s", [interface], unit=unit)
        except (BackendError, BackendUnavailable) as error:
            return error
        return {name: value.value for name, value in values.items()} if isinstance(values, dict) else {}

    async def _there(self, unit: str) -> MessageBus:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._connected.wait()
        except TimeoutError:
            raise BackendUnavailable(f"{unit}: systemd does not answer on the {self.name} bus: {self._why}") from None
        if self._bus is None:
            raise BackendUnavailable(f"{unit}: systemd does not answer on the {self.name} bus: {self._why}")
        return self._bus

    async def _call(
        self,
        bus: MessageBus,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: list[object] | None = None,
        *,
        destination: str = SYSTEMD,
        unit: str = "systemd",
    ) -> list[object]:
        reply = await self._exchange(
            bus, unit, Message(destination, path, interface, member, signature=signature, body=body or [])
        )
        if reply.message_type is MessageType.ERROR:
            text = str(reply.body[0]) if reply.body else str(reply.error_name)
            raise refusals.translated(unit, str(reply.error_name), text)
        return list(reply.body)

    async def _exchange(self, bus: MessageBus, unit: str, message: Message) -> Message:
        """The reply to a message, which may be an error. Raises BackendUnavailable if there is none."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                reply = await bus.call(message)
        except TimeoutError:
            raise BackendUnavailable(f"{unit}: no answer to {message.member} on the {self.name} bus") from None
        except (OSError, EOFError, DBusError) as error:
            raise BackendUnavailable(f"{unit}: the {self.name} bus is lost: {error}") from error
        if reply is None:
            raise BackendUnavailable(f"{unit}: the {self.name} bus is lost")
        return reply

    def _give_up_jobs(self) -> None:
        """What became of them will not be told. Whoever waits may look, and try again."""
        for job, future in self._jobs.items():
            future.set_exception(BackendUnavailable(f"systemd ({self.name} bus): the result of {job} is lost"))
            future.exception()  # seen, even if nobody waits any longer
        self._jobs.clear()

    def _take_result(self, job: str, result: str) -> None:
        future = self._jobs.pop(job, None)
        if future is not None and not future.done():
            future.set_result(result)
            return
        # Nobody waits for it yet: the answer to the order itself may not have been taken up. Or it is not ours.
        self._results[job] = result
        while len(self._results) > _KEPT_RESULTS:
            del self._results[next(iter(self._results))]


def _rule(path: str) -> str:
    return f"type='signal',sender='{SYSTEMD}',path='{path}',interface='{_PROPERTIES}',member='PropertiesChanged'"


async def _close(bus: MessageBus) -> None:
    """End a connection, and let it give back its socket: it does so when it reads the end."""
    bus.disconnect()
    with suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            while bus.connected:  # noqa: ASYNC110 – no event tells
                await asyncio.sleep(0.001)
