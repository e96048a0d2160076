"""Providers of models, each behind a time-out and a circuit breaker of its own.

Two compute here and need no network: ``extractive`` reads answers out of the texts it is given, ``textrank``
summarises. With ``OPENAI_COMPATIBLE_URL`` set there is a third, ``remote``, for any server that speaks the widely
used chat-completions API; it is asked first, and the local ones stand in for it while its breaker is open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Protocol

import httpx

from .breaker import Breaker
from .failures import Rejected, Unavailable
from .language import sentences
from .summary import rank_for, summarise

log = logging.getLogger(__name__)

NO_ANSWER = "The documents do not say."
_ENOUGH = 0.12
_NEARLY_AS_GOOD = 0.6
_TRUST = 0.85


class ProviderFailed(Exception):
    """A provider did not answer: another one, or the same one later, may."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked of a model: ``task`` is ``answer`` or ``summarise``; ``texts`` come best first.

    ``sentences`` are those of the texts, ``sources`` says which text each is from, ``nearness`` how near each is to
    the question by its embedding, if that is known.
    """

    task: str
    question: str
    texts: tuple[str, ...]
    sentences: tuple[str, ...] = ()
    sources: tuple[int, ...] = ()
    nearness: tuple[float, ...] | None = None

    @classmethod
    def of(cls, task: str, question: str, texts: Sequence[str]) -> Prompt:
        """A prompt over ``texts``, whose sentences are taken apart once, without repetitions."""
        apart: dict[str, int] = {}
        for index, one in enumerate(texts):
            for sentence in sentences(one):
                apart.setdefault(sentence, index)
        return cls(task, question, tuple(texts), tuple(apart), tuple(apart.values()))


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model said. ``confidence`` is between 0 and 1, or None where the provider gives none."""

    text: str
    confidence: float | None
    used: tuple[str, ...] = ()


class Provider(Protocol):
    """An adapter to a model."""

    name: str
    tasks: frozenset[str]
    timeout_seconds: float

    async def complete(self, prompt: Prompt) -> Completion:
        """Answer ``prompt``. Raises ProviderFailed."""
        ...


class Extractive:
    """Answers with the one or two sentences of the texts that answer the question best."""

    name = "extractive"
    tasks = frozenset({"answer"})
    timeout_seconds = 5.0

    async def complete(self, prompt: Prompt) -> Completion:
        return await asyncio.to_thread(self._read, prompt)

    @staticmethod
    def _read(prompt: Prompt) -> Completion:
        found = rank_for(prompt.question, prompt.sentences, prompt.nearness)
        # The search found the first text to be the best one: its sentences have the advantage.
        trusted = [replace(one, score=one.score * _TRUST ** prompt.sources[one.position]) for one in found]
        ranked = sorted(trusted, key=lambda one: (-one.score, one.position))
        if not ranked or ranked[0].score < _ENOUGH:
            return Completion(NO_ANSWER, ranked[0].score if ranked else 0.0)
        source = prompt.sources[ranked[0].position]
        # A second sentence completes the answer only if it comes from the same text and is nearly as good.
        same = [one for one in ranked if prompt.sources[one.position] == source][:2]
        best = [one for one in same if one.score >= _NEARLY_AS_GOOD * ranked[0].score]
        used = tuple(one.text for one in sorted(best, key=lambda one: one.position))
        return Completion(" ".join(used), round(ranked[0].score, 4), used)


class TextRank:
    """Summarises with the central sentences of the texts."""

    name = "textrank"
    tasks = frozenset({"summarise"})
    timeout_seconds = 5.0

    async def complete(self, prompt: Prompt) -> Completion:
        ranked = await asyncio.to_thread(summarise, "\n\n".join(prompt.texts))
        used = tuple(one.text for one in ranked)
        return Completion(" ".join(used) or NO_ANSWER, None, used)


class Remote:
    """A server that speaks the chat-completions API."""

    name = "remote"
    tasks = frozenset({"answer", "summarise"})

    def __init__(self, http: httpx.AsyncClient, url: str, model: str, key: str, timeout_seconds: float) -> None:
        self._http = http
        self._url = url.rstrip("/") + "/chat/completions"
        self._model = model
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self.timeout_seconds = timeout_seconds

    async def complete(self, prompt: Prompt) -> Completion:
        wish = f"Answer from the texts only: {prompt.question}" if prompt.task == "answer" else "Summarise the texts."
        messages = [{"role": "system", "content": wish}, {"role": "user", "content": "\n\n".join(prompt.texts)}]
        body = {"model": self._model, "temperature": 0, "messages": messages}
        try:
            response = await self._http.post(self._url, json=body, headers=self._headers, timeout=self.timeout_seconds)
            text = response.raise_for_status().json()["choices"][0]["message"]["content"]
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            raise ProviderFailed(f"{self._url}: {error!r}") from error
        return Completion(str(text), None)


@dataclass
class _Slot:
    provider: Provider
    breaker: Breaker
    answered: int = 0
    failed: int = 0


class Registry:
    """The providers in the order in which they are asked."""

    def __init__(self, providers: Sequence[Provider], clock: Callable[[], float] = monotonic) -> None:
        self._slots = {provider.name: _Slot(provider, Breaker(clock=clock)) for provider in providers}

    async def complete(self, prompt: Prompt, model: str = "auto") -> tuple[str, Completion]:
        """The name of the provider that answered, and its answer.

        Raises Rejected for a task or model that nobody offers, Unavailable when all who offer it failed.
        """
        reasons = []
        for slot in self._candidates(prompt.task, model):
            if not slot.breaker.admit():
                reasons.append(f"{slot.provider.name}: its circuit breaker is {slot.breaker.state}")
                continue
            try:
                return slot.provider.name, await self._ask(slot, prompt)
            except ProviderFailed as failure:
                reasons.append(f"{slot.provider.name}: {failure}")
                log.warning("provider failed", extra={"fields": {"provider": slot.provider.name, "why": str(failure)}})
        raise Unavailable("; ".join(reasons))

    def _candidates(self, task: str, model: str) -> list[_Slot]:
        able = [slot for slot in self._slots.values() if task in slot.provider.tasks]
        chosen = [slot for slot in able if model in ("auto", slot.provider.name)]
        if not chosen:
            raise Rejected(f"no model {model!r} for the task {task!r}; there are {', '.join(self._slots)}")
        return chosen

    @staticmethod
    async def _ask(slot: _Slot, prompt: Prompt) -> Completion:
        verdict = slot.breaker.abandoned
        try:
            async with asyncio.timeout(slot.provider.timeout_seconds):
                completion = await slot.provider.complete(prompt)
        except TimeoutError as late:
            verdict = slot.breaker.failed
            slot.failed += 1
            raise ProviderFailed(f"no answer within {slot.provider.timeout_seconds:g} s") from late
        except ProviderFailed:
            verdict = slot.breaker.failed
            slot.failed += 1
            raise
        else:
            verdict = slot.breaker.succeeded
            slot.answered += 1
            return completion
        finally:
            verdict()

    def figures(self) -> dict[str, Any]:
        """What each provider did, and the state of its breaker."""
        return {
            name: {"answered": slot.answered, "failed": slot.failed, "breaker": slot.breaker.state.value}
            for name, slot in self._slots.items()
        }
