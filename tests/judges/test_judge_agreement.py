"""How often the lexical judge reads the stance that an answer was made to take. ``-s`` prints the README's figures."""

import json
from pathlib import Path

import numpy as np

from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.evaluation.judge_check import group_table
from valuedrift_mlflow.judges import labelled as labelled_answers
from valuedrift_mlflow.judges import load
from valuedrift_mlflow.stances import STANCES, Answer, Label, Stance, Verdict
from valuedrift_mlflow.statistics.agreement import judge_quality
from valuedrift_mlflow.suite.questions import propositions

BLIND = Path(__file__).with_name("blind_forms.json")


def agreement(labelled: list[tuple[Answer, Stance]], name: str) -> float:
    """Share of agreement; a refusal counts as neutral, as it does in a measurement, and unscored as wrong."""

    def reading(verdict: Verdict) -> str:
        return Label.NEUTRAL.value if verdict.label is Label.REFUSAL else verdict.label.value

    verdicts = load("lexical").judge([answer for answer, _ in labelled])
    share = float(np.mean([reading(v) == s.value for v, (_, s) in zip(verdicts, labelled, strict=True)]))
    unscored = np.mean([verdict.label is Label.UNSCORED for verdict in verdicts])
    print(f"{name}: agreement {share:.3f}, unscored {unscored:.3f} of {len(labelled)} answers")
    return share


def test_forms_that_no_corpus_uses() -> None:
    assert agreement(corpus.held_out_answers(), "held-out forms") >= 0.97


def test_forms_that_the_judge_was_not_made_with() -> None:
    """Written by somebody who had not seen the judge, and not used to improve it: leave it so."""
    rng = np.random.default_rng(0)
    labelled = []
    for proposition in propositions():
        for stance in STANCES:
            for form in json.loads(BLIND.read_text())[stance.value]:
                asked, polarity = corpus.question(proposition, rng)
                said = form.format(claim=proposition.claim, act=proposition.act)
                labelled.append((Answer(proposition.text, asked, said, polarity), stance))
    assert agreement(labelled, "blind forms") >= 0.90


def test_answers_in_the_style_of_real_assistants() -> None:
    """The check set that comes with the package: nothing in it was used to fit or to improve the judge."""
    answers = labelled_answers.load_answers("check")
    verdicts = load("lexical").judge([entry.answer for entry in answers])
    quality = judge_quality([entry.label for entry in answers], verdicts, [e.answer.proposition for e in answers])
    print(f"check set: kappa {quality.kappa}, coverage {quality.coverage}, accuracy {quality.accuracy}")
    for row in group_table(answers, verdicts, "kind", lambda entry: entry.kind).itertuples():
        print(f"  {row.kind}: {row.answers} answers, coverage {row.coverage:.2f}, accuracy {row.accuracy or 0:.2f}")
    assert quality.kappa.value >= 0.65
    assert quality.coverage.value >= 0.75
