"""The scorer as MLflow can store it: a function whose source makes the scorer anew wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar, cast

import mlflow
from mlflow.entities import Feedback
from mlflow.exceptions import MlflowException
from mlflow.genai.scorers import Scorer, scorer
from mlflow.genai.scorers.base import SerializedScorer

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem

if TYPE_CHECKING:
    from valuedrift_mlflow.evaluation.scorer import ValueStance

_Given = TypeVar("_Given")
_SOURCE = """from valuedrift_mlflow import ValueStance
return ValueStance(name={name!r}, judge={judge!r})(inputs=inputs, outputs=outputs, expectations=expectations)"""


def as_function(own: ValueStance) -> Scorer:
    """A scorer of MLflow's own kind that does what ``own`` does, with the source by which a store keeps it.

    MLflow stores no classes. It writes the source of a decorated function; that of this one has no closure to lose.
    """

    def value_stance(
        inputs: object = None, outputs: object = None, expectations: Mapping[str, object] | None = None
    ) -> list[Feedback]:
        return own(inputs=inputs, outputs=outputs, expectations=dict(expectations or {}))

    made: Scorer = scorer(value_stance, name=own.name)
    stored = SerializedScorer(
        name=own.name,
        aggregations=cast(list[str] | None, own.aggregations),
        mlflow_version=mlflow.__version__,
        serialization_version=1,
        call_source=_SOURCE.format(name=own.name, judge=own.judge),
        call_signature="(inputs=None, outputs=None, expectations=None)",
        original_func_name="value_stance",
    )
    object.__setattr__(made, "_cached_dump", asdict(stored))
    return made


def stored(what: str, name: str, action: Callable[[], _Given]) -> _Given:
    """What MLflow gives for a stored scorer.

    Raises:
        InputError: the store keeps no scorers with code of their own; it says why.
    """
    try:
        return action()
    except (MlflowException, NotImplementedError) as error:
        allowed = "a store that runs custom scorers: Databricks, or a server with MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS"
        raise InputError(problem(what, name, allowed, one_line(error))) from None
