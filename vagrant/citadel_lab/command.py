"""Running programs on the host: argument lists, never a shell, and an error that shows what the program said."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import LabError

SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
TAIL_LINES = 15


def search_path() -> str:
    """PATH with the folders of administration programs (dockerd, iptables), which a plain user's PATH lacks."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*folders, *(folder for folder in SYSTEM_FOLDERS if folder not in folders)])


def find_program(name: str) -> str | None:
    """The path of a program, or None."""
    return shutil.which(name, path=search_path())


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    text_in: str | None = None,
    check: bool = True,
    timeout_seconds: float = 600.0,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it printed. Raises LabError if it fails, hangs or is not there."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, "PATH": search_path(), **(env or {})},
            input=text_in,
            stdin=None if text_in is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no end after {timeout_seconds:g} s: {shlex.join(words)}") from error
    if check and done.returncode != 0:
        raise LabError(failure(words, done.returncode, done.stderr or done.stdout))
    return done


def failure(words: Sequence[str], status: int, output: str) -> str:
    """The message for a program that failed: its command line and the last lines it printed."""
    tail = output.strip().splitlines()[-TAIL_LINES:]
    return "\n".join([f"exit {status}: {shlex.join(words)}", *(f"  {line}" for line in tail)])
