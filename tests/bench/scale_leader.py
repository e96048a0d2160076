"""An orchestrator, as ``citadel orchestrator`` is, that also writes down each of its decisions.

``scale_leader.py RECORD orchestrator …``: to the file RECORD it appends, for each call of ``decide``, a line of JSON:
``[at, took, [[service, node], …]]``, the moment of its end (unix seconds), the seconds that it took, and what it
ordered to run.
"""

from __future__ import annotations

import os
import sys
import time

import orjson

from citadel_consul.cli.main import main
from citadel_consul.core.actions import Action, SetDesired
from citadel_consul.core.decide import decide
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.orchestrator import loop


def record_decisions(path: str) -> None:
    """Have every decision of the control loop timed."""
    record = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def timed(snapshot: Snapshot, now: float) -> list[Action]:
        began = time.perf_counter()
        actions = decide(snapshot, now)
        took = time.perf_counter() - began
        starts = [[*action.instance] for action in actions if isinstance(action, SetDesired) and action.desired.run]
        os.write(record, orjson.dumps([time.time(), took, starts]) + b"\n")
        return actions

    setattr(loop, "decide", timed)  # noqa: B010  # it is no part of what the module offers


if __name__ == "__main__":
    record_decisions(sys.argv.pop(1))
    main()
