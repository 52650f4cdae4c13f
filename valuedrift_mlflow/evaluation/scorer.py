"""The scorer for ``mlflow.genai.evaluate``: the stance of every output of an app."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlflow.entities import AssessmentSource, Feedback
from mlflow.genai.scorers import Scorer
from pydantic import Field, PrivateAttr

from valuedrift_mlflow import judges
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.thoughts import UNFINISHED, spoken
from valuedrift_mlflow.judges.asking import reader
from valuedrift_mlflow.judges.auto import AUTO
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.stances import STANCES, UNSCORED, Answer

_PROMPT_KEYS = ("prompt", "question", "query", "input", "request")


class ValueStance(Scorer):
    """The stance that each output takes towards its row's proposition.

    ``mlflow.genai.evaluate(data, scorers=[ValueStance(judge="lexical")])``. A row's ``expectations`` (or ``inputs``)
    name the ``proposition``, and may name the ``polarity``: 1 where agreeing with the prompt supports the proposition,
    -1 where it opposes it. The prompt is read from ``inputs``: ``prompt``, ``question``, ``query``, ``input``,
    ``request``, or the last user message of ``messages``.

    Gives the feedback ``stance`` (support, neutral, oppose, refusal or unscored) and, for scored outputs, the numbers
    ``stance_support``, ``stance_neutral`` and ``stance_oppose`` in [0, 1], whose means MLflow shows.

    Raises:
        InputError: an unknown judge, or ``likelihood``, which reads no outputs; a row without a proposition.
    """

    name: str = "value_stance"
    judge: str = Field(AUTO)
    _judge: Judge = PrivateAttr()

    def __init__(self, **settings: Any) -> None:
        """``judge``: URI of the judge, whose weights are loaded with the first row. ``name``: of this scorer."""
        judge = reader(judges.load(settings.get("judge", AUTO)))  # before pydantic, which would wrap its errors
        super().__init__(**settings)
        self._judge = judge

    def __call__(  # type: ignore[override]  # MLflow passes what a scorer asks for
        self, *, inputs: Any = None, outputs: Any = None, expectations: dict[str, Any] | None = None
    ) -> list[Feedback]:
        """Judge one output."""
        # `expectations` win: what a row is judged by is no part of what the app was given.
        known = {**(inputs if isinstance(inputs, dict) else {}), **(expectations or {})}
        proposition = str(known.get("proposition") or "")
        if not proposition:
            raise InputError(problem("expectations.proposition", sorted(known), "the claim whose stance is asked for"))
        polarity = known.get("polarity", 1)
        if polarity not in (1, -1):
            raise InputError(problem("expectations.polarity", polarity, "1 or -1"))
        said = spoken(_text(outputs))
        answer = Answer(proposition, _prompt(inputs), said.answer, int(polarity))
        [verdict] = self._judge.judge([answer]) if said.finished and said.answer.strip() else [UNSCORED]
        if not said.finished:
            verdict = replace(verdict, reason=UNFINISHED)
        # Not HUMAN: `tracking.reviewed` takes people's answers by that.
        source = AssessmentSource(source_type="CODE", source_id=identity(self._judge))
        feedback = [Feedback(name="stance", value=verdict.label.value, source=source, rationale=verdict.reason or None)]
        # Not strict: what is unscored has no probabilities.
        for stance, probability in zip(STANCES, verdict.probabilities or (), strict=False):
            feedback.append(Feedback(name=f"stance_{stance.value}", value=probability, source=source))
        return feedback


def _prompt(inputs: Any) -> str:
    if not isinstance(inputs, dict):
        return str(inputs or "")
    for key in _PROMPT_KEYS:
        if key in inputs:
            return str(inputs[key])
    asked = [message["content"] for message in inputs.get("messages", []) if message.get("role") == "user"]
    return str(asked[-1]) if asked else ""


def _text(outputs: Any) -> str:
    """The text of an output: plain, or of a chat completion."""
    if isinstance(outputs, dict):
        choices = outputs.get("choices")
        if choices:
            return str(choices[0]["message"]["content"])
        for key in ("content", "response", "output", "text"):
            if key in outputs:
                return str(outputs[key])
    return str(outputs or "")
