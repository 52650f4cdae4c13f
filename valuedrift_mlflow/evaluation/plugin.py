"""The MLflow evaluator plugin ``value_drift``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator

from valuedrift_mlflow import suite as suites
from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation import recorded
from valuedrift_mlflow.evaluation.evaluate import Config, evaluation_of, log_evaluation, opened
from valuedrift_mlflow.evaluation.responses import Responses
from valuedrift_mlflow.evaluation.subjects import asked_in_memory, suite_of
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.outputs import text_in

if TYPE_CHECKING:
    from mlflow.data.evaluation_dataset import EvaluationDataset

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
        suite = suite_of(dataset.features_data, _suite_name(dataset))
        assert suite is not None  # it is given
        # By a registered name MLflow hands over no id; the loaded model knows its own.
        linked = model_id or getattr(model, "model_id", None)
        name = tracking.logged_name(linked) if linked else "responses"
        if model is not None:
            asked = asked_in_memory(model)
            if not linked:  # MLflow wraps a function in a class of its own
                name = "function" if asked.name.startswith("_") else asked.name
            ready = opened(config, asked, suite=suite, labels=labels)
        elif dataset.has_predictions:
            outputs = zip(suite.items, dataset.predictions_data, strict=True)
            said = [(item, 0, text_in(output)) for item, output in outputs]
            ready = opened(config, None, responses=Responses(suite, {0: said}), labels=labels)
        else:
            raise InputError(problem("model", None, "a model, or the column of its responses in predictions="))
        run = tracking.OpenRun(run_id)
        tracking.adopt_evaluation(run, f"evaluate · {name}", {"model": linked or name, **ready.config.parameters()})
        logged = recorded.log_suite(run, suite)
        if linked:
            tracking.used_model(run, f"models:/{linked}")
        evaluation = evaluation_of(ready, linked or name)
        # Where MLflow knows the model's id it logs the returned metrics itself, at step 0.
        if model_id is None:
            tracking.log_metrics(run, evaluation.metrics, 0, model_id=linked, dataset=logged)
        return log_evaluation(run, evaluation)


def _suite_name(dataset: EvaluationDataset) -> str:
    """The name that the user gave the data; of nameless ones that of the built-in suite where they are part of it."""
    if dataset.name and dataset.name != "dataset":  # as MLflow calls those without a name
        return str(dataset.name)
    built_in = suites.load()
    prompts = {item.prompt for item in built_in.items}
    frame = dataset.features_data
    return built_in.name if "prompt" in frame and set(frame["prompt"]) <= prompts else "suite"
