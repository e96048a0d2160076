"""What the service manager is told of this process: that it is ready, how it is, and that its loops come round.

The protocol is that of ``sd_notify(3)``: datagrams of ``NAME=value`` lines to the socket that ``NOTIFY_SOCKET`` names.
Without that variable nobody listens, and everything here does nothing.

systemd's watchdog restarts a process that does not give a sign of life for ``WatchdogSec=``. A task that gave it every
few seconds would only prove that some task runs. So the loops that matter say themselves that they came round
(:meth:`Supervision.watching`), and the sign is given only while each of them did so in time. A loop that waits for an
absent Consul comes round as well: it tries again. What keeps them all from it, a call that blocks or a process that is
stopped, keeps the sign from being given in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass

log = logging.getLogger(__name__)

LONGEST_ROUND_SECONDS = 60.0
"""How long a loop may take to come round: several calls to a Consul that answers none of them before its time-out."""


@dataclass(slots=True)
class Pulse:
    """When a loop last came round, on the monotonic clock."""

    limit_seconds: float
    clock: Callable[[], float]
    at: float

    def beat(self) -> None:
        """Say that the loop came round."""
        self.at = self.clock()

    @property
    def stalled(self) -> bool:
        """Whether it is overdue."""
        return self.clock() - self.at > self.limit_seconds


class Supervision:
    """The service manager's ear. Without ``address`` nothing is said, without ``watchdog_seconds`` no sign of life.

    ``on_ready`` is called when the process says that it is ready.
    """

    def __init__(
        self,
        address: str = "",
        watchdog_seconds: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._clock = clock
        self._on_ready = on_ready
        self._pulses: dict[str, Pulse] = {}
        self._said = ""
        self._stalled: tuple[str, ...] = ()
        self.watchdog_seconds = watchdog_seconds if address else None

    @classmethod
    def from_environment(
        cls, environ: MutableMapping[str, str] | None = None, *, on_ready: Callable[[], None] = lambda: None
    ) -> Supervision:
        """As the service manager asks for it. The variables are taken out: they do not mean our child processes."""
        given = os.environ if environ is None else environ
        address = given.pop("NOTIFY_SOCKET", "")
        micros, pid = given.pop("WATCHDOG_USEC", ""), given.pop("WATCHDOG_PID", "")
        meant = micros.isdecimal() and pid in ("", str(os.getpid()))
        return cls(address, int(micros) / 1e6 if meant else None, on_ready=on_ready)

    def ready(self, status: str) -> None:
        """Say that what a start waits for is done, and have ``on_ready`` called."""
        self._said = status
        self._send("READY=1", f"STATUS={status}")
        self._on_ready()

    def say(self, status: str) -> None:
        """Say in one line how things are (``systemctl status`` shows it)."""
        if status != self._said:
            self._said = status
            self._send(f"STATUS={status}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1", "STATUS=stopping")

    @contextmanager
    def watching(self, name: str, limit_seconds: float = LONGEST_ROUND_SECONDS) -> Iterator[Pulse]:
        """Have the watchdog mind a loop for the time of the block; the loop calls the pulse's ``beat``."""
        pulse = Pulse(limit_seconds, self._clock, self._clock())
        self._pulses[name] = pulse
        try:
            yield pulse
        finally:
            if self._pulses.get(name) is pulse:
                del self._pulses[name]

    def sign(self) -> bool:
        """Give a sign of life if every loop that is minded came round in time; returns whether it was given."""
        stalled = tuple(name for name, pulse in self._pulses.items() if pulse.stalled)
        if stalled != self._stalled:
            self._stalled = stalled
            if stalled:
                log.critical("%s did not come round in time: no more signs of life are given", ", ".join(stalled))
        if not stalled:
            self._send("WATCHDOG=1")
        return not stalled

    async def run(self) -> None:
        """Give signs of life until cancelled, three for each span of the watchdog."""
        while self.watchdog_seconds is not None:
            self.sign()
            await asyncio.sleep(self.watchdog_seconds / 3)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        message = "\n".join(text.replace("\n", " ") for text in lines).encode()
        # Not blocking: a manager that does not read holds nobody up.
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as line:
            line.sendto(message, self._address)
