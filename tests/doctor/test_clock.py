"""How far clocks differ, by answers that tell the time in whole seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from citadel_consul.config.settings import load_settings
from citadel_consul.consul.address import ConsulAddress
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.snapshot import Defaults
from citadel_consul.doctor.control import examine_clock
from citadel_consul.doctor.site import Site


class Clock(ThreadingHTTPServer):
    """Answers as Consul does, from a machine whose clock is ``ahead_seconds`` ahead of ours."""

    ahead_seconds = 0.0


class _Answer(BaseHTTPRequestHandler):
    server: Clock

    def do_GET(self) -> None:
        body = b'"127.0.0.1:8300"'
        self.send_response_only(200)
        self.send_header("Date", formatdate(time.time() + self.server.ahead_seconds, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def clock() -> Iterator[Clock]:
    with Clock(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("ahead_seconds", "said"),
    [(0.0, None), (0.9, None), (-0.9, None), (3600.0, " s behind that"), (-3600.0, " s ahead of that")],
)
async def test_a_clock_that_differs_is_found_and_the_rest_of_a_second_is_not(
    clock: Clock, ahead_seconds: float, said: str | None
) -> None:
    clock.ahead_seconds = ahead_seconds
    async with ConsulClient(ConsulAddress(port=clock.server_port)) as client:
        report = await examine_clock(Site(client, load_settings({}, {}), "main", Defaults()), None)
    assert report.summary == "compared with the Consul agent"
    assert [finding.code for finding in report.findings] == ([] if said is None else ["clock-skew"])
    if said is not None:
        assert said in report.findings[0].message
