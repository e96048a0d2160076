"""Real containers for the contract: made by the test beforehand, or by compose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from backend_contract import NODE, STACK, until
from docker_engine import Containers
from engine_proxy import EngineProxy

from citadel_consul.backends.base import Backend, Handle, Launch
from citadel_consul.backends.docker.backend import DockerBackend
from citadel_consul.backends.docker.compose import Compose
from citadel_consul.backends.docker.container import id_of
from citadel_consul.backends.launches import Launches
from citadel_consul.core import model
from citadel_consul.core.model import Instance

# PID 1 of a container takes no signal that it has no handler for. A shell takes one at once only while it waits.
STEADY = "trap 'exit 143' TERM; trap 'echo reloaded' HUP; echo ready; while :; do sleep 1000 & wait $!; done"
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 1000 & wait $!; done"


@dataclass
class DockerHarness:
    """See ``backend_contract.Harness``. What is common to single containers and compose services."""

    state_dir: Path
    containers: Containers
    quiet_seconds: float = 10.0
    proxy: EngineProxy | None = None

    def backend(self) -> Backend:
        return DockerBackend(self.state_dir, STACK, quiet_seconds=self.quiet_seconds)

    def steady(self, service: str, generation: int = 1) -> Launch:
        return self.shell(service, STEADY, generation)

    def stubborn(self, service: str) -> Launch:
        return self.shell(service, STUBBORN)

    def failing(self, service: str, status: int) -> Launch:
        return self.shell(service, f"exit {status}")

    def irreloadable(self, service: str) -> Launch:
        launch = self.steady(service)
        assert isinstance(launch.backend, model.DockerBackend)
        return replace(launch, backend=replace(launch.backend, reload_signal=None))

    def shell(self, service: str, script: str, generation: int = 1) -> Launch:
        """A launch of a shell script."""
        raise NotImplementedError

    def name(self, launch: Launch) -> str:
        """The container of a launch, if there is one."""
        raise NotImplementedError

    async def ready(self, launch: Launch) -> None:
        await until(lambda: "ready" in self.containers.lines(self.name(launch)))

    async def reloads(self, launch: Launch, count: int) -> None:
        await until(lambda: self.containers.lines(self.name(launch)).count("reloaded") == count)

    def kill(self, handle: Handle) -> None:
        self.containers.kill(id_of(handle))

    def is_running(self, handle: Handle) -> bool:
        found = self.containers.inspect(id_of(handle))
        if found is None:
            return False
        state = self.containers.state(id_of(handle))
        return bool(state["Running"]) and f"{id_of(handle)}/{state['StartedAt']}" == handle.invocation

    @asynccontextmanager
    async def absence(self) -> AsyncIterator[None]:
        assert self.proxy is not None
        await self.proxy.close()
        try:
            yield
        finally:
            await self.proxy.open()

    async def start_by_hand(self, launch: Launch) -> None:
        await asyncio.to_thread(self.containers.start, self.name(launch))

    def is_started(self, launch: Launch) -> bool:
        return self.containers.inspect(self.name(launch)) is not None and bool(
            self.containers.state(self.name(launch))["Running"]
        )

    def make_unproven(self, instance: Instance) -> None:
        Launches(self.state_dir, STACK, "docker").path(instance).unlink()

    def clear(self) -> None:
        """Remove all that was made."""
        self.containers.clear()

    def launch(self, service: str, spec: model.DockerBackend, generation: int = 1) -> Launch:
        return Launch(STACK, Instance(service, NODE), generation, spec, 1.0)


@dataclass
class ContainerHarness(DockerHarness):
    """Containers that were made beforehand: each runs, at every start, the script that stands in its folder by then."""

    def shell(self, service: str, script: str, generation: int = 1) -> Launch:
        name, folder = self._name(service), self.state_dir / "scripts" / service
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "new").write_text(script)
        (folder / "new").replace(folder / "run")  # whoever runs the old one goes on with that
        if self.containers.inspect(name) is None:
            self.containers.create(name, "/bin/sh", "/script/run", host={"Binds": [f"{folder}:/script:ro"]})
        return self.launch(service, model.DockerBackend(container=name, reload_signal="SIGHUP"), generation)

    def name(self, launch: Launch) -> str:
        assert isinstance(launch.backend, model.DockerBackend)
        return launch.backend.container or ""

    def impossible(self, service: str) -> Launch:
        return self.launch(service, model.DockerBackend(container=f"{self._name(service)}-nonesuch"))

    def _name(self, service: str) -> str:
        return f"citadel-test-{self.containers.run}-{service}"


@dataclass
class ComposeHarness(DockerHarness):
    """Services of compose files: one file and one project for each."""

    projects: set[str] = field(default_factory=set)

    def shell(self, service: str, script: str, generation: int = 1) -> Launch:
        return self.launch(service, self.spec(service, {"command": ["/bin/sh", "-c", script]}), generation)

    def spec(
        self, service: str, definition: Mapping[str, object], others: Mapping[str, Mapping[str, object]] | None = None
    ) -> model.DockerBackend:
        """Write a compose file, unless it stands there already, and name a service of it."""
        file = self.file(service)
        common: dict[str, object] = {"image": self.containers.image, "network_mode": "none"}
        wanted: dict[str, Mapping[str, object]] = {service: definition, **(others or {})}
        services = {name: common | dict(parts) for name, parts in wanted.items()}
        text = json.dumps({"version": "3.8", "services": services}).replace("$", "$$")  # JSON is YAML
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        self.projects.add(self.project(service))
        return model.DockerBackend(
            file=str(file), service=service, project=self.project(service), reload_signal="SIGHUP"
        )

    def file(self, service: str) -> Path:
        return self.state_dir / "compose" / service / "compose.yaml"

    def project(self, service: str) -> str:
        return f"citadel-test-{self.containers.run}-{service}"

    def name(self, launch: Launch) -> str:
        found = self.containers.of_project(self.project(launch.instance.service))
        return found[0] if found else "nonesuch"

    def impossible(self, service: str) -> Launch:
        return self.launch(service, self.spec(service, {"command": ["/nonesuch"]}))

    async def start_by_hand(self, launch: Launch) -> None:
        spec = launch.backend
        assert isinstance(spec, model.DockerBackend)
        await Compose().make(launch.instance, Path(spec.file or ""), spec.project or "", spec.service or "")
        await super().start_by_hand(launch)

    def scale_up(self, instance: Instance) -> None:
        """Have a second container of the same compose service run."""
        labels = {
            "com.docker.compose.project": self.project(instance.service),
            "com.docker.compose.service": instance.service,
            "com.docker.compose.oneoff": "False",
            "com.docker.compose.container-number": "2",
        }
        second = self.containers.create(
            f"{self.project(instance.service)}-second", "/bin/sh", "-c", STEADY, labels=labels
        )
        self.containers.start(second)

    def clear(self) -> None:
        self.containers.clear(*self.projects)
