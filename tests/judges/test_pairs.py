from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_hf_judge import tokenizer_of

from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.judges import pairs
from valuedrift_mlflow.judges.hf import HFJudge
from valuedrift_mlflow.judges.pairs import PairReader, Precision
from valuedrift_mlflow.stances import Answer


@pytest.fixture(scope="module")
def answers() -> list[Answer]:
    return [answer for answer, _ in corpus.held_out_answers(150)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, answers: list[Answer]) -> Path:
    """A small encoder with random weights: what it says means nothing, and differs from text to text."""
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = tokenizer_of([answer.response for answer in answers] + [answer.proposition for answer in answers])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
            max_position_embeddings=128,
            id2label={0: "FAVOR", 1: "NONE", 2: "AGAINST"},
            initializer_range=0.2,
        )
        model = BertForSequenceClassification(config)
    made = tmp_path_factory.mktemp("judge") / "encoder"
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


def test_what_rounding_could_turn_is_read_again(
    folder: Path, answers: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 from the fifth batch on, as on a device where it is faster: the labels are those of float32."""
    exact = HFJudge(str(folder), batch_size=2).judge(answers)
    assert len({verdict.label for verdict in exact}) > 1
    monkeypatch.setattr(pairs, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(pairs, "_GAIN", float("inf"))
    judge = HFJudge(str(folder), batch_size=2)
    rounded = judge.judge(answers)
    assert [verdict.label for verdict in rounded] == [verdict.label for verdict in exact]
    shares = np.array([[verdict.probabilities for verdict in own] for own in (exact, rounded)], dtype=float)
    assert np.abs(shares[0] - shares[1]).max() > 0  # some were really read in bfloat16


def test_batches_are_filled_by_tokens_the_longest_first(folder: Path, answers: list[Answer]) -> None:
    judge = HFJudge(str(folder), batch_size=2)
    model, tokenizer = judge._loaded
    texts = ["yes " * words for words in (100, 3, 50, 3, 100, 3, 3, 3)]
    seen: list[tuple[int, ...]] = []

    def looked_at(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        seen.append(tuple(named["input_ids"].shape))

    with model.register_forward_pre_hook(looked_at, with_kwargs=True):
        PairReader(model, tokenizer, 128, 2).probabilities(texts, ["no"] * len(texts))
    assert all(rows * width <= 2 * pairs.TOKENS for rows, width in seen)
    assert [width for _, width in seen] == sorted((width for _, width in seen), reverse=True)
    assert len(seen) == 2  # both long ones, then all others in one


def test_bfloat16_is_taken_only_where_its_second_batch_was_faster() -> None:
    for half, taken in ((0.5, True), (0.9, False)):
        precision, used = Precision(possible=True), []
        for seconds in (9.0, 1.0, 9.0, half, 1.0):
            used.append(precision.half)
            precision.took(seconds)
        assert used == [False, False, True, True, taken]
    assert not Precision(possible=False).half
