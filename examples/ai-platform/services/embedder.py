"""Turns texts into vectors so that similar texts are near each other: feature hashing, without a trained model.

A text is taken apart into features: its words, and the groups of three to five letters of each word between
boundary marks, so that 'service' and 'services' share most of theirs. Each feature is hashed to one of 384 places
and a sign, which is a sparse random projection: it keeps the angles between texts, the more exactly the more places.
Repeated features count by the logarithm of their number, stop words hardly at all. The vector has length 1.

The hash is CRC-32, whose value is the same in every process and on every machine: vectors may be kept.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .language import STOP_WORDS, words

DIMENSIONS = 384
MODEL = "hashed-ngrams-384-v1"
_GRAM_SIZES = (3, 4, 5)
_GRAM_WEIGHT = 0.35
_STOP_WEIGHT = 0.05


@lru_cache(maxsize=20_000)
def _features(word: str) -> tuple[tuple[int, float], ...]:
    """The places of one word's features with their signed weights."""
    weight = _STOP_WEIGHT if word in STOP_WORDS else 1.0
    found = [_place(f"w:{word}", weight)]
    marked = f"<{word}>"
    grams = {marked[i : i + n] for n in _GRAM_SIZES for i in range(len(marked) - n + 1)}
    if grams and weight == 1.0:
        # By the root of their number: a long word must not outweigh the rest of the sentence.
        share = _GRAM_WEIGHT * math.sqrt(8.0 / max(len(grams), 8))
        found += [_place(f"g:{gram}", share) for gram in sorted(grams)]
    return tuple(found)


def _place(feature: str, weight: float) -> tuple[int, float]:
    value = zlib.crc32(feature.encode())
    return (value >> 1) % DIMENSIONS, weight if value & 1 else -weight


def embed(text: str) -> npt.NDArray[np.float32]:
    """The vector of ``text``, of length 1; all zero for a text without a word."""
    vector = np.zeros(DIMENSIONS, dtype=np.float64)
    for word, count in Counter(words(text)).items():
        scale = 1.0 + math.log(count)
        for place, weight in _features(word):
            vector[place] += scale * weight
    length = float(np.linalg.norm(vector))
    return (vector / length if length else vector).astype(np.float32)
