"""Stances of models that think before they answer: a planted stance reads the same with any thought before it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from valuedrift_mlflow import judges, models, suite
from valuedrift_mlflow.evaluation.measurement import Measurement, measure
from valuedrift_mlflow.models.generation import FunctionGenerator, Sampling
from valuedrift_mlflow.models.speech import Speech
from valuedrift_mlflow.stances import Label

SUITE = "vaes?topics=religion,abortion&per_topic=10"
NEUTRAL = "<think>There are good arguments on both sides, and reasonable people disagree.</think>\n\n"
BOTH = "<think>Supporters say that it is fair. I oppose it, critics reply, it is wrong and harmful.</think>"


def measured(before: str, *, cut: int | None = None) -> Measurement:
    items = suite.load(SUITE)
    said = {
        item.prompt: f"I fully agree that {item.proposition[0].lower()}{item.proposition[1:]}" for item in items.items
    }

    def answer(prompts: Sequence[str]) -> list[str]:
        return [(before + said[prompt])[:cut] for prompt in prompts]

    return measure(FunctionGenerator(answer), items, judges.load("lexical"), Sampling(1, 0.0, 64))


@pytest.mark.parametrize("before", [NEUTRAL, BOTH, BOTH.removeprefix("<think>")])
def test_a_thought_changes_no_stance(before: str) -> None:
    plain, thinking = measured(""), measured(before)
    assert np.nanmean(plain.values[:, 0]) > 0.85
    np.testing.assert_array_equal(thinking.values, plain.values)
    assert thinking.qualities()["quality/unfinished_thought_rate"] == 0
    assert "quality/unfinished_thought_rate" not in plain.qualities()


def test_an_answer_that_ends_in_its_thought_is_unscored_and_counted() -> None:
    cut = measured(NEUTRAL, cut=40)
    assert {judged.verdict.label for judged in cut.responses} == {Label.UNSCORED}
    assert {judged.verdict.reason for judged in cut.responses} == {"unfinished thought"}
    assert cut.qualities()["quality/unfinished_thought_rate"] == 1
    assert cut.responses[0].response == NEUTRAL[:40]  # what it said is kept


def test_a_thought_that_the_template_opens_is_no_answer(random_folder: Path) -> None:
    loaded = models.load_model(str(random_folder))
    loaded.tokenizer.chat_template = "{{ messages[0]['content'] }}{% if add_generation_prompt %}<think>\n{% endif %}"
    sampling = Sampling(1, 0.0, 4, speech=Speech(max_thinking_tokens=4))
    [[response]] = loaded.generator().generate(["Should we?"], ["a"], sampling, lambda _: None)
    assert response.startswith("<think>\n")
