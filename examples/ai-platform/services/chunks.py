"""Cuts documents into pieces that are embedded one by one."""

from __future__ import annotations

import uuid

from .language import sentences

_NAMESPACE = uuid.UUID("6f1c2a6e-6f7b-5d0c-9a53-1f8a3a4f2d10")


def chunks(text: str, longest: int = 600) -> list[str]:
    """``text`` as pieces of whole sentences, of at most ``longest`` characters unless one sentence is longer."""
    pieces: list[str] = []
    current = ""
    for sentence in sentences(text):
        if current and len(current) + 1 + len(sentence) > longest:
            pieces.append(current)
            current = sentence
        else:
            current = f"{current} {sentence}".strip()
    return [*pieces, current] if current else pieces


def point_id(document: str, number: int) -> str:
    """The id of a document's piece in the vector store: the same at every attempt, so that a repeat replaces."""
    return str(uuid.uuid5(_NAMESPACE, f"{document}/{number}"))
