"""An agent that starts one service and is killed at a chosen moment: ``STATE_DIR SERVICE MOMENT SCRIPT``.

The moments: ``before-exec`` (the intent is written), ``after-exec`` (the program runs, its number is not on record),
``after-record``, ``running`` (the service has written 'ready'), ``stopping`` (the stop signal is out).
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from backend_contract import until
from process_harness import ProcessHarness

from citadel_consul.backends import spawn
from citadel_consul.backends.base import Launch


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit("SIGKILL did not kill")


def _die_at_exec(*, before: bool) -> None:
    execute = spawn.execute

    def execute_and_die(program: spawn.Program, log: int) -> subprocess.Popen[bytes]:
        if not before:
            execute(program, log)
        _die()

    spawn.execute = execute_and_die


async def _run(harness: ProcessHarness, launch: Launch, moment: str) -> None:
    async with harness.backend() as backend:
        await backend.start(launch)
        if moment == "after-record":
            _die()
        await harness.ready(launch)
        if moment == "running":
            _die()
        async with asyncio.TaskGroup() as group:
            group.create_task(backend.stop(launch.instance, 1000.0))
            await until(lambda: "stopping" in harness.lines(launch))
            _die()


def main() -> None:
    state_dir, service, moment, script = sys.argv[1:]
    if moment in {"before-exec", "after-exec"}:
        _die_at_exec(before=moment == "before-exec")
    harness = ProcessHarness(Path(state_dir))
    asyncio.run(_run(harness, harness.shell(service, script), moment))


if __name__ == "__main__":
    main()
