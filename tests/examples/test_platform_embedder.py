"""Similar texts have near vectors, and the same text has the same vector everywhere."""

from __future__ import annotations

import subprocess
import sys

import ai_platform
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from services.embedder import DIMENSIONS, embed


def nearness(one: str, other: str) -> float:
    return float(embed(one) @ embed(other))


def test_a_text_is_nearer_to_its_paraphrase_than_to_another_subject() -> None:
    text = "The leader holds a lock in Consul that belongs to a session."
    paraphrase = "A session in Consul owns the lock of the leader."
    other = "Vectors are compared by the cosine of their directions."
    assert nearness(text, paraphrase) > 0.5
    assert nearness(text, paraphrase) > nearness(text, other) + 0.3


def test_inflected_words_are_near_each_other() -> None:
    assert nearness("embedding vectors", "embedded vector") > nearness("embedding vectors", "restarted gateway") + 0.3


def test_stop_words_hardly_count() -> None:
    assert nearness("the lock of the leader", "lock leader") > 0.95


def test_case_and_punctuation_do_not_count() -> None:
    assert nearness("Redis, PostgreSQL!", "redis postgresql") > 0.9999


def test_a_text_without_a_word_has_no_direction() -> None:
    assert not embed(" …!? ").any()


@given(st.text(max_size=200))
def test_every_vector_has_length_one_or_zero(text: str) -> None:
    vector = embed(text)
    assert vector.shape == (DIMENSIONS,)
    assert np.isfinite(vector).all()
    length = float(np.linalg.norm(vector))
    assert length == 0.0 or abs(length - 1.0) < 1e-5


def test_another_process_computes_the_same_vector() -> None:
    program = "from services.embedder import embed; import sys; sys.stdout.buffer.write(embed(sys.argv[1]).tobytes())"
    done = subprocess.run(
        [sys.executable, "-c", program, "leases and epochs"], cwd=ai_platform.EXAMPLE, capture_output=True, check=True
    )
    assert done.stdout == embed("leases and epochs").tobytes()
