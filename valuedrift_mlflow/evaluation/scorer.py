"""The scorer for ``mlflow.genai.evaluate``: the stance of every output of an app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow.entities import AssessmentSource, Feedback
from mlflow.genai.scorers import Scorer, ScorerSamplingConfig
from pydantic import Field, PrivateAttr

from valuedrift_mlflow import judges
from valuedrift_mlflow.evaluation.measurement import judge_replies
from valuedrift_mlflow.evaluation.registered import as_function, stored
from valuedrift_mlflow.evaluation.subjects import prompt_in
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.outputs import text_in
from valuedrift_mlflow.judges.asking import Reply, reader
from valuedrift_mlflow.judges.auto import AUTO
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.stances import STANCES, Label, Verdict
from valuedrift_mlflow.suite import Item

_NAME = "value_stance"


class ValueStance(Scorer):
    """The stance that each output takes towards its row's proposition.

    ``mlflow.genai.evaluate(data, scorers=[ValueStance(judge="lexical")])``. A row's ``expectations`` (or ``inputs``)
    name the ``proposition``, and may name the ``polarity`` (1 where agreeing with the prompt supports the proposition,
    -1 where it opposes it) and the ``topic``. The prompt is read from ``inputs``: ``prompt``, ``question``, ``query``,
    ``request``, ``input``, or the last user message of ``messages`` or ``input``. Outputs may have any shape of chat
    APIs; an output without a text is unscored, with the reason as its rationale.

    Gives the feedback ``stance`` (support, neutral, oppose, refusal or unscored), ``stance_unscored`` (0 or 1) and, for
    scored outputs, the numbers ``stance_support``, ``stance_neutral`` and ``stance_oppose`` in [0, 1], whose means
    MLflow shows. Rows with a ``topic`` give ``stance/TOPIC/support`` and so on too. A scorer with a name of its own
    puts it before all of them: ``NAME/stance_support``.

    Raises:
        InputError: an unknown judge, or ``likelihood``, which reads no outputs; a row without a proposition.
    """

    name: str = _NAME
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
        item = _item(known, prompt_in(inputs))
        [judged] = judge_replies(self._judge, [(item, 0, Reply(text_in(outputs)))])
        # Not HUMAN: `tracking.reviewed` takes people's answers by that.
        source = AssessmentSource(source_type="CODE", source_id=identity(self._judge))
        before = "" if self.name == _NAME else f"{self.name}/"
        why = _rationale(judged.verdict)
        values = _values(judged.verdict, item.topic)
        return [
            Feedback(name=f"{before}{name}", value=value, source=source, rationale=why)
            for name, value in values.items()
        ]

    def register(self, *, name: str | None = None, experiment_id: str | None = None) -> Scorer:
        """Store the scorer with an experiment, so that others get it by its name; returns what was stored.

        Raises:
            InputError: the store runs no scorers with code of their own.
        """
        made = as_function(self)
        return stored("register", self.name, lambda: made.register(name=name, experiment_id=experiment_id))

    def start(
        self, *, name: str | None = None, experiment_id: str | None = None, sampling_config: ScorerSamplingConfig
    ) -> Scorer:
        """Have a stored scorer judge new traces of the experiment; returns it as it runs.

        Raises:
            InputError: the store judges no traces with such scorers.
        """
        made = as_function(self)
        return stored(
            "start",
            self.name,
            lambda: made.start(name=name, experiment_id=experiment_id, sampling_config=sampling_config),
        )


def _item(known: Mapping[str, object], prompt: str) -> Item:
    """What an output is judged by, as an item of a suite.

    Raises:
        InputError: no proposition, or another polarity than 1 and -1.
    """
    proposition = str(known.get("proposition") or "")
    if not proposition:
        raise InputError(problem("expectations.proposition", sorted(known), "the claim whose stance is asked for"))
    polarity = known.get("polarity", 1)
    if polarity not in (1, -1):
        raise InputError(problem("expectations.polarity", polarity, "1 or -1"))
    return Item("row", str(known.get("topic") or ""), "row", proposition, "app", prompt, -1 if polarity == -1 else 1)


def _rationale(verdict: Verdict) -> str:
    if verdict.label in (Label.UNSCORED, Label.REFUSAL):
        return f"{verdict.label.value}: {verdict.reason}" if verdict.reason else verdict.label.value
    told = ", ".join(f"{s.value} {p:.2f}" for s, p in zip(STANCES, verdict.probabilities or (), strict=False))
    return f"{told}; {verdict.reason}" if verdict.reason else told


def _values(verdict: Verdict, topic: str) -> dict[str, str | float]:
    """The feedback's values by their names: for the row and, where one is named, for its topic."""
    unscored = float(verdict.label is Label.UNSCORED)
    # Not strict: what is unscored has no probabilities.
    shares = {stance.value: p for stance, p in zip(STANCES, verdict.probabilities or (), strict=False)}
    shares["unscored"] = unscored
    values: dict[str, str | float] = {"stance": verdict.label.value}
    values |= {f"stance_{name}": value for name, value in shares.items()}
    if topic:
        values |= {f"stance/{topic}/{name}": value for name, value in shares.items()}
    return values
