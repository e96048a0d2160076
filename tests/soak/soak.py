"""Half an hour of churn with faults on real processes and a real Consul, and the proof that nothing grows.

    bin/soak [--minutes 30] [--json FILE] [--seed SEED] [--write]

Three orchestrators, three node agents and a client of the discovery library around a Consul server with an agent for
each node; thirty instances of services that die, fall ill, are restarted, rolled, drained, held, added and removed,
while leaders, agents and Consul are killed, paused and cut off. Every ten seconds all that can be counted is. The first
fifth is a warm-up. The status is the number of measures that grow, or that are left over at rest; they are named.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / part) for part in ("", "system", "faults", "notification"))]

import census
from churn import MOST_EXTRAS, Churn
from grounds import STACK, Grounds
from judgement import HEAD, Bound, Census, Row, judge
from page_table import renew

from citadel_consul.agent.chronicle import MAX_BYTES
from citadel_consul.consul.binary import find_consul
from citadel_consul.consul.connection import IDLE_SECONDS
from citadel_consul.orchestrator.housekeeping import EVENTS_KEPT, EVERY_SECONDS, OPERATIONS_KEPT
from citadel_consul.orchestrator.outbox import KEPT as NOTICES_KEPT

PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
SHOWN = re.compile(r": (resident KiB|blocks of memory|tasks|descriptors)$|^keys |^sessions|^services|^checks|/itself$")
WARM_UP_SHARE = 0.2
SETTLE_SECONDS = max(2 * EVERY_SECONDS, IDLE_SECONDS) + 15.0
"""At rest: the leader's housekeeping comes round twice, idle connections run out, waits for Consul end."""
THREADS = 2 + min(32, (os.cpu_count() or 1) + 4)
LOOKS_AT_REST = 5
BETWEEN_LOOKS_SECONDS = 2.0


