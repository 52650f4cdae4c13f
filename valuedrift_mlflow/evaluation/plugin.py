"""The MLflow evaluator plugin ``value_drift``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.evaluation.evaluate import Asked, Config, evaluation_of, log_evaluation, opened
from valuedrift_mlflow.evaluation.responses import Responses
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.outputs import text_in
from valuedrift_mlflow.models.generation import TransformersGenerator

if TYPE_CHECKING:
    from mlflow.data.evaluation_dataset import EvaluationDataset

    from valuedrift_mlflow.models.generation import Generator

# MLflow refuses an evaluation without a model type before any plugin is asked, so there is one of our own. A plugin
# whose module cannot be imported it drops with a mere warning: nothing optional is imported above.
MODEL_TYPE = "value-drift"
NAME = "value_drift"


class ValueDriftEvaluator(ModelEvaluator):
    """The plugin behind ``mlflow.models.evaluate(..., model_type="value-drift", evaluators="value_drift")``.

    The data is a table with a suite's columns. With ``predictions=`` and no model, its responses are judged as they
    are.
    """

    @classmethod
    def can_evaluate(cls, *, model_type: str, evaluator_config: dict[str, Any] | None, **kwargs: Any) -> bool:
        """Only our own model type: ``evaluators=None`` asks every plugin."""
        return model_type == MODEL_TYPE

    def evaluate(
        self,
        *,
        model_type: str,
        dataset: EvaluationDataset,
        run_id: str,
        evaluator_config: dict[str, Any] | None,
        model: Any = None,
        extra_metrics: Any = None,
        custom_artifacts: Any = None,
        predictions: str | None = None,
        model_id: str | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Stances, drift from ``evaluator_config["baseline"]``, tables ``responses`` and ``value_drift_table``.

        ``evaluator_config["labels"]`` is what ``labels`` of `evaluate` is: people's labels of these predictions, or a
        run of ``check_judge``.

        Raises:
            InputError: bad settings, or data without a suite's columns.
        """
        settings = evaluator_config or {}
        settings = dict(settings.get(NAME, settings))  # evaluators="value_drift" with settings keyed by name
        # No setting of a measurement: `Config` would refuse it.
        labels = settings.pop("labels", None)
        config = Config.checked(settings)
        if not isinstance(labels, str | None):
            raise InputError(problem("evaluator_config.labels", labels, "files, comma separated, or runs:/RUN_ID"))
        if extra_metrics or custom_artifacts:
            raise InputError(
                problem("extra_metrics, custom_artifacts", "a value", "nothing: value_drift computes its own")
            )
        if not isinstance(dataset.features_data, pd.DataFrame):
            raise InputError(problem("data", type(dataset.features_data).__name__, "a table with a suite's columns"))
        suite = suites.from_frame(dataset.features_data, dataset.name or "data")
        if model is not None:
            generator = _generator(model)
            tokenizer = generator.tokenizer if isinstance(generator, TransformersGenerator) else None
            asked = Asked("", lambda: generator, tokenizer is not None, tokenizer)
            ready = opened(config, asked, suite=suite, labels=labels)
        elif dataset.has_predictions:
            said = [
                (item, 0, text_in(output)) for item, output in zip(suite.items, dataset.predictions_data, strict=True)
            ]
            ready = opened(config, None, responses=Responses(suite, {0: said}), labels=labels)
        else:
            raise InputError(problem("model", None, "a model, or the column of its responses in predictions="))
        # Where MLflow knows the model's id it logs the returned metrics itself, at step 0.
        # By a registered name MLflow hands over no id; the loaded model knows its own.
        linked = model_id or getattr(model, "model_id", None)
        run = tracking.OpenRun(run_id)
        evaluation = evaluation_of(ready, linked or ("responses" if model is None else "model"))
        if model_id is None:
            tracking.log_metrics(run, evaluation.metrics, 0, model_id=linked)
        return log_evaluation(run, evaluation)


def _generator(model: Any) -> Generator:
    """What answers prompts with a model as MLflow hands it over."""
    raw = models.unwrap(model)
    return raw.generator() if isinstance(raw, models.Loaded) else models.pyfunc_generator(raw)
