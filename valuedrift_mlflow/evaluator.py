"""Evaluation of a finished model: the MLflow evaluator plugin ``value_drift``, and ``evaluate`` for any model URI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.models.evaluation.artifacts import JsonEvaluationArtifact
from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from valuedrift_mlflow import judges, models, tracking
from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.drift import Drift
from valuedrift_mlflow.errors import InputError, problem
from valuedrift_mlflow.generation import Generator, Sampling
from valuedrift_mlflow.judges import Judge
from valuedrift_mlflow.measurement import (
    Measurement,
    analyse_measurements,
    drift_metrics,
    drift_table,
    judge_responses,
    measure,
    no_progress,
    responses_table,
    stance_metrics,
    topics_drifted,
)
from valuedrift_mlflow.stances import RefusalRule
from valuedrift_mlflow.suite import Suite

if TYPE_CHECKING:
    from mlflow.data.dataset import Dataset
    from mlflow.data.evaluation_dataset import EvaluationDataset

    from valuedrift_mlflow.generation import Progress

MODEL_TYPE = "value-drift"
NAME = "value_drift"


class Config(BaseModel):
    """Settings of an evaluation; the keys of ``evaluator_config``."""

    model_config = ConfigDict(extra="forbid")

    judge: str = "lexical"
    samples: int = Field(5, ge=1)
    temperature: float = Field(0.7, ge=0)
    max_new_tokens: int = Field(256, ge=1)
    generation_batch_size: int = Field(64, ge=1)
    refusal: RefusalRule = "neutral"
    seed: int = Field(0, ge=0)
    baseline: str | None = None

    @classmethod
    def checked(cls, settings: dict[str, Any]) -> Config:
        """Validate settings.

        Raises:
            InputError: all problems at once.
        """
        try:
            config = cls(**settings)
        except ValidationError as error:
            known = ", ".join(cls.model_fields)
            raise InputError(
                [
                    problem(
                        f"evaluator_config.{entry['loc'][0]}",
                        entry["input"],
                        known if entry["type"] == "extra_forbidden" else entry["msg"],
                    )
                    for entry in error.errors()
                ]
            ) from None
        judges.check(config.judge)
        if config.baseline is not None:
            models.check(config.baseline, "baseline")
        return config

    def sampling(self, salt: str) -> Sampling:
        """How responses are drawn; ``salt`` keeps the model's and the baseline's draws apart."""
        return Sampling(
            self.samples, self.temperature, self.max_new_tokens, self.generation_batch_size, self.seed, salt
        )


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation came to; ``drift`` is from the baseline where there is one."""

    measurements: list[Measurement]
    drift: Drift
    metrics: dict[str, float]


def evaluate_generator(
    generator: Generator, suite: Suite, judge: Judge, config: Config, progress: Progress = no_progress
) -> Evaluation:
    """Measure a model, and its baseline where the settings name one."""
    measurements = []
    if config.baseline is not None:
        baseline = models.load_generator(config.baseline)
        measurements.append(
            measure(baseline, suite, judge, config.sampling("baseline"), refusal=config.refusal, progress=progress)
        )
    measurements.append(
        measure(generator, suite, judge, config.sampling("model"), refusal=config.refusal, progress=progress)
    )
    return _evaluation(measurements, config)


def _evaluation(measurements: list[Measurement], config: Config) -> Evaluation:
    drift = analyse_measurements(measurements, config.seed)
    metrics = stance_metrics(drift) | measurements[-1].qualities() | measurements[-1].costs()
    if len(measurements) > 1:
        metrics |= drift_metrics(drift) | {"drift/topics_drifted": float(topics_drifted(drift))}
    return Evaluation(measurements, drift, metrics)


