"""Memory: threads have no more heaps than were allowed, and the collector leaves alone what stays for good."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

THREADS = 6
PROGRAM = """
import re, sys, threading
from citadel_consul.telemetry.memory import limit_arenas

if sys.argv[1] == "limited" and not limit_arenas():
    sys.exit("it cannot")
barrier = threading.Barrier({threads})

def use():
    blocks = [bytes(2000) for _ in range(2000)]
    barrier.wait()
    return blocks

threads = [threading.Thread(target=use) for _ in range({threads})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
# An arena of a thread begins where 64 MB do.
starts = re.findall(r"^([0-9a-f]+)000000-[0-9a-f]+ rw-p 00000000 00:00 0 *$", open("/proc/self/maps").read(), re.M)
print(sum(int(start, 16) % 4 == 0 for start in starts))
"""


def arenas(how: str) -> int:
    """How many threads' arenas a process has whose threads have all used memory at once."""
    program = PROGRAM.format(threads=THREADS)
    done = subprocess.run([sys.executable, "-c", program, how], capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)


def test_threads_share_the_arenas_that_are_allowed() -> None:
    if arenas("free") < THREADS:
        pytest.skip("this C library does not give each thread an arena")
    assert arenas("limited") <= 2


def test_what_is_free_in_the_middle_of_the_heap_is_given_back() -> None:
    program = """
import asyncio
from citadel_consul.telemetry.memory import give_back_for_ever

def resident_kib():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))

blocks = [bytes(1000 + number % 5000) for number in range(10_000)]
kept = blocks[::40]
del blocks
before = resident_kib()

async def main():
    giving_back = asyncio.ensure_future(give_back_for_ever(0.05))
    for _ in range(200):
        await asyncio.sleep(0.05)
        if resident_kib() < before - 10_000:
            break
    giving_back.cancel()

asyncio.run(main())
print(before - resident_kib())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("this C library cannot give back what is free")
    assert int(done.stdout) > 10_000


def test_a_process_that_is_ready_sets_aside_what_it_has_set_up() -> None:
    program = """
import gc
from citadel_consul.cli.run import run_until_signal

async def work(supervision):
    supervision.ready("works")
    print(gc.get_freeze_count(), len(gc.get_objects()))

run_until_signal(work)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    aside, counted = map(int, done.stdout.split())
    assert aside > 10 * counted
