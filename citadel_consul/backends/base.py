"""The protocol between the node agent and whatever runs a service.

A backend starts one instance at a time, notices its end at once, stops it with everything it left behind, and finds
again after a restart of the agent what an earlier agent started. Three rules hold for all of them, and the contract
suite in the tests checks them on each:

* **Nothing is started twice.** ``start`` of what already runs in the same generation hands back what runs, whether
  this agent started it or one that was killed a moment ago.
* **What is not proven ours is not touched.** A process number is no proof, since numbers come round again; a
  :class:`Handle` holds what is. When evidence is missing or contradicts itself, the answer is :class:`Unproven`.
* **An agent's end is not a service's end.** Leaving the backend's context stops the watching and nothing else.

A backend is an asynchronous context manager and works only inside its context, in one event loop. Its background
work belongs to the task that entered it: if that work fails, the task is cancelled and the context raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from signal import Signals
from types import TracebackType
from typing import Protocol, Self

from citadel_consul.core import model
from citadel_consul.core.model import Instance


@dataclass(frozen=True, slots=True)
class Handle:
    """What proves that a running thing is the one that was started.

    For a process: its number, its start time in clock ticks since boot (field 22 of ``/proc/<pid>/stat``) and the
    boot it belongs to. No two processes ever share all three.

    For what a service manager runs: ``unit``, the manager's name for it (a unit, a container), and ``invocation``,
    which the manager gives anew at every start (systemd's InvocationID; a container's id with the time of its start).
    ``pid`` is its main process then, for people, if there is one.
    """

    kind: str
    pid: int | None = None
    start_ticks: int | None = None
    boot_id: str | None = None
    unit: str | None = None
    invocation: str | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """All that a backend needs to start one instance. The strings of ``backend`` are rendered already.

    ``stop_timeout_seconds`` bounds what a backend does by itself after an exit that nobody asked for (ending what
    the service left behind); an ordered stop brings its own time-out.
    """

    stack: str
    instance: Instance
    generation: int
    backend: model.Backend
    stop_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Exit:
    """How an instance ended. ``code`` and ``signal`` are both ``None`` when nobody can know.

    Only a parent learns the exit status of a process, so it is lost when the agent that started it is gone.
    """

    code: int | None
    signal: int | None
    detail: str

    @classmethod
    def with_status(cls, code: int) -> Exit:
        """It ended by itself with this exit status."""
        return cls(code, None, f"exit status {code}")

    @classmethod
    def by_signal(cls, number: int, *, core_dumped: bool = False) -> Exit:
        """A signal ended it."""
        try:
            name = Signals(number).name
        except ValueError:  # real-time signals have numbers only
            name = f"signal {number}"
        return cls(None, number, f"killed by {name}{' (core dumped)' if core_dumped else ''}")

    @classmethod
    def unknown(cls, why: str) -> Exit:
        """It ended, and its status cannot be known."""
        return cls(None, None, f"exit status unknown: {why}")

    @property
    def succeeded(self) -> bool:
        """Whether it is known to have ended with status 0, which completes a oneshot service."""
        return self.code == 0


@dataclass(frozen=True, slots=True)
class InstanceExited:
    """An instance ended. ``requested`` tells an ordered stop from an end that nobody asked for."""

    instance: Instance
    generation: int
    exit: Exit
    requested: bool


ExitSink = Callable[[InstanceExited], None]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about an instance that people should know and that changes nothing by itself.

    ``handle`` is what runs now, if its manager has started it again by itself, as the spec has it.
    """

    instance: Instance
    message: str
    handle: Handle | None = None


NoticeSink = Callable[[Notice], None]


@dataclass(frozen=True, slots=True)
class Running:
    """Adopted: it runs, it is proven ours, and its exit will be noticed."""

    handle: Handle
    generation: int


@dataclass(frozen=True, slots=True)
class Gone:
    """Nothing of ours runs, so it may be started.

    ``generation`` is the last one that was started here, ``None`` if there is no trace of any. ``exit`` is how that
    one ended: known even across a restart of the agent if the agent that started it saw the end.
    """

    generation: int | None = None
    exit: Exit | None = None


@dataclass(frozen=True, slots=True)
class Unproven:
    """Something runs that may be ours, and nothing proves it. It is left alone, and nothing is started beside it."""

    reason: str


Adopted = Running | Gone | Unproven


class Backend(Protocol):
    """Runs instances. Every method may be called again after a cancellation or an error."""

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching. Services go on."""
        ...

    def set_exit_sink(self, sink: ExitSink) -> None:
        """Have ``sink`` called, in the event loop, the moment an exit is known.

        It is called once for every exit of a started or adopted instance, requested or not, and for a requested one
        before ``stop`` returns. It must not block and should not raise.
        """
        ...

    def set_notice_sink(self, sink: NoticeSink) -> None:
        """Have ``sink`` called, in the event loop, with what people should know (a second one who restarts, …).

        A notice is given once for its cause and not repeated. It must not block and should not raise.
        """
        ...

    async def start(self, launch: Launch) -> Handle:
        """Start an instance, and return once the program is executed (which says nothing of its readiness).

        Idempotent for the same generation. Waits for an ending predecessor to be gone with all it left behind.

        Raises:
            BackendError: it cannot be started (no such program, no such user, another generation still runs, …);
                the message names the instance and the field of its spec.
            BackendUnavailable: it cannot be started now (no memory, disk full, service manager down).
        """
        ...

    async def adopt(self, launch: Launch) -> Adopted:
        """Find what an earlier agent started for this instance, and watch it if it is proven ours.

        The backend of the launch may be of another kind than this one runs: then what this one has on record is meant.

        What is proven ours and is without its main process is ended before the answer is :class:`Gone`.
        """
        ...

    async def survivors(self) -> tuple[Instance, ...]:
        """The instances that an earlier agent started and did not see end, whether anybody still wants them or not.

        An agent calls this to find, and stop, what was taken out of its stack while no agent looked.
        """
        ...

    async def stop(self, instance: Instance, timeout_seconds: float) -> Exit | None:
        """Stop an instance and all that belongs to it: first politely, after ``timeout_seconds`` by force.

        Returns how it ended, or ``None`` when nothing ran. A second call during a stop joins it, and can shorten its
        time-out. It works for what was neither started nor adopted by this agent as well.

        Raises:
            BackendError: what runs is not proven to be ours.
            BackendUnavailable: something outlived even SIGKILL; it is tried again at the next call.
        """
        ...

    async def give_back(self, instance: Instance) -> None:
        """Put back what was changed about an instance when it was taken in hand, and let go of it. It runs on.

        Raises:
            BackendError: it cannot be put back.
            BackendUnavailable: it cannot be put back now.
        """
        ...

    def forget(self, instance: Instance) -> None:
        """Remove what is kept of an instance that does not run and is no business of this node any more.

        Nothing happens if it runs. Its data is not touched.
        """
        ...

    async def reload(self, instance: Instance) -> None:
        """Have a running instance read its configuration again.

        Raises:
            BackendError: nothing runs, or its spec names no way to reload.
        """
        ...
