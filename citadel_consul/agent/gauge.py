"""Measuring: the services of this node are asked how they are when somebody wants to know.

This is a road beside Consul, for figures that Consul has no place for (how long a check took, how full a queue is),
and nothing is decided by it. Only http and tcp checks are run: a question from outside must not start programs. However
many ask, a service is asked once a second; whoever asks gets within half a second what is known by then, so that one
service that hangs does not hide the others. What is still under way is known to the next.

Services are asked one after the other, as long as they answer quickly: all at once, each would wait for its turn on the
processor, and the figure would be ours and not theirs. One that takes long is not waited for by the next.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import orjson

from citadel_consul.agent.readiness import Finding, Prober, finding_in, url_of
from citadel_consul.agent.runner import InstanceRunner
from citadel_consul.core.figures import figures_in
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.measurement import PATH, CheckCounts, Measurement, NodeMeasurements
from citadel_consul.core.model import Check, CheckKind, ServiceSpec
from citadel_consul.core.snapshot import CheckStatus
from citadel_consul.store import documents
from citadel_consul.telemetry.responder import Page, Responder

FRESH_SECONDS = 1.0
ANSWER_SECONDS = 0.5
STALE_SECONDS = 10.0
"""How old may be what is told while a question is under way: after that, it would hide a service that hangs."""
BODY_BYTES = 64 * 1024
"""How much of what a health endpoint says is read."""
ENDPOINT_SECONDS = 2.0
"""How long a health endpoint may take that no check asks."""
FOOTPRINT_PATH = "/metrics"
"""Where an agent shows Prometheus what it takes itself."""
MEASURED = frozenset({CheckKind.HTTP, CheckKind.TCP})


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of one question: what was found, how long it took (None: no answer came), and what was said."""

    finding: Finding | None
    seconds: float | None
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class _Known:
    """The last measurement of an instance, of which life of it, and when by the clock of the loop."""

    life: float | None
    clock: float
    measurement: Measurement


class Gauge:
    """Measures the instances of one node on request. Run :meth:`run` in a task."""

    def __init__(
        self,
        node: str,
        prober: Prober,
        runners: Mapping[str, InstanceRunner],
        spec_of: Callable[[str], ServiceSpec | None],
        wall: Callable[[], float],
    ) -> None:
        self._node = node
        self._prober = prober
        self._runners = runners
        self._spec_of = spec_of
        self._wall = wall
        self._since = wall()
        self._counts = CheckCounts()
        self._known: dict[str, _Known] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()

    async def run(self, listener: socket.socket) -> None:
        """Answer on ``listener`` until cancelled."""
        async with asyncio.TaskGroup() as group:

            async def answer() -> Page:
                return Page(documents.encode_measurements(await self.measure(group)))

            await Responder({PATH: answer, FOOTPRINT_PATH: _footprint}).serve(listener)

    async def measure(self, group: asyncio.TaskGroup) -> NodeMeasurements:
        """What is known now, and within :data:`ANSWER_SECONDS` from now. Questions under way go on in ``group``."""
        for gone in self._known.keys() - self._runners.keys():
            del self._known[gone]
        ready = [service for service, runner in self._runners.items() if runner.observed.phase is Phase.READY]
        patience = ANSWER_SECONDS / 2 / max(1, len(ready))
        for service in ready:
            if service not in self._under_way and not self._is_fresh(service):
                self._under_way[service] = group.create_task(self._look(service, patience))
        if self._under_way:
            await asyncio.wait(list(self._under_way.values()), timeout=ANSWER_SECONDS)
        instances = {service: self._last(service) for service in ready if service in self._runners}
        return NodeMeasurements(self._node, self._since, self._counts, instances)

    def _is_fresh(self, service: str) -> bool:
        known = self._known.get(service)
        now = asyncio.get_running_loop().time()
        return known is not None and known.life == self._life(service) and now < known.clock + FRESH_SECONDS

    def _last(self, service: str) -> Measurement:
        known = self._known.get(service)
        if known is None or known.life != self._life(service):
            return Measurement(detail="it has not answered yet")
        age = asyncio.get_running_loop().time() - known.clock
        if age > STALE_SECONDS and service in self._under_way:
            return Measurement(at=known.measurement.at, detail=f"no answer within {ANSWER_SECONDS:g} s")
        return known.measurement

    def _life(self, service: str) -> float | None:
        runner = self._runners.get(service)
        return runner.observed.started_at if runner is not None else None

    async def _look(self, service: str, patience_seconds: float) -> None:
        """Measure one service when it is its turn, and remember it; the next one's turn comes soon in any case."""
        life, spec = self._life(service), self._spec_of(service)
        try:
            if spec is not None:
                async with asyncio.TaskGroup() as group, self._turn:
                    measuring = group.create_task(self._measured(spec))
                    await asyncio.wait({measuring}, timeout=patience_seconds)
                self._known[service] = _Known(life, asyncio.get_running_loop().time(), measuring.result())
        finally:
            del self._under_way[service]

    async def _measured(self, spec: ServiceSpec) -> Measurement:
        checks = [check for check in spec.checks if check.kind in MEASURED]
        teller = teller_of(spec)
        questions = checks if teller is None or teller in checks else [*checks, teller]
        at = self._wall()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask(check, with_body=check is teller)) for check in questions]
        answers = {check.name: task.result() for check, task in zip(questions, tasks, strict=True)}
        judged = [answers[check.name] for check in checks]
        for answer in judged:
            self._count(answer)
        told = answers[teller.name] if teller is not None else None
        figures = figures_in(_json(told.body), spec.metrics) if told is not None else {}
        return Measurement(
            status=_status_of(judged),
            at=at,
            response_time_ms=_response_time_ms(judged or answers.values()),
            figures=figures,
            detail="; ".join([*_findings(answers), *_lacking(figures, told, spec)]),
        )

    def _count(self, answer: _Answer) -> None:
        counts = self._counts
        self._counts = CheckCounts(
            total=counts.total + 1,
            failed=counts.failed + (answer.finding is not None and answer.finding.critical),
            answered=counts.answered + (answer.seconds is not None),
            seconds=counts.seconds + (answer.seconds or 0.0),
        )

    async def _ask(self, check: Check, *, with_body: bool) -> _Answer:
        """Run one check, and see how long the answer takes."""
        loop = asyncio.get_running_loop()
        if check.kind is CheckKind.TCP:
            began = loop.time()
            finding = await self._prober.finding_of(check)
            return _Answer(finding, loop.time() - began if finding is None else None)
        client = self._prober.client(verify=not check.tls_skip_verify)  # made once, which takes a while
        began = loop.time()
        try:
            async with asyncio.timeout(check.timeout_seconds):
                finding, body = await ask(client, check, with_body=with_body)
        except TimeoutError:
            return _Answer(Finding(f"no answer within {check.timeout_seconds:g} s"), None)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            return _Answer(Finding(str(error) or type(error).__name__), None)
        return _Answer(finding, loop.time() - began, body)