def _logged(
    evaluation: Evaluation, run_id: str, *, model_id: str | None, dataset: Dataset | None, log_metrics: bool
) -> EvaluationResult:
    """Log tables (and metrics) to a run, and make what MLflow's callers expect of them."""
    if log_metrics:
        tracking.log_metrics(run_id, evaluation.metrics, 0, model_id=model_id, dataset=dataset)
    tables = {
        "value_drift_table": drift_table(evaluation.drift),
        "responses": responses_table(evaluation.measurements[-1:]),
    }
    artifacts = {}
    for name, table in tables.items():
        tracking.log_table(run_id, table, f"{name}.json")
        artifacts[name] = JsonEvaluationArtifact(uri=f"runs:/{run_id}/{name}.json", content=table.to_dict("list"))
    return EvaluationResult(evaluation.metrics, artifacts, run_id)


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

        Raises:
            InputError: bad settings, or data without a suite's columns.
        """
        settings = evaluator_config or {}
        settings = settings.get(NAME, settings)  # evaluators="value_drift" with settings keyed by name
        config = Config.checked(settings)
        if extra_metrics or custom_artifacts:
            raise InputError(
                problem("extra_metrics, custom_artifacts", "a value", "nothing: value_drift computes its own")
            )
        if not isinstance(dataset.features_data, pd.DataFrame):
            raise InputError(problem("data", type(dataset.features_data).__name__, "a table with a suite's columns"))
        suite = suites.from_frame(dataset.features_data, dataset.name or "data")
        judge = judges.load(config.judge)
        if model is not None:
            raw = models.unwrap(model)
            generator = raw.generator() if isinstance(raw, models.Loaded) else models.pyfunc_generator(raw)
            evaluation = evaluate_generator(generator, suite, judge, config)
        elif dataset.has_predictions:
            evaluation = _judge_only(suite, judge, config, [str(text) for text in dataset.predictions_data])
        else:
            raise InputError(problem("model", None, "a model, or the column of its responses in predictions="))
        # Where MLflow knows the model's id it logs the returned metrics itself, at step 0.
        linked = model_id or getattr(model, "model_id", None)
        return _logged(evaluation, run_id, model_id=linked, dataset=None, log_metrics=model_id is None)


def _judge_only(suite: Suite, judge: Judge, config: Config, responses: list[str]) -> Evaluation:
    flat = [(item, 0, text) for item, text in zip(suite.items, responses, strict=True)]
    judged = judge_responses(judge, flat)
    name = f"{judge.name}@{judge.version}"
    return _evaluation([Measurement(0, suite, name, config.refusal, judged, 0.0, 0.0)], config)


def evaluate(
    model: str,
    baseline: str | None = None,
    *,
    suite: str | Suite = suites.BUILT_IN,
    progress: Progress = no_progress,
    **settings: Any,
) -> EvaluationResult:
    """Evaluate a model of any URI in a run of its own (nested where one is active).

    Args:
        model: ``embedded:base``, a folder, a hub id, ``models:/name/1``, ``runs:/run_id/path``. baseline: the model
        to measure drift from. suite: a suite or its URI. progress: called with the number of responses generated.
        settings: ``judge``, ``samples``, ``temperature``, ``max_new_tokens``, ``generation_batch_size``, ``refusal``,
        ``seed``.

    Returns:
        The metrics of the README's table (drift only with a baseline) and the tables ``responses`` and
        ``value_drift_table``.

    Raises:
        InputError: before any computing, for an unknown model, suite, judge or setting.
    """
    return evaluate_uri(model, baseline, suite=suite, progress=progress, **settings)[0]


def evaluate_uri(
    model: str, baseline: str | None, *, suite: str | Suite, progress: Progress = no_progress, **settings: Any
) -> tuple[EvaluationResult, Evaluation]:
    """As ``evaluate``, with the measurements beside the result."""
    config = Config.checked({**settings, "baseline": baseline})
    loaded_suite = suites.load(suite) if isinstance(suite, str) else suite
    models.check(model)
    with tracking.run(
        "evaluation", name=f"evaluate · {models.short_name(model)}", parameters=_parameters(model, config)
    ) as active:
        dataset = tracking.log_suite(loaded_suite)
        generator = models.load_generator(model)
        evaluation = evaluate_generator(generator, loaded_suite, judges.load(config.judge), config, progress)
        result = _logged(
            evaluation, active.info.run_id, model_id=models.logged_model_id(model), dataset=dataset, log_metrics=True
        )
    return result, evaluation


def _parameters(model: str, config: Config) -> dict[str, str]:
    return {"model": model, **{key: str(value) for key, value in config.model_dump(exclude_none=True).items()}}
