"""What this platform knows of language: words, stems and sentences (of English)."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])|\n\s*\n")
_SUFFIXES = ("ations", "ation", "ings", "ing", "ies", "ed", "es", "s", "e", "y")
_SHORTEST_STEM = 3
STOP_WORDS = frozenset(
    _WORD.findall(
        """
        a about above after again all also an and any are as at be because been before being below between both but by
        can could did do does doing down during each few for from further had has have having he her here him his how
        i if in into is it its itself just me more most my no nor not now of off on once only or other our out over own
        same she should so some such than that the their them then there these they this those through to too under
        until up very was we were what when where which while who whom why will with would you your
        """
    )
)


def words(text: str) -> list[str]:
    """The words of ``text`` in lower case."""
    return _WORD.findall(text.casefold())


def sentences(text: str) -> list[str]:
    """The sentences of ``text``, each on one line."""
    parts = (" ".join(part.split()) for part in _SENTENCE_END.split(text))
    return [part for part in parts if words(part)]


def stem(word: str) -> str:
    """``word`` without its commonest endings, so that 'finds', 'finding' and 'find' are one."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _SHORTEST_STEM:
            return word[: -len(suffix)]
    return word


def terms(text: str) -> list[str]:
    """The stems of the words that carry meaning."""
    return [stem(word) for word in words(text) if word not in STOP_WORDS]
