"""Answers and summaries are sentences of the texts, the fitting ones."""

from __future__ import annotations

import ai_platform
import numpy as np
import pytest
from services.chunks import chunks, point_id
from services.language import sentences, stem
from services.metadata import corpus
from services.providers import NO_ANSWER, Extractive, Prompt
from services.summary import centrality, rank_for, summarise, tf_idf

TEXT = (
    "Consul keeps the lock of the leader. The leader renews its session while it works. "
    "When the leader crashes, the session ends and the lock is released. The weather was fine on Tuesday."
)


def test_sentences_end_at_marks_and_empty_lines() -> None:
    assert sentences("One is here. Two\nis there!\n\nThree") == ["One is here.", "Two is there!", "Three"]


def test_an_address_or_a_number_does_not_end_a_sentence() -> None:
    assert sentences("Ask qdrant.service.consul for 0.5 s. Then wait.") == [
        "Ask qdrant.service.consul for 0.5 s.",
        "Then wait.",
    ]


@pytest.mark.parametrize(("word", "other"), [("finds", "finding"), ("queries", "query"), ("starting", "started")])
def test_forms_of_a_word_have_one_stem(word: str, other: str) -> None:
    assert stem(word) == stem(other)


def test_short_words_are_left_alone() -> None:
    assert stem("is") == "is"


def test_the_sentence_that_answers_comes_first() -> None:
    ranked = rank_for("What happens to the lock when the leader crashes?", sentences(TEXT))
    assert ranked[0].text.startswith("When the leader crashes")
    assert ranked[0].score > ranked[1].score


def test_a_sentence_that_shares_no_word_with_the_question_scores_nothing() -> None:
    ranked = {one.text: one.score for one in rank_for("Who renews the session?", sentences(TEXT))}
    assert ranked["The weather was fine on Tuesday."] == 0.0


def test_nearness_by_another_measure_decides_where_words_do_not() -> None:
    parts = ["Cats purr.", "Dogs bark."]
    assert rank_for("Which animal is loud?", parts, [0.1, 0.9])[0].text == "Dogs bark."


def test_a_summary_leaves_out_what_is_off_the_subject_and_keeps_the_order() -> None:
    summary = summarise(TEXT, most=3)
    assert [one.position for one in summary] == [0, 1, 2]


def test_centrality_is_a_distribution_and_favours_the_connected() -> None:
    vectors = tf_idf(["red apple", "red apple pie", "apple pie", "blue sky"])
    ranks = centrality(vectors @ vectors.T)
    assert float(ranks.sum()) == pytest.approx(1.0)
    assert int(np.argmin(ranks)) == 3


def test_nothing_comes_of_nothing() -> None:
    assert summarise("") == []
    assert rank_for("Anything?", []) == []


async def test_an_answer_consists_of_sentences_of_the_texts() -> None:
    completion = await Extractive().complete(Prompt.of("answer", "What does the leader renew?", [TEXT]))
    assert completion.used
    assert all(sentence in TEXT for sentence in completion.used)
    assert completion.text.startswith("The leader renews its session")


async def test_a_question_off_the_subject_is_not_answered() -> None:
    completion = await Extractive().complete(Prompt.of("answer", "Who was the king of France?", [TEXT]))
    assert completion.text == NO_ANSWER


def test_the_corpus_has_a_title_and_sentences_in_every_document() -> None:
    documents = corpus(ai_platform.EXAMPLE / "corpus")
    assert len(documents) >= 8
    assert all(document["title"] and len(sentences(document["text"])) >= 3 for document in documents)


def test_pieces_are_whole_sentences_within_the_limit() -> None:
    text = " ".join(f"Sentence number {number} is here." for number in range(50))
    pieces = chunks(text, longest=200)
    assert " ".join(pieces) == text
    assert all(len(piece) <= 200 and piece.endswith(".") for piece in pieces)


def test_one_endless_sentence_is_one_piece() -> None:
    assert chunks("word " * 500, longest=100) == [("word " * 500).strip()]


def test_the_id_of_a_piece_depends_on_document_and_number_alone() -> None:
    assert point_id("a", 0) == point_id("a", 0)
    assert len({point_id("a", 0), point_id("a", 1), point_id("b", 0)}) == 3
