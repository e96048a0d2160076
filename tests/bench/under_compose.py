"""A graph under docker-compose 1.29: a container for each service, ``depends_on`` with ``condition: service_healthy``.

The image is empty; Python is this machine's own, bound into it read-only. The very same program is its own health
check as well. An interval of 1 s is the shortest that compose takes. The containers are made beforehand, so only their
start is measured; `up` returns before the last ones are ready, so the clock stops when they are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "managers"))

from busybox_image import archive
from cycle import Cycle, started, stopped
from figures import NotMeasured
from timed_service import TimedServices

INSIDE = Path("/bench")
PYTHON_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", sys.base_prefix)
"""What a Python of this machine may need: the dynamic linker, libraries, and itself."""
LARGEST = 50
"""Services. Each container's check is an exec by the engine, every second: more of them take all of two cores."""
WITHIN_SECONDS = 300.0


@contextmanager
def under_compose(services: TimedServices) -> Iterator[Callable[[], Cycle]]:
    """Make the containers; what is yielded starts and stops everything once."""
    if len(services.graph.services) > LARGEST:
        raise NotMeasured(f"the health checks of more than {LARGEST} containers take all of a small machine")
    if shutil.which("docker-compose") is None:
        raise NotMeasured("docker-compose is not installed (apt-get install docker-compose)")
    name = f"citadel-bench-{uuid.uuid4().hex[:8]}"
    image = f"{name}:run"
    _import(services, image)
    try:
        file = services.folder / "compose.json"
        file.write_text(json.dumps(_composed(services, image)))
        words = ("docker-compose", "--project-name", name, "--file", str(file))
        try:
            _run(*words, "up", "--no-start")
            yield lambda: _cycle(services, words)
        finally:
            _run(*words, "down", "--timeout", "5")
    finally:
        _run("docker", "image", "rm", "--force", image)


def _import(services: TimedServices, image: str) -> None:
    root = archive({})
    done = subprocess.run(["docker", "import", "-", image], input=root, capture_output=True, check=False)
    if done.returncode:
        raise NotMeasured(f"no Docker engine can be used: {done.stderr.decode().strip()[-300:]}")


def _composed(services: TimedServices, image: str) -> dict[str, object]:
    return {
        "version": "2.4",
        "services": {
            name: {
                "image": image,
                "command": list(services.command(name, INSIDE)),
                "network_mode": "none",
                "volumes": [f"{services.folder}:{INSIDE}", *_python_volumes()],
                "depends_on": {needed: {"condition": "service_healthy"} for needed in services.graph.needs(name)},
                "healthcheck": {
                    "test": ["CMD", *services.probe(name, INSIDE)],
                    "interval": "1s",
                    "timeout": "10s",
                    "retries": 60,
                },
            }
            for name in services.graph.services
        },
    }


def _python_volumes() -> list[str]:
    return [f"{folder}:{folder}:ro" for folder in PYTHON_FOLDERS if Path(folder).is_dir()]


def _cycle(services: TimedServices, words: tuple[str, ...]) -> Cycle:
    services.clear()
    requested = time.time()
    _run(*words, "up", "--detach")
    start = started(services.graph, services.until(lambda life: life.listening), requested, None)
    requested = time.time()
    _run(*words, "stop", "--timeout", "60")
    return Cycle(start, stopped(services.graph, services.until(lambda life: life.exited), requested, time.time()))


def _run(*words: str) -> None:
    environment = {**os.environ, "COMPOSE_HTTP_TIMEOUT": "300"}
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=WITHIN_SECONDS,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise NotMeasured(f"{words[0]} {words[-2]} failed: {done.stderr.strip()[-300:]}")
