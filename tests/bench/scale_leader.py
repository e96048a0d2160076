"""An orchestrator, as ``citadel orchestrator`` is, that also writes down how long each look at the stack took.

``scale_leader.py RECORD orchestrator …``: to the file RECORD it appends, for each call of ``decide``, the moment (unix
seconds) and the seconds that it took, as two doubles of the machine.
"""

from __future__ import annotations

import os
import struct
import sys
import time

from citadel_consul.cli.main import main
from citadel_consul.core.actions import Action
from citadel_consul.core.decide import decide
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.orchestrator import loop


def record_decisions(path: str) -> None:
    """Have every decision of the control loop timed."""
    record = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def timed(snapshot: Snapshot, now: float) -> list[Action]:
        began = time.perf_counter()
        actions = decide(snapshot, now)
        os.write(record, struct.pack("dd", time.time(), time.perf_counter() - began))
        return actions

    setattr(loop, "decide", timed)  # noqa: B010  # it is no part of what the module offers


if __name__ == "__main__":
    record_decisions(sys.argv.pop(1))
    main()
