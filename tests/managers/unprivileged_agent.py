"""A backend of a user without any right, run on a machine: what becomes of a unit of the system, and of its own.

Usage: unprivileged_agent.py STATE_DIR SYSTEM_UNIT USER_UNIT. Prints a JSON object with what happened.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from citadel_consul.backends.base import InstanceExited, Launch
from citadel_consul.backends.systemd.backend import SystemdBackend
from citadel_consul.core import model
from citadel_consul.core.model import Instance
from citadel_consul.errors import CitadelError


async def main(state_dir: Path, system_unit: str, user_unit: str) -> dict[str, object]:
    said: dict[str, object] = {}
    exits: list[InstanceExited] = []
    async with SystemdBackend(state_dir, "s") as backend:
        backend.set_exit_sink(exits.append)
        theirs = Launch("s", Instance("theirs", "n1"), 1, model.SystemdBackend(system_unit), 1.0)
        try:
            await backend.start(theirs)
        except CitadelError as error:
            said["refusal"] = f"{type(error).__name__}: {error}"
        ours = Launch("s", Instance("ours", "n1"), 1, model.SystemdBackend(user_unit, bus="user"), 1.0)
        handle = await backend.start(ours)
        said["unit"], said["pid"] = handle.unit, handle.pid
        ended = await backend.stop(ours.instance, 20.0)
        said["exit"] = None if ended is None else ended.detail
        said["told"] = [exited.requested for exited in exits]
    return said


print(json.dumps(asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))))
