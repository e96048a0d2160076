"""Tell many stories, on all cores, and say which seeds went wrong and how.

    bin/simulate [--seeds 10000] [--first 1] [--jobs N] [--verbose]

A seed that fails is told again with ever fewer happenings, as long as it still fails, and its timeline is printed. The
same seed tells the same story again on every machine: nothing depends on time, on chance or on the order of a hash.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "system"), str(HERE.parent)]

from simulation import Outcome, Story, shrink, story_of, tell

AT_ONCE = 20
"""Seeds of one task of a worker: few enough for a progress that moves, many enough not to be mostly errands."""
SHOWN = 3


def chunk(seeds: Sequence[int]) -> tuple[int, int, list[tuple[int, list[str]]]]:
    """Tell the stories of ``seeds``: callbacks run, services started, and what went wrong with which."""
    steps = starts = 0
    failed = []
    for seed in seeds:
        outcome = tell(story_of(seed))
        steps += outcome.steps
        starts += outcome.starts
        if outcome.violations:
            failed.append((seed, outcome.violations))
    return steps, starts, failed


def explain(seed: int) -> Iterator[str]:
    """The shortest story of a seed that still goes wrong, told line by line."""

    def fails(story: Story) -> bool:
        return bool(tell(story).violations)

    outcome: Outcome = tell(shrink(story_of(seed), fails))
    plan = outcome.story.plan
    yield f"seed {seed}: {len(plan.nodes)} nodes, {plan.orchestrators} orchestrators"
    yield from (f"  {spec.name} on {', '.join(spec.nodes)}" for spec in plan.services)
    yield from (f"  {edge.service} needs {edge.dependency} ({edge.strength})" for edge in plan.edges)
    yield from outcome.timeline
    yield from (f"VIOLATION {text}" for text in outcome.violations)


def until_failure(first: int, count: int) -> int:
    """Tell stories until one goes wrong; returns how many did."""
    for seed in range(first, first + count):
        outcome = tell(story_of(seed))
        if outcome.violations:
            print(f"seed {seed}: {'; '.join(outcome.violations)}")
            return 1
    return 0


def run(first: int, count: int, jobs: int) -> int:
    """All the stories; returns how many went wrong."""
    began = time.monotonic()
    seeds = range(first, first + count)
    chunks = [seeds[place : place + AT_ONCE] for place in range(0, count, AT_ONCE)]
    done = steps = starts = 0
    failed: list[tuple[int, list[str]]] = []
    terminal = sys.stderr.isatty()
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        for told, (more_steps, more_starts, more_failed) in zip(chunks, pool.map(chunk, chunks), strict=True):
            done += len(told)
            steps += more_steps
            starts += more_starts
            failed += more_failed
            if terminal:
                rate = done / (time.monotonic() - began)
                print(f"\r{done}/{count} seeds, {len(failed)} failed, {rate:.1f} a second ", end="", file=sys.stderr)
    if terminal:
        print(file=sys.stderr)
    for seed, violations in failed:
        print(f"seed {seed}: {'; '.join(violations)}")
    for seed, _ in failed[:SHOWN]:
        print()
        print("\n".join(explain(seed)))
    seconds = time.monotonic() - began
    print(
        f"{done} seeds from {first}: {len(failed)} failed; "
        f"{steps:,} steps of processes, {starts:,} starts of services; {seconds:.0f} s, {jobs} processes"
    )
    return len(failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many (default 1000)")
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first one (default 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes at once")
    parser.add_argument("--tell", type=int, metavar="SEED", help="tell the story of this seed, whatever its end")
    parser.add_argument("--after", type=int, default=0, metavar="N", help="first tell N others, unheard (for --tell)")
    parser.add_argument("--first-failure", action="store_true", help="stop at the first that fails; one process")
    options = parser.parse_args()
    if options.tell is not None:
        for seed in range(1, options.after + 1):
            tell(story_of(seed))
        outcome = tell(story_of(options.tell))
        print("\n".join([*outcome.timeline, *(f"VIOLATION {text}" for text in outcome.violations)]))
        print(f"{outcome.steps:,} steps of processes, {outcome.seconds:.3f} s of theirs")
        sys.exit(bool(outcome.violations))
    if options.seeds < 1 or options.jobs < 1:
        parser.error("--seeds and --jobs are at least 1")
    if options.first_failure:
        sys.exit(until_failure(options.first, options.seeds))
    sys.exit(bool(run(options.first, options.seeds, options.jobs)))


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of names have an order then, the same everywhere
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    main()
