"""Reads an answer or a summary out of texts: sentences ranked, none invented.

A sentence's weight is its centrality (TextRank: the stationary distribution of a random reader who moves from
sentence to sentence along their similarity); for a question, also how near it is to the question. Similarity is the
cosine of TF-IDF vectors, over the sentences at hand, of words cut to their stems.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .language import sentences, terms

Matrix = npt.NDArray[np.float64]

DAMPING = 0.85


@dataclass(frozen=True, slots=True)
class Ranked:
    """A sentence with its score and its place in the text."""

    text: str
    score: float
    position: int


def tf_idf(texts: Sequence[str]) -> Matrix:
    """One row of length 1 (or 0, for a text without terms) for each of ``texts``."""
    counted = [Counter(terms(text)) for text in texts]
    documents = Counter(term for counts in counted for term in counts)
    column = {term: index for index, term in enumerate(documents)}
    matrix = np.zeros((len(texts), len(column)))
    for row, counts in enumerate(counted):
        for term, count in counts.items():
            rarity = math.log((1 + len(texts)) / (1 + documents[term])) + 1.0
            matrix[row, column[term]] = (1.0 + math.log(count)) * rarity
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    lengths[lengths == 0.0] = 1.0
    normalised: Matrix = matrix / lengths
    return normalised


def centrality(similarity: Matrix, tolerance: float = 1e-8) -> Matrix:
    """The PageRank of each row of a symmetric ``similarity``; the values sum to 1."""
    count = len(similarity)
    links = similarity.copy()
    np.fill_diagonal(links, 0.0)
    totals = links.sum(axis=1, keepdims=True)
    # A sentence like no other sends its reader anywhere.
    moves = np.where(totals > 0, np.divide(links, totals, where=totals > 0, out=np.zeros_like(links)), 1.0 / count)
    rank = np.full(count, 1.0 / count)
    for _ in range(200):
        before, rank = rank, (1.0 - DAMPING) / count + DAMPING * (moves.T @ rank)
        if float(np.abs(rank - before).sum()) < tolerance:
            break
    return rank


def summarise(text: str, most: int = 3) -> list[Ranked]:
    """The ``most`` central sentences of ``text``, in the order of the text."""
    parts = sentences(text)
    if not parts:
        return []
    vectors = tf_idf(parts)
    ranks = centrality(vectors @ vectors.T)
    best = sorted(range(len(parts)), key=lambda i: (-ranks[i], i))[:most]
    return [Ranked(parts[i], float(ranks[i]), i) for i in sorted(best)]


def rank_for(question: str, parts: Sequence[str], nearness: Sequence[float] | None = None) -> list[Ranked]:
    """``parts`` (sentences) by how well they answer ``question``, best first; scores are between 0 and 1.

    ``nearness`` is how near each sentence is to the question by another measure (an embedding), if there is one.
    """
    if not parts:
        return []
    vectors = tf_idf([*parts, question])
    shared = np.clip(vectors[:-1] @ vectors[-1], 0.0, 1.0)
    score = shared if nearness is None else 0.6 * shared + 0.4 * np.clip(np.asarray(nearness), 0.0, 1.0)
    ranks = centrality(vectors[:-1] @ vectors[:-1].T)
    # Centrality decides between sentences that are about equally near to the question, and no more.
    score = 0.95 * score + 0.05 * ranks / ranks.max()
    # Only what shares a word with the question, or is near to it by the other measure, answers anything.
    score = np.where(shared + (0.0 if nearness is None else np.asarray(nearness)) > 0.0, score, 0.0)
    order = sorted(range(len(parts)), key=lambda i: (-score[i], i))
    return [Ranked(parts[i], float(score[i]), i) for i in order]
