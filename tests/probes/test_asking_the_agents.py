"""Asking node agents what they measure: each may be slow, gone, or somebody else, and none holds up the others."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from real_world import World
from speaking_service import speaking

from citadel_consul.api.measuring import read_measured
from citadel_consul.consul.kv import KVEntry
from citadel_consul.core.measurement import CheckCounts, Measurement, NodeMeasurements
from citadel_consul.core.model import Instance
from citadel_consul.core.operation import Kind
from citadel_consul.core.snapshot import CheckStatus, Defaults
from citadel_consul.store import documents
from citadel_consul.store.documents import AgentRecord
from citadel_consul.store.state import StackState

API = "/api/v1/orchestrator"
PROBES = "/v1/probes"


def _state(*agents: AgentRecord, session: str | None = "s") -> StackState:
    """A stack with these node agents, each holding its lock if there is a ``session``."""
    state = StackState("shop", Defaults())
    entries = [
        KVEntry(state.keys.agent(one.node), documents.AGENT.encode(one), 5, 5, 1, 0, session=session) for one in agents
    ]
    state.merge(state.keys.agents, 5, entries)
    return state


def _agent(node: str, api: str) -> AgentRecord:
    return AgentRecord(f"{node}-x", node, node, "127.0.0.1", 0.0, api=api)


def _answer(node: str, **instances: Measurement) -> bytes:
    return documents.encode_measurements(NodeMeasurements(node, 5.0, CheckCounts(4, 1, 3, 0.3), instances))


async def test_what_each_agent_answers_is_put_together_and_what_is_missing_is_said() -> None:
    web = Measurement(CheckStatus.PASSING, 7.0, 1.5, {"queue_size": 3})
    async with AsyncExitStack() as stack:
        good, bad, hung, other, huge, ill = [await stack.enter_async_context(speaking()) for _ in range(6)]
        good.bodies[PROBES] = _answer("good", web=web)
        bad.bodies[PROBES] = b"<html>"
        hung.hang.add(PROBES)
        other.bodies[PROBES] = _answer("stranger")
        huge.bodies[PROBES] = b" " * 5_000_000
        ill.status = 500
        named = {"good": good, "bad": bad, "hung": hung, "other": other, "huge": huge, "ill": ill}
        agents = [_agent(node, f"127.0.0.1:{one.port}") for node, one in named.items()]
        agents += [_agent("mute", ""), _agent("gone", f"127.0.0.1:{_nobodys_port()}"), _agent("odd", "127.0.0.1:99999")]
        measured = await read_measured(_state(*agents), patience_seconds=2.0)
    assert measured.nodes == {"good": NodeMeasurements("good", 5.0, CheckCounts(4, 1, 3, 0.3), {"web": web})}
    assert measured.checks == CheckCounts(4, 1, 3, 0.3)
    said = measured.unanswered
    assert said["hung"] == "the node agent of hung gave no answer within 2 s"
    assert said["mute"] == "the node agent of mute does not show what it measures"
    assert said["other"] == "another node agent (stranger) answers for other"
    assert said["bad"].startswith("what the node agent of bad answers is not JSON")
    assert said["odd"] == "the node agent of odd cannot be asked: 99999 is no port"
    for node in ("gone", "huge", "ill"):
        assert said[node].startswith(f"the node agent of {node} cannot be asked: ")
    assert measured.of(Instance("web", "good")) == web
    assert measured.of(Instance("web", "hung")).detail == said["hung"]
    assert measured.of(Instance("web", "nowhere")).detail == "no node agent runs on nowhere"


async def test_an_agent_without_its_lock_is_not_asked() -> None:
    async with speaking() as speaker:
        measured = await read_measured(_state(_agent("n1", f"127.0.0.1:{speaker.port}"), session=None))
        assert speaker.asked == []
    assert (measured.nodes, measured.unanswered, measured.checks) == ({}, {}, None)


async def test_many_silent_agents_cost_the_patience_of_one() -> None:
    async with speaking() as speaker:
        speaker.hang.add(PROBES)
        agents = [_agent(f"n{number}", f"127.0.0.1:{speaker.port}") for number in range(150)]
        began = asyncio.get_running_loop().time()
        measured = await read_measured(_state(*agents), patience_seconds=1.0)
        assert asyncio.get_running_loop().time() - began < 10
    assert len(measured.unanswered) == 150


def _nobodys_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# --- real processes -----------------------------------------------------------------------------------------------


def _get(address: str, path: str) -> Any:
    answer = httpx.get(f"http://{address}{path}", trust_env=False, timeout=20.0)
    answer.raise_for_status()
    return answer.json()


def _agent_address(real: World) -> str:
    """Where the agent of n1 says that it is found."""

    async def read(client: Any) -> str:
        entry = await client.kv_get(f"citadel/{real.stack}/agents/n1")
        return documents.AGENT.decode(entry.value).api

    return real.ask(read)


@pytest.mark.consul
@pytest.mark.slow
def test_an_agent_shows_what_it_measures_and_the_api_tells_when_it_does_not(real: World) -> None:
    orchestrator, agent = real.orchestrator("o1"), real.agent()
    real.apply([real.tiny("web")])
    real.until(lambda: real.snapshot().agents, what="an agent")
    real.operate(Kind.STARTUP)
    shown = _get(_agent_address(real), PROBES)
    assert shown["node"] == "n1"
    assert shown["instances"]["web"]["status"] == "passing"
    assert 0 < shown["instances"]["web"]["response_time_ms"] < 1000
    assert "tiny_service" not in str(shown)  # nothing of what runs, nor of its environment
    assert "CITADEL" not in str(shown)

    web = _get(orchestrator.api, f"{API}/health")["service_health"]["web"]
    assert web["response_time_ms"] > 0
    assert web["detail"] == ""

    agent.pause()
    began = time.monotonic()
    web = _get(orchestrator.api, f"{API}/health")["service_health"]["web"]
    assert time.monotonic() - began < 5
    assert web["response_time_ms"] is None
    assert web["detail"] == "the node agent of n1 gave no answer within 1 s"
    agent.resume()

    agent.kill()
    real.until(lambda: not real.snapshot().agents, what="the lock of the agent to be free")
    web = _get(orchestrator.api, f"{API}/health")["service_health"]["web"]
    assert (web["status"], web["last_check"]) == ("unknown", None)
    assert web["detail"] == "no node agent runs on n1"


@pytest.mark.consul
@pytest.mark.slow
def test_an_agent_listens_where_it_is_told_to(real: World) -> None:
    port = _nobodys_port()
    real.orchestrator("o1")
    real.agent(CITADEL_AGENT_BIND=f"127.0.0.1:{port}")
    real.until(lambda: real.snapshot().agents, what="an agent")
    assert _agent_address(real) == f"127.0.0.1:{port}"
    assert _get(f"127.0.0.1:{port}", PROBES)["instances"] == {}


@pytest.mark.consul
@pytest.mark.slow
def test_an_agent_refuses_a_place_that_it_cannot_have_and_does_without_one_that_nobody_asked_for(real: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        asked = real.agent(CITADEL_AGENT_BIND=f"127.0.0.1:{taken.getsockname()[1]}")
        assert asked.popen.wait(15) == 2
        assert "setting agent.bind" in asked.log.read_text()
    elsewhere = real._spawn("agent-far", ["agent", "--node", "n1", "--node-address", "192.0.2.7"], None, {})
    real.until(lambda: "nobody can see what is measured" in elsewhere.log.read_text(), what="a warning")
    real.until(lambda: real.snapshot().agents, what="an agent")
    assert elsewhere.alive
