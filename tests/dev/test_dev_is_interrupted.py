"""Signals, closed terminals and broken pipes: ``citadel dev`` stops in order, or leaves and says so."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest
from checker import violations
from dev_process import Site, wait_until
from real_world import free_port

from citadel_consul.core.model import Edge

pytestmark = [pytest.mark.consul, pytest.mark.long]

EDGES = [Edge("left", "base"), Edge("right", "base"), Edge("top", "left"), Edge("top", "right")]

# Takes its time to end once it is asked to, so that a second signal finds the stop under way.
RELUCTANT = """
import os, pathlib, signal, socket, sys, time
with open(sys.argv[2], "a") as ledger:
    ledger.write(f"{time.time()} {os.getpid()}\\n")
def stop(*_):
    while not pathlib.Path(sys.argv[3]).exists():
        time.sleep(0.02)
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    listener.accept()[0].close()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_stops_everything_in_order(site: Site, number: signal.Signals) -> None:
    site.diamond()
    dev = site.dev()
    dev.until("Ctrl-C stops everything")
    dev.signal(number)
    assert dev.end() == 0, dev.text
    assert not any(site.running().values())
    assert site.consul_pid() is None
    assert sum(entry.what == "stopping" for entry in site.chronicle()) == len(site.services)
    assert violations(site.chronicle(), EDGES) == []
    assert "Traceback" not in dev.text + site.log_file.read_text()


def test_a_signal_during_the_startup_takes_it_back_and_stops_what_runs(site: Site) -> None:
    site.tiny("base")
    site.tiny("slow", "base", delay=3600.0, start_timeout="2s")
    site.tiny("never", "slow")
    dev = site.dev()
    dev.until("… start slow")
    dev.signal(signal.SIGINT)
    assert dev.end() == 0, dev.text
    assert not any(site.running().values())
    assert site.lives("never") == []
    assert "Traceback" not in dev.text


def test_a_second_signal_leaves_the_services_and_says_so(site: Site) -> None:
    site.tiny("base")
    release, port = site.folder / "release", free_port()
    command = [sys.executable, "-S", "-E", "-c", RELUCTANT, str(port), str(site.ledger("top")), str(release)]
    site.add("top", command, "base", port=port)
    first = site.dev()
    first.until("Ctrl-C stops everything")
    first.signal(signal.SIGINT)
    first.until("… stop  top")
    first.signal(signal.SIGINT)
    assert first.end() == 128 + signal.SIGINT
    assert f"citadel dev {site.file} finds them again" in first.text
    assert "Traceback" not in first.text
    left = site.running()
    assert [len(pids) for pids in left.values()] == [1, 1]
    release.touch()
    second = site.dev()
    second.until("2 services are up")
    assert site.running()["base"] == left["base"], "it was not restarted"
    second.signal(signal.SIGINT)
    assert second.end() == 0, second.text
    assert not any(site.running().values())


def test_a_closed_terminal_stops_everything_in_order(site: Site) -> None:
    site.diamond()
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    popen = subprocess.Popen(
        site.command(),
        **{**site.popen_options(), "stdin": theirs, "stdout": theirs, "stderr": theirs},
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    try:
        shown = b""
        while b"Ctrl-C stops everything" not in shown:
            shown += os.read(ours, 65536)
        os.close(ours)
        while "stopping everything in order" not in site.log_file.read_text():
            assert popen.poll() is None, site.log_file.read_text()
            time.sleep(0.02)
        popen.send_signal(signal.SIGHUP)  # the kernel can send it twice
        assert popen.wait(60) == 0, site.log_file.read_text()
    finally:
        popen.kill()
        popen.wait()
    assert not any(site.running().values())
    log = site.log_file.read_text()
    assert "shutdown succeeded" in log
    assert "Traceback" not in log


def test_a_reader_that_goes_away_stops_everything_in_order(site: Site) -> None:
    site.diamond()
    popen = subprocess.Popen(site.command(), **site.popen_options())
    assert popen.stdout is not None
    try:
        popen.stdout.readline()
        popen.stdout.close()
        assert popen.wait(60) == 0, site.log_file.read_text()
    finally:
        popen.kill()
        popen.wait()
    assert not any(site.running().values())
    assert "Traceback" not in site.log_file.read_text()


def test_a_hangup_that_is_ignored_from_the_start_stays_ignored(site: Site) -> None:
    site.tiny("base")
    dev = site.dev(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    dev.until("Ctrl-C stops everything")
    dev.signal(signal.SIGHUP)
    dev.signal(signal.SIGTERM)  # which arrives later, so that had the first one counted this would be the second
    assert dev.end() == 0, dev.text
    wait_until(lambda: not any(site.running().values()), "the end of the service")