async def _footprint() -> Page:
    from citadel_consul.telemetry.footprint import MEDIA_TYPE, exposition  # only agents that are scraped need it

    return Page(exposition(), MEDIA_TYPE)


def teller_of(spec: ServiceSpec) -> Check | None:
    """The question that has the figures of a service for an answer: the check of its health endpoint, if there is one,
    else that endpoint itself; None if it cannot be asked."""
    return next((check for check in spec.checks if _tells_figures(check, spec)), None) or _endpoint_check(spec)


async def ask(client: httpx.AsyncClient, check: Check, *, with_body: bool) -> tuple[Finding | None, bytes]:
    """Run an http check: what it finds, and what was said (no more than a little above :data:`BODY_BYTES`).

    Raises httpx.HTTPError, httpx.InvalidURL or ValueError if there is no answer.
    """
    headers = [(name, value) for name, values in check.headers.items() for value in values]
    async with client.stream(
        check.method, url_of(check), headers=headers, timeout=check.timeout_seconds, follow_redirects=True
    ) as response:
        body = b""
        async for piece in response.aiter_bytes():
            body += piece
            if not with_body or len(body) > BODY_BYTES:
                break
        return finding_in(response), body if with_body else b""


def _status_of(judged: Iterable[_Answer]) -> CheckStatus | None:
    found = [answer.finding for answer in judged]
    if not found:
        return None
    if any(finding is not None and finding.critical for finding in found):
        return CheckStatus.CRITICAL
    return CheckStatus.WARNING if any(found) else CheckStatus.PASSING


def _response_time_ms(answers: Iterable[_Answer]) -> float | None:
    times = [answer.seconds for answer in answers if answer.seconds is not None]
    return round(1000 * max(times), 3) if times else None


def _findings(answers: Mapping[str, _Answer]) -> Iterator[str]:
    for name, answer in answers.items():
        if answer.finding is not None:
            yield f"{name}: {answer.finding.text}"


def _lacking(figures: Mapping[str, float], told: _Answer | None, spec: ServiceSpec) -> Iterator[str]:
    """What the spec says where it is, and is not there."""
    missing = [name for name in spec.metrics if name not in figures]
    if not missing:
        return
    if told is None:
        yield f"no {', '.join(missing)}: its health endpoint cannot be asked"
    elif told.seconds is not None:
        yield f"no {', '.join(missing)} in what its health endpoint says"


def _json(body: bytes) -> object:
    try:
        return orjson.loads(body) if 0 < len(body) <= BODY_BYTES else None
    except orjson.JSONDecodeError:
        return None


def _tells_figures(check: Check, spec: ServiceSpec) -> bool:
    return check.kind is CheckKind.HTTP and check.method == "GET" and check.target == spec.health_endpoint


def _endpoint_check(spec: ServiceSpec) -> Check | None:
    """The health endpoint as a question of its own, if it can be asked."""
    url = spec.health_endpoint
    if url is None or urlsplit(url).scheme not in ("http", "https"):
        return None
    return Check("health endpoint", CheckKind.HTTP, url, timeout_seconds=ENDPOINT_SECONDS)