class Observer:
    """Takes a census every so often, on a thread of its own."""

    def __init__(self, grounds: Grounds, every_seconds: float) -> None:
        self.samples: list[tuple[float, Census]] = []
        self.dead: set[str] = set()
        self._grounds = grounds
        self._every = every_seconds
        self._subjects = grounds.subjects()
        self._over = threading.Event()

    def look(self) -> Census:
        """What there is now; what cannot be had now is left out."""
        found: dict[str, float] = {}
        for subject in self._subjects:
            try:
                measured = dict(census.of_process(subject, self._grounds.consul_ports))
            except (FileNotFoundError, ProcessLookupError, KeyError):  # a zombie has no memory
                self.dead.add(subject.name)
                continue
            found |= {f"{subject.name}: {measure}": value for measure, value in measured.items()}
        with suppress(OSError):  # Consul may be away
            found |= dict(census.of_consul(self._grounds.server, STACK))
        for node, folder in self._grounds.state_folders.items():
            found |= dict(census.of_folder(f"state of {node}", folder))
        return found | dict(census.of_folder("temporary files", self._grounds.folder / "tmp"))

    def at_rest(self) -> list[Census]:
        """Several looks, one after the other."""
        looks = []
        for _ in range(LOOKS_AT_REST):
            looks.append(self.look())
            time.sleep(BETWEEN_LOOKS_SECONDS)
        return looks

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take samples for the time of the block."""
        self._over.clear()
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(self._watch)
            try:
                yield
            finally:
                self._over.set()
            running.result()

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self.samples.append((time.monotonic(), self.look()))


def bounds(services: int) -> list[Bound]:
    """What citadel bounds itself. Housekeeping comes round now and then, so there may be some more in between."""
    kept = f"{EVENTS_KEPT} events are kept"
    operations = f"{OPERATIONS_KEPT} ended operations are kept, each with its steps and perhaps a request to cancel it"
    each = "one for each service, those removed a moment ago included, one for the stack, and a folder"
    return [
        Bound("keys below events", 1.5 * EVENTS_KEPT, kept),
        Bound("keys below (operations|steps)", 2.5 * OPERATIONS_KEPT, operations),
        Bound("keys below (incidents|stats)", services + 3 * MOST_EXTRAS + 2, each),
        Bound("keys below notices", 1.25 * NOTICES_KEPT, f"{NOTICES_KEPT} notices are kept"),
        Bound("bytes below (events|operations|steps|incidents|stats|notices|handover)", None, "as their keys"),
        Bound(r"bytes in state of \w+", 2 * MAX_BYTES + 1024 * 1024, "two files of history, and some logs"),
        Bound(r"files in state of \w+/logs", None, "the log of a service that was removed is kept for a week"),
        Bound("keys below holds", services, "holds are set and lifted by what happens", at_rest=True),
        Bound("bytes below holds", None, "as their keys"),
        Bound(r"agent \w+: (children|pidfds)", services, "as many as run at the moment", at_rest=True),
        Bound(".*: threads", THREADS, "an event loop's pool starts its threads when they are needed, up to a number"),
    ]


def churn_for(churn: Churn, seconds: float, log: Path) -> None:
    """Have things happen for ``seconds``, and write down what did."""
    began = time.monotonic()
    with log.open("a") as file:
        while time.monotonic() - began < seconds:
            file.write(f"{time.time():.1f} {churn.happen()}\n")
            file.flush()


def rest(grounds: Grounds, churn: Churn, observer: Observer, settle_seconds: float) -> list[Census]:
    """End everything that happens, make it the same as at every rest, wait, and count."""
    churn.wind_up()
    while True:
        grounds.lead_from_the_first_node()
        time.sleep(settle_seconds)
        looks = observer.at_rest()
        if grounds.leads_from_the_first_node():  # on a starved machine a leader can be deposed at rest as well
            return looks


def soak(folder: Path, options: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Run it; returns the rows, and all that was measured."""
    seconds = 60.0 * options.minutes
    with Grounds(find_consul(), folder, dict(os.environ)) as grounds:
        grounds.set_up()
        grounds.fill_history(OPERATIONS_KEPT)
        observer, churn = Observer(grounds, options.every), Churn(grounds, Random(options.seed))
        say(f"{len(grounds.specs)} services are up; warming up for {WARM_UP_SHARE * seconds:.0f} s")
        churn_for(churn, WARM_UP_SHARE * seconds, folder / "churn.log")
        before = rest(grounds, churn, observer, options.settle)
        say(f"at rest; going on for {(1 - WARM_UP_SHARE) * seconds:.0f} s")
        with observer.watching():
            churn_for(churn, (1 - WARM_UP_SHARE) * seconds, folder / "churn.log")
        after = rest(grounds, churn, observer, options.settle)
        rows = judge(observer.samples, before, after, bounds(len(grounds.specs)))
        rows += [Row(name, None, None, None, "**ended by itself**") for name in sorted(observer.dead)]
    told = {
        "seed": options.seed,
        "minutes": options.minutes,
        "happened": dict(churn.done),
        "refused": dict(churn.refused),
        "wrong": {row.measure: row.wrong for row in rows if row.wrong},
        "before": before,
        "after": after,
        "samples": observer.samples,
    }
    return rows, told


def page_table(rows: Sequence[Row], told: Mapping[str, Any]) -> str:
    """What the documents show: the rows that tell most, and those with which something is wrong."""
    shown = [row.told() for row in rows if SHOWN.search(row.measure) or row.wrong]
    when = time.strftime("%Y-%m-%d")
    count, wrong = sum(told["happened"].values()), len(told["wrong"])
    return (
        f"{when}, {told['minutes']:g} minutes, seed {told['seed']}: {count} things happened; of {len(rows)} measures "
        f"{wrong or 'none'} grew or was left over.\n\n" + "\n".join([HEAD, *shown])
    )


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of churn, the warm-up included")
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="how often things are counted")
    parser.add_argument("--settle", type=float, default=SETTLE_SECONDS, metavar="SECONDS", help="rest before counting")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="what happens follows from it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples and findings here")
    parser.add_argument("--write", action="store_true", help="renew the table of docs/benchmarks.md")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave logs, histories and state here")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bin/soak: terminated"))
    say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        rows, told = soak(folder, options)
    print(HEAD, *(row.told() for row in rows), sep="\n")
    happened = ", ".join(f"{count} {name}" for name, count in sorted(told["happened"].items()))
    print(f"\n{sum(told['happened'].values())} things happened: {happened}; refused: {told['refused']}")
    if options.json is not None:
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    if options.write:
        renew(PAGE, "bin/soak --write", page_table(rows, told))
    wrong = [row for row in rows if row.wrong]
    print(*(f"{row.measure}: {row.wrong}" for row in wrong), sep="\n")
    print(f"bin/soak: {len(rows)} measures, {len(wrong)} of them grow or are left over")
    sys.exit(min(len(wrong), 100))


if __name__ == "__main__":
    main()
