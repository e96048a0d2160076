"""Plant each bug of ``planted.py`` in a copy, see which suite catches it, and print the table of docs/verification.md.

    bin/mutants [--only TEXT] [--seeds 400] [--jobs 2] [--json FILE]

A suite that fails has caught it; the simulation stops at its first seed that fails. The status is the number of bugs
that nothing caught. The unchanged copy has to pass first, or every bug would seem to be caught.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from planted import AGENT, BUGS, CORE, LEASE, RECOVERY, SIMULATION, Bug

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("citadel_consul", "tests", "templates", "consul.d", "examples", "docs", "bin", "pyproject.toml", "README.md")
LONGEST_SECONDS = 900.0
SUITES = (SIMULATION, CORE, RECOVERY, LEASE, AGENT)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one bug: the suite that caught it (empty if none did) and what that said."""

    bug: str
    caught_by: str
    said: str
    seconds: float


def run_suite(copy: Path, suite: str, seeds: int) -> str | None:
    """What a suite has to say against the copy; None if it passes."""
    environ = {**os.environ, "PYTHONPATH": str(copy), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    if suite == SIMULATION:
        program = copy / "tests" / "simulation" / "simulate.py"
        command = [sys.executable, str(program), "--seeds", str(seeds), "--jobs", "1", "--first-failure"]
    else:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *suite.split()]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environ, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {LONGEST_SECONDS:g} s"
    if done.returncode == 0:
        return None
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("seed ", "FAILED ", "ERROR "))]
    return (telling or lines or ["no word"])[0]


def copy_to(folder: Path) -> Path:
    """A copy of what the suites need."""
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored, symlinks=True)
        else:
            shutil.copy2(source, folder / name)
    return folder


def judge(bug: Bug, seeds: int) -> Verdict:
    """Plant one bug and look for it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        copy = copy_to(Path(name))
        path = copy / "citadel_consul" / bug.file
        text = path.read_text()
        if text.count(bug.old) != 1:
            raise SystemExit(f"{bug.name}: its line occurs {text.count(bug.old)} times in {bug.file}")
        path.write_text(text.replace(bug.old, bug.new))
        for suite in bug.suites:
            said = run_suite(copy, suite, seeds)
            if said is not None:
                return Verdict(bug.name, suite, said, time.monotonic() - began)
    return Verdict(bug.name, "", "", time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only bugs whose name holds it")
    parser.add_argument("--seeds", type=int, default=400, help="how many stories the simulation tells of each bug")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many bugs at once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts here as well")
    parser.add_argument("--skip-baseline", action="store_true", help="do not try the unchanged copy first")
    options = parser.parse_args()
    bugs = [bug for bug in BUGS if options.only in bug.name]
    if not options.skip_baseline:
        with tempfile.TemporaryDirectory() as name:
            copy = copy_to(Path(name))
            for suite in SUITES:
                said = run_suite(copy, suite, options.seeds)
                if said is not None:
                    sys.exit(f"without any bug {suite} fails: {said}")
    with ThreadPoolExecutor(max_workers=options.jobs) as pool:
        verdicts = []
        for verdict in pool.map(lambda bug: judge(bug, options.seeds), bugs):
            verdicts.append(verdict)
            print(f"| {verdict.bug} | {verdict.caught_by or '**nothing**'} | {verdict.said[:150]} |", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=2) + "\n")
    missed = sum(not verdict.caught_by for verdict in verdicts)
    print(f"{len(verdicts)} bugs, {missed} not caught")
    sys.exit(missed)


if __name__ == "__main__":
    main()
