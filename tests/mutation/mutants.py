"""Plant each bug of ``planted.py`` in a copy, see which suite catches it, and renew the table of docs/verification.md.

    bin/mutants [--only TEXT] [--seeds 100] [--jobs 2] [--write] [--json FILE]

A suite that fails has caught the bug; the simulation stops at its first seed that fails. What does not get as far as a
verdict (a program that cannot be imported, a suite that cannot be collected) has caught nothing, and ends the run. The
status is the number of bugs that nothing caught. The unchanged copy has to pass first, or every bug would seem caught.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from page_table import renew
from planted import BUGS, SIMULATION, Bug

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "verification.md"
COPIED = ("citadel_consul", "tests", "templates", "consul.d", "examples", "docs", "bin", "pyproject.toml", "README.md")
LONGEST_SECONDS = 1800.0
TESTS_FAILED = 1
"""pytest's status for it; the others say that it did not get as far."""
SAID = re.compile(r"^(?:FAILED (?P<test>\S+)|(?P<seed>seed \d+): (?P<violation>.*))")
LONGEST_WORD = 90


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one bug: the suite that caught it (empty if none did) and what that said."""

    bug: str
    file: str
    caught_by: str
    said: str
    seconds: float

    def row(self) -> str:
        """The row of the table."""
        said = self.said if len(self.said) <= LONGEST_WORD else f"{self.said[:LONGEST_WORD]}…"
        return f"| {self.bug} | `{self.file}` | {said or '**nothing**'} |"


HEAD = "| planted bug | in | caught by |\n| --- | --- | --- |"


def run_suite(copy: Path, suite: str, seeds: int) -> str | None:
    """What a suite has to say against the copy; None if it passes. Exits if it comes to no verdict."""
    environ = {**os.environ, "PYTHONPATH": str(copy), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    if suite == SIMULATION:
        program = copy / "tests" / "simulation" / "simulate.py"
        command = [sys.executable, str(program), "--seeds", str(seeds), "--jobs", "1", "--first-failure"]
    else:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *suite.split()]
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
            start_new_session=True,  # Linux shares the cores out by sessions
        )
    except subprocess.TimeoutExpired:
        return f"{suite} did not end within {LONGEST_SECONDS:g} s"
    if done.returncode == 0:
        return None
    output = done.stdout + done.stderr
    told = next((match for line in output.splitlines() if (match := SAID.match(line))), None)
    if done.returncode != TESTS_FAILED or told is None:
        sys.exit(f"{suite} came to no verdict (status {done.returncode}):\n{output[-3000:]}")
    if told["test"] is not None:
        path, _, test = told["test"].partition("::")
        return (
            f"`{Path(path).name}`: {test.partition('[')[0].removeprefix('test_').rpartition('::')[2].replace('_', ' ')}"
        )
    return f"simulation, {told['seed']}: {told['violation'].partition(';')[0]}"


def copy_to(folder: Path, root: Path = ROOT) -> Path:
    """A copy of what the suites need."""
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored, symlinks=True)
        else:
            shutil.copy2(source, folder / name)
    return folder


def judge(bug: Bug, original: Path, seeds: int) -> Verdict:
    """Plant one bug in a copy of ``original`` and look for it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        copy = copy_to(Path(name), original)
        path = copy / "citadel_consul" / bug.file
        text = path.read_text()
        if text.count(bug.old) != 1:
            sys.exit(f"{bug.name}: its line occurs {text.count(bug.old)} times in {bug.file}")
        path.write_text(text.replace(bug.old, bug.new))
        for suite in bug.suites:
            said = run_suite(copy, suite, seeds)
            if said is not None:
                return Verdict(bug.name, bug.file, suite, said, time.monotonic() - began)
    return Verdict(bug.name, bug.file, "", "", time.monotonic() - began)


def check_unchanged(original: Path, suites: Sequence[str], seeds: int) -> None:
    """Exit if any suite fails without a bug."""
    for suite in suites:
        said = run_suite(original, suite, seeds)
        if said is not None:
            sys.exit(f"without any bug: {said}")


def judged(bugs: Sequence[Bug], original: Path, seeds: int, jobs: int) -> Iterator[Verdict]:
    """The verdicts, in the order of the list, each as soon as it and those before it are known."""
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        yield from pool.map(lambda bug: judge(bug, original, seeds), bugs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only bugs whose name holds it")
    parser.add_argument("--seeds", type=int, default=100, help="how many stories the simulation tells of each bug")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many bugs at once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts here as well")
    parser.add_argument("--write", action="store_true", help="renew the table of docs/verification.md")
    parser.add_argument("--skip-baseline", action="store_true", help="do not try the unchanged copy first")
    options = parser.parse_args()
    bugs = [bug for bug in BUGS if options.only in bug.name]
    with tempfile.TemporaryDirectory() as name:
        original = copy_to(Path(name))  # once: the checkout may change meanwhile
        if not options.skip_baseline:
            check_unchanged(original, list(dict.fromkeys(suite for bug in bugs for suite in bug.suites)), options.seeds)
        verdicts = []
        print(HEAD, flush=True)
        for verdict in judged(bugs, original, options.seeds, options.jobs):
            verdicts.append(verdict)
            print(verdict.row(), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=2) + "\n")
    if options.write:
        table = "\n".join([HEAD, *(verdict.row() for verdict in verdicts)])
        renew(PAGE, "bin/mutants --write", table)
    missed = sum(not verdict.caught_by for verdict in verdicts)
    print(f"{len(verdicts)} bugs, {missed} not caught")
    sys.exit(missed)


if __name__ == "__main__":
    main()
