"""``citadel dev --once``, and what ``citadel dev`` says when it cannot do its work."""

from __future__ import annotations

import os
import signal
import socket
import sys

import pytest
from dev_process import Site
from real_world import free_port

pytestmark = pytest.mark.consul


def test_once_brings_it_up_asks_once_and_takes_it_down(site: Site) -> None:
    site.diamond()
    port = free_port()
    site.smoke(url=f"http://127.0.0.1:{port}/livez", method="GET", expect_status=200)
    dev = site.dev("--once", "--api-bind", f"127.0.0.1:{port}")
    assert dev.end() == 0, dev.text
    assert "HTTP 200" in dev.text
    assert [len(site.lives(service)) for service in site.services] == [1, 1, 1, 1]
    assert not any(site.running().values())
    assert site.consul_pid() is None
    assert "INFO" not in dev.text, "the log has no place on the terminal"
    assert "leading stack small" in site.log_file.read_text()


def test_once_fails_if_the_answer_is_not_the_expected_one_and_stops_all_the_same(site: Site) -> None:
    site.tiny("base")
    port = free_port()
    site.smoke(url=f"http://127.0.0.1:{port}/no-such-page", method="GET", expect_status=200)
    dev = site.dev("--once", "--api-bind", f"127.0.0.1:{port}")
    assert dev.end() == 1
    assert "HTTP 404 instead of 200" in dev.text
    assert "Traceback" not in dev.text
    assert not any(site.running().values())


def test_once_fails_if_a_service_does_and_shows_the_end_of_its_output(site: Site) -> None:
    site.tiny("base")
    site.add("broken", [sys.executable, "-c", "exit('no licence')"], "base", port=free_port(), on_failure="keep")
    dev = site.dev("--once")
    assert dev.end() == 1
    assert "no licence" in dev.text
    assert "broken.log" in dev.text
    assert "Traceback" not in dev.text
    assert not any(site.running().values())


def test_once_fails_if_it_is_interrupted(site: Site) -> None:
    site.tiny("base", delay=3600.0, start_timeout="2s")
    dev = site.dev("--once")
    dev.until("… start base")
    dev.signal(signal.SIGTERM)
    assert dev.end() == 1
    assert "interrupted before the stack was up" in dev.text
    assert not any(site.running().values())


def test_ports_that_are_in_use_are_all_named_with_who_has_them_before_anything_starts(site: Site) -> None:
    taken = [site.tiny(name) for name in ("one", "two")]
    listeners = [socket.create_server(("127.0.0.1", port)) for port in [*taken, 0]]
    api = listeners[-1].getsockname()[1]
    dev = site.dev("--api-bind", f"127.0.0.1:{api}")
    try:
        assert dev.end() == 2
    finally:
        for listener in listeners:
            listener.close()
    assert f"the HTTP API: port {api} is in use by process {os.getpid()}" in dev.text
    for name, port in zip(("one", "two"), taken, strict=True):
        assert f"service {name}: its port 127.0.0.1:{port} is in use by process {os.getpid()}" in dev.text
    assert "Traceback" not in dev.text
    assert site.consul_pid() is None


def test_a_data_folder_that_cannot_be_made_is_named(site: Site) -> None:
    site.tiny("base")
    site.data_dir.write_text("a file, not a folder")
    dev = site.dev("--once")
    assert dev.end() == 2
    assert f"--data-dir: {site.log_file} cannot be written" in dev.text
    assert "Traceback" not in dev.text


def test_a_second_dev_on_the_same_data_is_refused(site: Site) -> None:
    site.tiny("base")
    first = site.dev()
    first.until("Ctrl-C stops everything")
    second = site.dev()
    assert second.end() == 4
    assert "is in use by another process" in second.text
    assert "Traceback" not in second.text
    first.signal(signal.SIGINT)
    assert first.end() == 0, first.text


def test_once_and_no_up_exclude_each_other(site: Site) -> None:
    site.tiny("base")
    dev = site.dev("--once", "--no-up")
    assert dev.end() == 2
    assert "give one of them" in dev.text
