"""What a node agent measures of its services, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from speaking_service import Speaker, speaking

from citadel_consul.agent import gauge as gauge_module
from citadel_consul.agent.gauge import Gauge
from citadel_consul.agent.readiness import Prober
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.measurement import PATH, CheckCounts, Measurement, NodeMeasurements, total_of
from citadel_consul.core.model import Check, CheckKind, ServiceSpec
from citadel_consul.core.snapshot import CheckStatus
from citadel_consul.store import documents
from citadel_consul.telemetry.listener import address_of, bind

UNKNOWN = Measurement(detail="it has not answered yet")
READY = Observed(1, Phase.READY, since=2.0, started_at=1.0, ready_at=2.0)


@dataclass
class Life:
    """All that a gauge asks of a runner."""

    observed: Observed = READY


@dataclass
class Node:
    """The services of a node."""

    specs: dict[str, ServiceSpec] = field(default_factory=dict)
    lives: dict[str, Life] = field(default_factory=dict)
    now: float = 1000.0

    def run(self, spec: ServiceSpec, name: str = "web") -> None:
        self.specs[name] = replace(spec, name=name)
        self.lives[name] = Life()

    @asynccontextmanager
    async def gauge(self) -> AsyncIterator[tuple[Gauge, asyncio.TaskGroup]]:
        async with Prober() as prober, asyncio.TaskGroup() as group:
            yield Gauge("n1", prober, self.lives, self.specs.get, lambda: self.now), group  # type: ignore[arg-type]

    async def measured(self) -> Measurement:
        """The measurement of ``web``, by a gauge of its own, which is asked until it knows: cores can be busy."""
        async with self.gauge() as (gauge, group), asyncio.timeout(30):
            while (found := (await gauge.measure(group)).instances["web"]) == UNKNOWN:
                continue
            return found


@pytest.fixture
def node() -> Node:
    return Node()


async def test_a_healthy_service_tells_its_figures_and_how_long_it_took(node: Node) -> None:
    async with speaking(health=b'{"queue_size": 3, "gpus": [{"util": 41.5}], "status": "ok"}') as speaker:
        speaker.delay_seconds = 0.05
        check = speaker.http()
        node.run(speaker.spec(check, health_endpoint=check.target, metrics={"gpu_utilization": "gpus.0.util"}))
        found = await node.measured()
    assert found.status is CheckStatus.PASSING
    assert found.at == 1000.0
    assert found.response_time_ms is not None
    assert 50 <= found.response_time_ms < 5000
    assert found.figures == {"queue_size": 3, "gpu_utilization": 41.5}
    assert found.detail == ""
    assert speaker.asked == ["/health"]  # one question for both


@pytest.mark.parametrize(("status", "word"), [(200, "passing"), (204, "passing"), (429, "warning"), (503, "critical")])
async def test_the_status_is_by_consuls_rules(node: Node, status: int, word: str) -> None:
    async with speaking() as speaker:
        speaker.status = status
        node.run(speaker.spec(speaker.http()))
        found = await node.measured()
    assert found.status == word
    assert found.response_time_ms is not None
    assert found.detail == ("" if word == "passing" else f"http: HTTP {status}")


async def test_a_service_that_says_that_it_is_ill_still_tells_its_figures(node: Node) -> None:
    async with speaking(health=b'{"queue_size": 9000}') as speaker:
        speaker.status = 503
        node.run(speaker.spec(speaker.http(), health_endpoint=speaker.url("/health")))
        found = await node.measured()
    assert (found.status, found.figures) == (CheckStatus.CRITICAL, {"queue_size": 9000})


async def test_a_health_endpoint_that_no_check_asks_is_asked_for_its_figures_alone(node: Node) -> None:
    async with speaking(figures=b'{"connected_clients": 8}') as speaker:
        tcp = Check("tcp", CheckKind.TCP, f"127.0.0.1:{speaker.port}")
        node.run(speaker.spec(tcp, health_endpoint=speaker.url("/figures")))
        found = await node.measured()
        async with node.gauge() as (gauge, group):
            counted = (await gauge.measure(group)).checks
    assert (found.status, found.figures) == (CheckStatus.PASSING, {"connected_clients": 8})
    assert (counted.total, counted.failed) == (1, 0)  # the tcp check; the other is none


async def test_figures_that_cannot_be_had_are_said(node: Node) -> None:
    async with speaking(health=b"<html>") as speaker:
        node.run(speaker.spec(speaker.http(), health_endpoint=speaker.url("/health"), metrics={"load": "load"}))
        assert (await node.measured()).detail == "no load in what its health endpoint says"
        node.run(speaker.spec(speaker.http("/other"), health_endpoint="redis://h:1", metrics={"load": "load"}))
        assert (await node.measured()).detail == "no load: its health endpoint cannot be asked"


async def test_a_body_without_end_is_not_read_to_its_end(node: Node) -> None:
    async with speaking(health=b'{"queue_size": 1, "x": "' + b"x" * 3_000_000 + b'"}') as speaker:
        node.run(speaker.spec(speaker.http(), health_endpoint=speaker.url("/health")))
        found = await node.measured()
    assert (found.status, found.figures) == (CheckStatus.PASSING, {})


async def test_of_several_checks_the_worst_and_the_slowest_count(node: Node) -> None:
    async with speaking() as good, speaking() as bad:
        bad.status, bad.delay_seconds = 429, 0.06
        checks = (replace(good.http(), name="a"), replace(bad.http(), name="b"))
        node.run(good.spec(*checks))
        found = await node.measured()
    assert found.status is CheckStatus.WARNING
    assert found.response_time_ms is not None
    assert found.response_time_ms >= 60
    assert found.detail == "b: HTTP 429"


async def test_nobody_at_home_is_critical_and_has_no_response_time(node: Node) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # its port is taken, and nobody listens there
        port: int = silent.getsockname()[1]
        speaker = Speaker(port)
        node.run(speaker.spec(speaker.http(), Check("tcp", CheckKind.TCP, f"127.0.0.1:{port}")))
        found = await node.measured()
    assert (found.status, found.response_time_ms) == (CheckStatus.CRITICAL, None)
    assert "http: " in found.detail
    assert "tcp: " in found.detail


async def test_a_slow_service_does_not_make_the_others_look_slow(node: Node) -> None:
    async with speaking() as slow, speaking() as quick:
        slow.delay_seconds = 1.0
        node.run(slow.spec(slow.http()), "slow")
        for number in range(8):
            node.run(quick.spec(quick.http()), f"quick-{number}")
        async with node.gauge() as (gauge, group):
            await gauge.measure(group)
            found = (await gauge.measure(group)).instances
    quickest = [found[f"quick-{number}"].response_time_ms for number in range(8)]
    assert all(time is not None and time < 900 for time in quickest)


@pytest.mark.parametrize(
    "check",
    [
        Check("a", CheckKind.HTTP, "http://[::1"),
        Check("a", CheckKind.HTTP, "nonsense"),
        Check("a", CheckKind.HTTP, "http://127.0.0.1:99999/"),
        Check("a", CheckKind.TCP, "127.0.0.1"),
        Check("a", CheckKind.TCP, "127.0.0.1:99999"),
    ],
    ids=lambda check: check.target,
)
async def test_a_target_that_is_none_is_a_finding_and_no_accident(node: Node, check: Check) -> None:
    node.run(Speaker().spec(check))
    found = await node.measured()
    assert found.status is CheckStatus.CRITICAL
    assert found.detail.startswith("a: ")


async def test_no_script_is_started_by_a_question(node: Node, tmp_path: object) -> None:
    touched = f"{tmp_path}/touched"
    node.run(Speaker().spec(Check("script", CheckKind.SCRIPT, args=("/usr/bin/touch", touched))))
    found = await node.measured()
    assert (found.status, found.response_time_ms) == (None, None)
    with pytest.raises(FileNotFoundError), open(touched):  # noqa: ASYNC230, PTH123
        pass


async def test_a_service_that_hangs_does_not_hide_the_others(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauge_module, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(gauge_module, "FRESH_SECONDS", 60.0)
    async with speaking() as speaker:
        speaker.hang.add("/hung")
        node.run(speaker.spec(speaker.http("/hung", timeout_seconds=30.0)), "hung")
        node.run(speaker.spec(speaker.http()), "web")
        async with node.gauge() as (gauge, group):
            async with asyncio.timeout(20):
                first = (await gauge.measure(group)).instances
            assert first["web"].status is CheckStatus.PASSING
            assert first["hung"] == Measurement(detail="it has not answered yet")
            await gauge.measure(group)  # asks nobody again: one question is under way, the other is fresh
            assert speaker.asked.count("/hung") == 1
            speaker.let_go.set()
            later = (await gauge.measure(group)).instances
    assert later["hung"].status is CheckStatus.CRITICAL
    assert later["hung"].detail.startswith("http: ")
    assert later["hung"].response_time_ms is None
    assert speaker.asked.count("/health") == 1


async def test_what_was_measured_long_ago_does_not_hide_that_a_service_hangs(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauge_module, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(gauge_module, "ANSWER_SECONDS", 0.2)
    async with speaking() as speaker:
        node.run(speaker.spec(speaker.http(timeout_seconds=30.0)))
        async with node.gauge() as (gauge, group):
            async with asyncio.timeout(20):
                while (first := (await gauge.measure(group)).instances["web"]).status is None:
                    continue
            speaker.hang.add("/health")
            recent = (await gauge.measure(group)).instances["web"]
            monkeypatch.setattr(gauge_module, "STALE_SECONDS", 0.0)
            old = (await gauge.measure(group)).instances["web"]
            speaker.let_go.set()
    assert recent == first, "a question that takes longer than usual is nothing yet"
    assert old == Measurement(at=first.at, detail="no answer within 0.2 s")


async def test_many_askers_are_one_question(node: Node) -> None:
    async with speaking() as speaker:
        node.run(speaker.spec(speaker.http()))
        async with node.gauge() as (gauge, group):
            await asyncio.gather(*(gauge.measure(group) for _ in range(20)))
    assert speaker.asked == ["/health"]


async def test_what_has_been_measured_is_for_one_life_only(node: Node) -> None:
    async with speaking() as speaker:
        node.run(speaker.spec(speaker.http()))
        async with node.gauge() as (gauge, group):
            await gauge.measure(group)
            node.lives["web"].observed = replace(READY, started_at=50.0)
            speaker.status = 503
            assert (await gauge.measure(group)).instances["web"].status is CheckStatus.CRITICAL
            node.lives["web"].observed = replace(READY, phase=Phase.EXITED)
            assert (await gauge.measure(group)).instances == {}


async def test_checks_are_counted_with_what_they_took(node: Node) -> None:
    async with speaking() as speaker:
        node.run(speaker.spec(speaker.http()), "good")
        node.run(speaker.spec(speaker.http("/hung", timeout_seconds=0.05)), "bad")
        speaker.hang.add("/hung")
        async with node.gauge() as (gauge, group):
            counted = (await gauge.measure(group)).checks
    assert (counted.total, counted.failed, counted.answered) == (2, 1, 1)
    assert counted.success_rate == 50.0
    assert counted.mean_ms == pytest.approx(counted.seconds * 1000, abs=0.001)


def test_counts_of_several_nodes_are_added_up() -> None:
    both = total_of([CheckCounts(10, 1, 9, 0.9), CheckCounts(2, 1, 1, 0.1)])
    assert both == CheckCounts(12, 2, 10, 1.0)
    assert (both.mean_ms, both.success_rate) == (100.0, 83.33)
    assert (total_of([]).mean_ms, total_of([]).success_rate) == (None, None)


async def test_it_is_served_over_http_and_read_back_as_it_is(node: Node) -> None:
    async with speaking(health=b'{"queue_size": 3}') as speaker, contextlib.AsyncExitStack() as stack:
        node.run(speaker.spec(speaker.http(), health_endpoint=speaker.url("/health")))
        listener = stack.enter_context(bind("127.0.0.1", 0, setting="agent.bind", flag="--agent-bind"))
        gauge, group = await stack.enter_async_context(node.gauge())
        serving = group.create_task(gauge.run(listener))
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://{address_of(listener, '127.0.0.1')}{PATH}")
        serving.cancel()
    body = answer.json()
    assert set(body) == {"v", "node", "since", "checks", "instances"}
    assert set(body["instances"]["web"]) == {"status", "at", "response_time_ms", "figures", "detail"}
    read = documents.MEASUREMENTS.decode(answer.content)
    assert read == NodeMeasurements("n1", 1000.0, read.checks, {"web": read.instances["web"]})
    assert read.instances["web"].figures == {"queue_size": 3}


async def test_prometheus_is_shown_what_the_agent_takes_itself(node: Node) -> None:
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(bind("127.0.0.1", 0, setting="agent.bind", flag="--agent-bind"))
        gauge, group = await stack.enter_async_context(node.gauge())
        serving = group.create_task(gauge.run(listener))
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://{address_of(listener, '127.0.0.1')}/metrics")
        tasks = len(asyncio.all_tasks())
        serving.cancel()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    samples = {sample.name: sample.value for family in families for sample in family.samples}
    assert samples["citadel_tasks"] == tasks + 1  # the one that answered
    assert samples["citadel_threads"] >= 1
    assert samples["citadel_allocated_blocks"] > 1000
    assert samples["process_open_fds"] >= 3
    assert samples["process_resident_memory_bytes"] > 1_000_000
