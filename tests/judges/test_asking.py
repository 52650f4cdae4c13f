from collections.abc import Sequence

import pytest

from valuedrift_mlflow import suite
from valuedrift_mlflow.evaluation.measurement import EMPTY, measure, no_progress
from valuedrift_mlflow.judges.asking import ask
from valuedrift_mlflow.models.generation import FunctionGenerator, Sampling
from valuedrift_mlflow.stances import Answer, Verdict

SUPPORT, OPPOSE = Verdict.of((0.8, 0.2, 0.0)), Verdict.of((0.0, 0.4, 0.6))


class Mine:
    """The least that a judge can be; ``ask`` is an affair of its own."""

    name = "mine"

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [self.ask(answer.response) for answer in answers]

    def ask(self, response: str) -> Verdict:
        assert response
        return SUPPORT if response == "Yes." else OPPOSE


class Versioned(Mine):
    version = "7"


@pytest.mark.parametrize(("judge", "identity"), [(Mine(), "mine"), (Versioned(), "mine@7")])
def test_a_judge_needs_a_name_and_reads_answers(judge: Mine, identity: str) -> None:
    asked = suite.load("vaes?topics=religion&per_topic=3")
    generator = FunctionGenerator(lambda prompts: ["Yes.", " ", "No."])
    measured = measure(generator, asked, judge, Sampling(2, 0.7, 256))
    assert [judged.verdict for judged in measured.responses] == [SUPPORT, SUPPORT, EMPTY, EMPTY, OPPOSE, OPPOSE]
    assert [judged.sample for judged in measured.responses] == [0, 1] * 3
    assert measured.judge == identity


def test_no_items_are_no_question() -> None:
    """One of several processes may have no prompt of a small suite."""

    def silent(prompts: list[str]) -> list[str]:
        raise AssertionError("was asked")

    assert ask(Mine(), FunctionGenerator(silent), [], Sampling(5, 0.7, 256), no_progress) == []
