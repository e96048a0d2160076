"""Service ``external-model-integrations``: one door to all models.

``POST /complete {"task": "answer", "question": …, "texts": […], "model": "auto"}``. For answers it asks the embedding
service how near each sentence is to the question; without that service it ranks by shared words alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .application import Connections, Service, run
from .failures import Unavailable
from .payload import Json, body_of, text, texts
from .peers import Peers
from .providers import Extractive, Prompt, Provider, Registry, Remote, TextRank
from .settings import Settings

_MOST_TEXTS = 50
_MOST_SENTENCES = 200


async def with_nearness(peers: Peers, prompt: Prompt) -> Prompt:
    """``prompt`` with the nearness of its sentences, if the embedding service answers quickly."""
    if prompt.task != "answer" or not 0 < len(prompt.sentences) <= _MOST_SENTENCES:
        return prompt
    try:
        wanted = {"texts": [prompt.question, *prompt.sentences]}
        answer = await peers.call("embedding-service", "POST", "/embed", wanted, timeout_seconds=2.0)
    except Unavailable:
        return prompt
    vectors = np.asarray(answer["vectors"], dtype=np.float64)
    return replace(prompt, nearness=tuple(float(value) for value in vectors[1:] @ vectors[0]))


def providers(settings: Settings, connections: Connections) -> list[Provider]:
    """The providers that the environment asks for, in order of preference."""
    local: list[Provider] = [Extractive(), TextRank()]
    url = settings.text("OPENAI_COMPATIBLE_URL")
    if not url:
        return local
    model, key = settings.text("OPENAI_COMPATIBLE_MODEL", "default"), settings.text("OPENAI_COMPATIBLE_KEY")
    return [Remote(connections.http, url, model, key, settings.number("MODEL_TIMEOUT", 10.0)), *local]


def build(settings: Settings, connections: Connections) -> Service:
    """The service over the providers of its environment."""
    registry = Registry(providers(settings, connections))

    async def complete(request: Request) -> Response:
        body = await body_of(request)
        task = text(body, "task", default="answer")
        question = text(body, "question", default="" if task == "summarise" else None, longest=2000)
        prompt = Prompt.of(task, question, texts(body, "texts", most=_MOST_TEXTS))
        model, completion = await registry.complete(
            await with_nearness(connections.peers, prompt), text(body, "model", default="auto")
        )
        return Json(
            {"model": model, "text": completion.text, "confidence": completion.confidence, "used": completion.used}
        )

    async def figures() -> dict[str, Any]:
        return {"providers": registry.figures()}

    async def models(_: Request) -> Response:
        return Json({"models": registry.figures()})

    routes = [Route("/complete", complete, methods=["POST"]), Route("/models", models)]
    return Service(settings, routes, figures=figures)


if __name__ == "__main__":
    run("external-model-integrations", build)
