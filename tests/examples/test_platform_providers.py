"""A provider that fails is left alone for a while, and another one stands in for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import ai_platform  # noqa: F401 - makes the example importable
import httpx
import pytest
from services.breaker import Breaker, State
from services.failures import Rejected, Unavailable
from services.providers import Completion, Extractive, Prompt, ProviderFailed, Registry, Remote, TextRank

PROMPT = Prompt.of("answer", "What is blue?", ["The sky is blue. Grass is green."])


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


async def _no_answer() -> Completion:
    raise ProviderFailed("no answer")


@dataclass
class Flaky:
    """A provider that behaves as told; ``asked`` counts."""

    behaviour: Callable[[], Awaitable[Completion]] = _no_answer
    name: str = "flaky"
    tasks: frozenset[str] = field(default=frozenset({"answer"}))
    timeout_seconds: float = 0.05
    asked: int = 0

    async def complete(self, prompt: Prompt) -> Completion:
        self.asked += 1
        assert prompt.task in self.tasks
        return await self.behaviour()


async def _fine() -> Completion:
    return Completion("fine", 1.0)


async def _hang() -> Completion:
    await asyncio.Event().wait()
    raise AssertionError


def test_a_breaker_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(threshold=2)
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.admit()
    breaker.failed()
    assert breaker.state is State.OPEN
    assert not breaker.admit()


def test_a_half_open_breaker_lets_one_trial_through() -> None:
    clock = Clock()
    breaker = Breaker(threshold=1, cool_down_seconds=10.0, clock=clock)
    breaker.failed()
    clock.now = 9.9
    assert not breaker.admit()
    clock.now = 10.0
    assert breaker.state is State.HALF_OPEN
    assert breaker.admit()
    assert not breaker.admit()


def test_the_trial_decides_what_becomes_of_the_breaker() -> None:
    clock = Clock()
    breaker = Breaker(threshold=3, cool_down_seconds=10.0, clock=clock)
    for _ in range(3):
        breaker.failed()
    clock.now = 10.0
    assert breaker.admit()
    breaker.failed()
    clock.now = 19.9
    assert not breaker.admit()
    clock.now = 20.0
    assert breaker.admit()
    breaker.succeeded()
    assert breaker.state is State.CLOSED


def test_a_trial_given_up_by_its_caller_leaves_room_for_another() -> None:
    clock = Clock()
    breaker = Breaker(threshold=1, clock=clock)
    breaker.failed()
    clock.now = 10.0
    assert breaker.admit()
    breaker.abandoned()
    assert breaker.admit()


async def test_another_provider_stands_in_for_one_that_fails() -> None:
    flaky = Flaky()
    model, completion = await Registry([flaky, Extractive()]).complete(PROMPT)
    assert (model, completion.text) == ("extractive", "The sky is blue.")
    assert flaky.asked == 1


async def test_a_provider_that_keeps_failing_is_asked_no_more_until_it_cooled_down() -> None:
    clock, flaky = Clock(), Flaky()
    registry = Registry([flaky, Extractive()], clock)
    for _ in range(5):
        await registry.complete(PROMPT)
    assert flaky.asked == 3
    clock.now = 10.0
    flaky.behaviour = _fine
    assert (await registry.complete(PROMPT))[0] == "flaky"
    assert registry.figures()["flaky"] == {"answered": 1, "failed": 3, "breaker": "closed"}


async def test_a_provider_that_hangs_is_cut_off() -> None:
    registry = Registry([Flaky(_hang)])
    with pytest.raises(Unavailable, match=r"no answer within 0\.05 s"):
        await registry.complete(PROMPT)


async def test_a_cancelled_request_says_nothing_about_the_provider() -> None:
    registry = Registry([Flaky(_hang, timeout_seconds=30.0)])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(registry.complete(PROMPT))
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert registry.figures()["flaky"] == {"answered": 0, "failed": 0, "breaker": "closed"}


@pytest.mark.parametrize(("task", "model"), [("translate", "auto"), ("answer", "gpt"), ("answer", "textrank")])
async def test_what_nobody_offers_is_rejected(task: str, model: str) -> None:
    registry = Registry([Extractive(), TextRank()])
    with pytest.raises(Rejected, match="there are extractive, textrank"):
        await registry.complete(Prompt.of(task, "?", ["Text."]), model)


async def test_a_remote_model_is_asked_in_the_chat_completions_form() -> None:
    seen: list[httpx.Request] = []

    def server(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"choices": [{"message": {"content": "Blue."}}]})

    async with httpx.AsyncClient(transport=httpx.MockTransport(server)) as http:
        completion = await Remote(http, "http://model/v1/", "small", "secret", 1.0).complete(PROMPT)
    assert completion.text == "Blue."
    assert str(seen[0].url) == "http://model/v1/chat/completions"
    assert seen[0].headers["authorization"] == "Bearer secret"
    assert b'"model":"small"' in seen[0].content


@pytest.mark.parametrize(
    "response",
    [httpx.Response(500), httpx.Response(200, text="no json"), httpx.Response(200, json={"choices": []})],
    ids=["refused", "garbage", "empty"],
)
async def test_an_unusable_answer_of_a_remote_model_is_a_failure_of_the_provider(response: httpx.Response) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: response)) as http:
        with pytest.raises(ProviderFailed, match="http://model"):
            await Remote(http, "http://model", "small", "", 1.0).complete(PROMPT)
