"""Tell many stories, on all cores, and say which went wrong and how.

    bin/simulate [--seeds 10000] [--first 1] [--every 1] [--jobs N]

Stories are drawn from seeds. Beside them some fixed scenes are disturbed at every await point (``sweep``), or, of fewer
than ten thousand seeds, at as many of them in proportion. A story that fails is told again with ever fewer happenings,
as long as it still fails, and its timeline is printed. The same name tells the same story again on every machine:
nothing depends on time, on chance or on the order of a hash.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "system"), str(HERE.parent)]

from simulation import Outcome, shrink, tell
from story import Story, story_of
from sweep import names, story_named

AT_ONCE = 20
"""Stories of one task of a worker: few enough for a progress that moves, many enough not to be mostly errands."""
THOROUGH = 10_000
"""How many seeds it takes until scenes are disturbed at every await point, if nothing else is said."""
SHOWN = 3
TOLD_SECONDS = 60.0
"""How often progress is told where no terminal shows it."""


def story_called(name: str) -> Story:
    """The story of a seed (``4711``) or of a disturbed scene (``startup:leader:pause-at:17``)."""
    return story_of(int(name)) if name.isdecimal() else story_named(name)


def chunk(called: Sequence[str]) -> tuple[int, int, float, list[tuple[str, list[str]]]]:
    """Tell these stories: callbacks run, services started, seconds of CPU, and what went wrong with which."""
    began, steps, starts = time.process_time(), 0, 0
    failed = []
    for name in called:
        outcome = tell(story_called(name))
        steps += outcome.steps
        starts += outcome.starts
        if outcome.violations:
            failed.append((name, outcome.violations))
    return steps, starts, time.process_time() - began, failed


def settle() -> None:
    """What was imported stays: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def explain(name: str) -> Iterator[str]:
    """The shortest form of a story that still goes wrong, told line by line."""

    def fails(story: Story) -> bool:
        return bool(tell(story).violations)

    outcome: Outcome = tell(shrink(story_called(name), fails))
    plan = outcome.story.plan
    yield f"{called(name)}: {len(plan.nodes)} nodes, {plan.orchestrators} orchestrators"
    yield from (f"  {spec.name} on {', '.join(spec.nodes)}" for spec in plan.services)
    yield from (f"  {e.service} needs {e.dependency} ({e.strength}, {e.condition})" for e in plan.layouts[-1].edges)
    yield from outcome.timeline
    yield from (f"VIOLATION {text}" for text in outcome.violations)


def called(name: str) -> str:
    return f"seed {name}" if name.isdecimal() else name


def until_failure(first: int, count: int) -> int:
    """Tell stories until one goes wrong; returns how many did."""
    for seed in range(first, first + count):
        outcome = tell(story_of(seed))
        if outcome.violations:
            print(f"seed {seed}: {'; '.join(outcome.violations)}")
            return 1
    return 0


def run(first: int, count: int, every: int, jobs: int) -> int:
    """All the stories; returns how many went wrong."""
    began = time.monotonic()
    stories = [str(seed) for seed in range(first, first + count)]
    scenes = list(names(every)) if every else []
    stories += scenes
    chunks = [stories[place : place + AT_ONCE] for place in range(0, len(stories), AT_ONCE)]
    done = steps = starts = 0
    cpu = 0.0
    failed: list[tuple[str, list[str]]] = []
    terminal, tell_at = sys.stderr.isatty(), began + TOLD_SECONDS
    with ProcessPoolExecutor(max_workers=jobs, initializer=settle) as pool:
        for told, (more_steps, more_starts, seconds, more_failed) in zip(chunks, pool.map(chunk, chunks), strict=True):
            done += len(told)
            steps += more_steps
            starts += more_starts
            cpu += seconds
            failed += more_failed
            if terminal or time.monotonic() > tell_at:
                rate, tell_at = done / (time.monotonic() - began), time.monotonic() + TOLD_SECONDS
                text = f"{done}/{len(stories)} stories, {len(failed)} failed, {rate:.1f} a second"
                if terminal:
                    print(f"\r{text} ", end="", file=sys.stderr)
                else:
                    print(text, flush=True)
    if terminal:
        print(file=sys.stderr)
    for name, violations in failed:
        print(f"{called(name)}: {'; '.join(violations)}")
    for name, _ in failed[:SHOWN]:
        print()
        print("\n".join(explain(name)))
    seconds = time.monotonic() - began
    print(
        f"{count} seeds from {first} and {len(scenes)} disturbed scenes: {len(failed)} failed; "
        f"{steps:,} steps of processes, {starts:,} starts of services; "
        f"{seconds:.0f} s, {jobs} processes, {cpu:.0f} s of CPU"
    )
    return len(failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many (default 1000)")
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first one (default 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes at once")
    parser.add_argument("--every", type=int, metavar="N", help="disturb scenes at every Nth await point; 0: not at all")
    parser.add_argument("--tell", metavar="STORY", help="tell the story of this seed or scene, whatever its end")
    parser.add_argument("--after", type=int, default=0, metavar="N", help="first tell N others, unheard (for --tell)")
    parser.add_argument("--first-failure", action="store_true", help="stop at the first that fails; one process")
    options = parser.parse_args()
    if options.tell is not None:
        for seed in range(1, options.after + 1):
            tell(story_of(seed))
        outcome = tell(story_called(options.tell))
        print("\n".join([*outcome.timeline, *(f"VIOLATION {text}" for text in outcome.violations)]))
        print(f"{outcome.steps:,} steps of processes, {outcome.seconds:.3f} s of theirs")
        sys.exit(bool(outcome.violations))
    every = max(1, THOROUGH // max(1, options.seeds)) if options.every is None else options.every
    if options.seeds < 0 or options.jobs < 1 or every < 0:
        parser.error("--seeds and --every are at least 0, and --jobs at least 1")
    if options.first_failure:
        sys.exit(until_failure(options.first, options.seeds))
    sys.exit(bool(run(options.first, options.seeds, every, options.jobs)))


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of names have an order then, the same everywhere
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    main()
