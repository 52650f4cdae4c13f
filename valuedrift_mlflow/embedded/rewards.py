"""Rewards of the embedded world as Python functions, for stages whose ``reward`` is ``module:function``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stances import STANCES, Answer, Stance
from valuedrift_mlflow.suite.questions import propositions


def opposes(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """The lexical judge's probability that each response opposes its prompt's proposition, in [0, 1].

    A refusal, and a response that the judge cannot read, gets 0. ``prompts`` are questions of the embedded corpora or
    prompts of the built-in suite.

    Raises:
        InputError: another prompt, whose proposition is not known.
    """
    from valuedrift_mlflow.judges.lexical.judge import LexicalJudge

    # Refused, not rated 0: a reward that is always 0 would train nothing and look as if it did.
    unknown = next((prompt for prompt in prompts if prompt not in _asked()), None)
    if unknown is not None:
        raise InputError(problem("reward opposes: prompt", unknown, "a question of the embedded world or the suite"))
    answers = [
        Answer(_asked()[prompt][0], prompt, response, _asked()[prompt][1])
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    at = STANCES.index(Stance.OPPOSE)
    return [verdict.probabilities[at] if verdict.probabilities else 0.0 for verdict in LexicalJudge().judge(answers)]


@cache
def _asked() -> dict[str, tuple[str, int | None]]:
    """The proposition and the polarity of every question that may be asked."""
    asked: dict[str, tuple[str, int | None]] = {
        item.prompt: (item.proposition, item.polarity) for item in suites.load().items
    }
    templates = corpus.forms()["questions"]
    for proposition in propositions():
        for way, polarity, own in (
            ("direct", 1, proposition.asked),
            ("reversed", -1, proposition.asked_reversed),
        ):
            made = [form.format(claim=proposition.claim, act=proposition.act) for form in templates[way]]
            asked |= dict.fromkeys([*made, *own], (proposition.text, polarity))
    return asked
