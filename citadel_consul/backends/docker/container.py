"""A container as the engine describes it, and what its end means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from citadel_consul.backends.base import Exit, Handle

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
NUMBER_LABEL = "com.docker.compose.container-number"
ONE_OFF_LABEL = "com.docker.compose.oneoff"

_SIGNALLED = 128
_SIGNALS = range(1, 65)


@dataclass(frozen=True, slots=True)
class Container:
    """What counts of the engine's answer. Times are as the engine writes them (RFC 3339); ``created`` is its first."""

    id: str
    name: str
    created: str
    started_at: str
    running: bool
    paused: bool = False
    restarting: bool = False
    pid: int | None = None
    exit_code: int = 0
    out_of_memory: bool = False
    error: str = ""
    health: str = ""
    health_output: str = ""
    image: str = ""
    image_name: str = ""
    stop_signal: str = "SIGTERM"
    restart_policy: str = "no"
    restart_attempts: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def invocation(self) -> str:
        """What no other run of any container has: the container and when it was started."""
        return f"{self.id}/{self.started_at}"

    @property
    def handle(self) -> Handle:
        """The present run as the agent speaks of it."""
        return Handle("docker", pid=self.pid, unit=self.name, invocation=self.invocation)

    @property
    def exit(self) -> Exit:
        """How its last run ended."""
        if self.out_of_memory:
            return Exit(None, 9, "killed by SIGKILL: it ran out of the memory that its container may use")
        return exit_of(self.exit_code)


def exit_of(code: int) -> Exit:
    """What the engine's exit code means: 128 and the number of the signal for a program that a signal ended.

    A program that ends itself with such a status, as a shell does whose child was killed, looks the same.
    """
    number = code - _SIGNALLED
    return Exit.by_signal(number) if number in _SIGNALS else Exit.with_status(code)


def id_of(handle: Handle) -> str:
    """The container of a handle."""
    return (handle.invocation or "").partition("/")[0]


def decode(answer: Mapping[str, object]) -> Container:
    """The engine's answer to ``GET /containers/<id>/json``.

    Raises:
        TypeError, KeyError, ValueError: it is no such answer.
    """
    state, config, host = (_part(answer, name) for name in ("State", "Config", "HostConfig"))
    policy = _part(host, "RestartPolicy") if host.get("RestartPolicy") else {}
    health = _part(state, "Health") if state.get("Health") else {}
    return Container(
        id=str(answer["Id"]),
        name=str(answer["Name"]).removeprefix("/"),
        created=str(answer["Created"]),
        started_at=str(state["StartedAt"]),
        running=bool(state["Running"]),
        paused=bool(state.get("Paused")),
        restarting=bool(state.get("Restarting")),
        pid=_whole(state.get("Pid")) or None,
        exit_code=_whole(state.get("ExitCode")),
        out_of_memory=bool(state.get("OOMKilled")),
        error=str(state.get("Error") or ""),
        health=str(health.get("Status") or ""),
        health_output=_last_output(health.get("Log")),
        image=str(answer.get("Image") or ""),
        image_name=str(config.get("Image") or ""),
        stop_signal=str(config.get("StopSignal") or "SIGTERM"),
        restart_policy=str(policy.get("Name") or "no"),
        restart_attempts=_whole(policy.get("MaximumRetryCount")),
        labels={str(key): str(value) for key, value in _part(config, "Labels").items()} if config.get("Labels") else {},
    )


def _part(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = value[name]
    if not isinstance(part, dict):
        raise TypeError(f"{name} is {part!r}")
    return part


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _last_output(log: object) -> str:
    """The last line that the container's own health check wrote."""
    if not isinstance(log, list) or not log or not isinstance(log[-1], dict):
        return ""
    lines = str(log[-1].get("Output") or "").strip().splitlines()
    return lines[-1][:200] if lines else ""
