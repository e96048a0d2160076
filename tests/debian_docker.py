"""A Docker engine for `bin/bench` and `bin/managers` on a fresh Debian or Ubuntu; needs only Python.

As root what is missing is installed, and an engine is started if none answers, and stopped again. Elsewhere nothing is
done: what cannot be measured or tested for want of it, is for the caller to say.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PACKAGES = {
    "docker": "docker.io",
    "dockerd": "docker.io",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "docker-compose": "docker-compose",
}
"""Which package has which program."""
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
START_SECONDS = 60


def run_with_engine(command: Sequence[str | Path], name: str, packages: Mapping[str, str] = PACKAGES) -> int:
    """The status of ``command``, run beside an engine that answers, if there can be one. ``name`` says who asks.

    A SIGTERM interrupts the command first, which takes down what it has set up, and then ends the engine.
    """
    os.environ["PATH"] = PATH
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"{name}: terminated"))
    _install_missing(name, packages)
    with _engine(name):
        child = subprocess.Popen(command)
        try:
            return child.wait()
        except KeyboardInterrupt:  # the child has had it as well
            child.wait()
            raise
        except SystemExit:
            child.send_signal(signal.SIGINT)
            child.wait()
            raise


def _install_missing(name: str, packages: Mapping[str, str]) -> None:
    missing = sorted({package for program, package in packages.items() if shutil.which(program) is None})
    if not missing or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    _say(name, "installing " + ", ".join(missing))
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run(["apt-get", *words], capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            _say(name, f"apt-get {words[0]} failed: {done.stderr.strip()}")


@contextmanager
def _engine(name: str) -> Iterator[None]:
    """An engine for the time of the block, if none answers and one can be started."""
    if _answers() or os.geteuid() != 0 or shutil.which("dockerd") is None or "DOCKER_HOST" in os.environ:
        yield
        return
    _say(name, "starting dockerd")
    with tempfile.TemporaryFile() as log:
        engine = subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers() and engine.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
            if not _answers():
                log.seek(0)
                _say(name, "dockerd does not start: " + log.read().decode(errors="replace")[-1000:])
            yield
        finally:
            engine.terminate()
            engine.wait()


def _answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0


def _say(name: str, text: str) -> None:
    print(f"{name}: {text}", file=sys.stderr, flush=True)
