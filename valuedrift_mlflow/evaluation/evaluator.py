"""Evaluation of a finished model: the MLflow evaluator plugin ``value_drift``, and ``evaluate`` for any model URI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.models.evaluation.artifacts import JsonEvaluationArtifact
from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator
from pydantic import ValidationError

from valuedrift_mlflow import judges, models, tracking
from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.evaluation import recorded
from valuedrift_mlflow.evaluation import responses as existing_responses
from valuedrift_mlflow.evaluation.measurement import Measurement, judge_existing, measure, no_progress
from valuedrift_mlflow.evaluation.metrics import (
    analyse_measurements,
    drift_metrics,
    drift_table,
    responses_table,
    stance_metrics,
    topics_drifted,
)
from valuedrift_mlflow.evaluation.settings import Measuring
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.judges.asking import reader
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.models.generation import Generator
from valuedrift_mlflow.suite import Suite

if TYPE_CHECKING:
    from mlflow.data.evaluation_dataset import EvaluationDataset

    from valuedrift_mlflow.models.generation import Progress
from valuedrift_mlflow.evaluation.results import Evaluation

MODEL_TYPE = "value-drift"
NAME = "value_drift"


class Config(Measuring):
    """Settings of an evaluation; the keys of ``evaluator_config``."""

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
        if config.baseline is not None and not existing_responses.is_table(config.baseline):
            models.check(config.baseline, "baseline")
        return config


def evaluate_generator(
    generator: Generator,
    suite: Suite,
    judge: Judge,
    config: Config,
    progress: Progress = no_progress,
) -> Evaluation:
    """Measure a model, and its baseline where the settings name one."""
    measurements = _baseline(suite, judge, config, progress)
    measurements.append(
        measure(generator, suite, judge, config.sampling("model"), refusal=config.refusal, progress=progress)
    )
    return _evaluation(measurements, config)


def _baseline(suite: Suite, judge: Judge, config: Config, progress: Progress = no_progress) -> list[Measurement]:
    """The measurement of the baseline: a model's, or that of the last step of a table of responses."""
    if config.baseline is None:
        return []
    if existing_responses.is_table(config.baseline):
        last = list(_baseline_table(config.baseline, suite).by_step.values())[-1]
        return [judge_existing(last, suite, judge, refusal=config.refusal)]
    generator = models.load_generator(config.baseline)
    return [measure(generator, suite, judge, config.sampling("baseline"), refusal=config.refusal, progress=progress)]


def _baseline_table(uri: str, suite: Suite) -> existing_responses.Responses:
    existing = existing_responses.load(uri)
    if existing.suite.hash != suite.hash:
        raise InputError(
            problem("baseline", existing.suite.identity, suite.identity, "compare responses to the same suite")
        )
    return existing


def _check_together(subject: str, suite: Suite, judge: Judge, config: Config) -> None:
    """Refuse before any computing what cannot be measured together.

    Raises:
        InputError: a baseline's responses to another suite; the judge ``likelihood`` without a model's own weights.
    """
    if config.baseline is not None and existing_responses.is_table(config.baseline):
        _baseline_table(config.baseline, suite)
    for uri in filter(None, (subject, config.baseline)):
        if existing_responses.is_table(uri) or uri.startswith(models.SERVER_PREFIX):
            reader(judge, f"{uri} has no weights to ask")


def _evaluation(measurements: list[Measurement], config: Config) -> Evaluation:
    drift = analyse_measurements(measurements, config.seed)
    metrics = stance_metrics(drift) | measurements[-1].qualities() | measurements[-1].costs()
    if len(measurements) > 1:
        metrics |= drift_metrics(drift) | {"drift/topics_drifted": float(topics_drifted(drift))}
    return Evaluation(measurements, drift, metrics)


def _logged(
    evaluation: Evaluation,
    run: tracking.OpenRun,
    *,
    subject: str,
    baseline: str | None,
    model_id: str | None,
    dataset: tracking.LoggedDataset | None,
    log_metrics: bool,
) -> EvaluationResult:
    """Log tables, figure and report (and metrics) to a run, and make what MLflow's callers expect of them."""
    from valuedrift_mlflow.evaluation.report import evaluation_figures, evaluation_html

    if log_metrics:
        tracking.log_metrics(run, evaluation.metrics, 0, model_id=model_id, dataset=dataset)
    tables = {
        "value_drift_table": drift_table(evaluation.drift, evaluation.measurements),
        "responses": responses_table(evaluation.measurements[-1:]),
    }
    artifacts = {}
    for name, table in tables.items():
        tracking.log_table(run, table, f"{name}.json")
        artifacts[name] = JsonEvaluationArtifact(uri=f"runs:/{run.run_id}/{name}.json", content=table.to_dict("list"))
    tracking.log_figures(run, evaluation_figures(evaluation.drift, compared=len(evaluation.measurements) > 1))
    tracking.log_text(run, evaluation_html(evaluation, subject, baseline), "html")
    return EvaluationResult(evaluation.metrics, artifacts, run.run_id)


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
        _check_together("", suite, judge, config)
        if model is not None:
            raw = models.unwrap(model)
            generator = raw.generator() if isinstance(raw, models.Loaded) else models.pyfunc_generator(raw)
            evaluation = evaluate_generator(generator, suite, judge, config)
        elif dataset.has_predictions:
            said = [(item, 0, str(text)) for item, text in zip(suite.items, dataset.predictions_data, strict=True)]
            existing = judge_existing(said, suite, judge, refusal=config.refusal)
            evaluation = _evaluation([*_baseline(suite, judge, config), existing], config)
        else:
            raise InputError(problem("model", None, "a model, or the column of its responses in predictions="))
        # Where MLflow knows the model's id it logs the returned metrics itself, at step 0.
        linked = model_id or getattr(model, "model_id", None)
        return _logged(
            evaluation,
            tracking.OpenRun(run_id),
            subject=linked or ("responses" if model is None else "model"),
            baseline=config.baseline,
            model_id=linked,
            dataset=None,
            log_metrics=model_id is None,
        )


def evaluate(
    model: str | None = None,
    baseline: str | None = None,
    *,
    suite: str | Suite = "",
    responses: str | None = None,
    progress: Progress = no_progress,
    **settings: Any,
) -> EvaluationResult:
    """Evaluate a model of any URI, or responses that exist already, in a run of its own (nested where one is active).

    Args:
        model: ``embedded:base``, a folder, a hub id, ``models:/name/1``, ``runs:/run_id/path``, ``openai:/model``.
        baseline: the model to measure drift from, or a table of its responses.
        suite: a suite or its URI; ``vaes``, or what a table of responses names, where it is not given.
        responses: a table of responses (json, jsonl, csv, parquet, ``runs:/RUN_ID/responses.json``) to judge instead
            of asking a model.
        progress: called with the number of responses generated.
        settings: ``judge``, ``samples``, ``temperature``, ``max_new_tokens``, ``generation_batch_size``, ``refusal``,
            ``seed``.

    Returns:
        The metrics of the README's table (drift only with a baseline) and the tables ``responses`` and
        ``value_drift_table``.

    Raises:
        InputError: before any computing, for an unknown model, suite, judge or setting; for responses to another suite
            than the baseline's.
    """
    return evaluate_uri(model, baseline, suite=suite, responses=responses, progress=progress, **settings)[0]


def evaluate_uri(
    model: str | None,
    baseline: str | None,
    *,
    suite: str | Suite = "",
    responses: str | None = None,
    progress: Progress = no_progress,
    **settings: Any,
) -> tuple[EvaluationResult, Evaluation]:
    """As ``evaluate``, with the measurements beside the result."""
    config = Config.checked({**settings, "baseline": baseline})
    judge, asked, existing = check(model, config, suite=suite, responses=responses)
    subject = responses or model or ""
    name = f"evaluate · {models.short_name(subject)}"
    with tracking.run("evaluation", name=name, parameters=_parameters(subject, config)) as active:
        dataset = recorded.log_suite(active, asked)
        if existing is None:
            evaluation = evaluate_generator(models.load_generator(subject), asked, judge, config, progress)
            model_id = tracking.logged_model_id(subject)
        else:
            evaluation, model_id = judge_table(existing, judge, config), None
        result = _logged(
            evaluation,
            active,
            subject=subject,
            baseline=baseline,
            model_id=model_id,
            dataset=dataset,
            log_metrics=True,
        )
    return result, evaluation


def check(
    model: str | None, config: Config, *, suite: str | Suite = "", responses: str | None = None
) -> tuple[Judge, Suite, existing_responses.Responses | None]:
    """Everything that can be said of an evaluation without weights: its judge, its suite, the table of responses.

    Raises:
        InputError: an unknown model, baseline, suite or judge, or what cannot be measured together.
    """
    judge = judges.load(config.judge)
    existing: existing_responses.Responses | None = None
    if responses:
        if model:
            raise InputError(problem("model", model, "no model where responses are given", "leave out one of them"))
        if isinstance(suite, Suite):
            raise InputError(problem("suite", suite.name, "a suite's URI where responses are given"))
        existing = existing_responses.load(responses, suite)
        asked = existing.suite
    else:
        asked = suites.load(suite or suites.BUILT_IN) if isinstance(suite, str) else suite
        models.check(model or "")
    if config.baseline is not None and not existing_responses.is_table(config.baseline):
        models.check(config.baseline, "baseline")
    _check_together(responses or model or "", asked, judge, config)
    return judge, asked, existing


def judge_table(existing: existing_responses.Responses, judge: Judge, config: Config) -> Evaluation:
    """Judge a table of responses; with several steps the drift is from the first, without a baseline."""
    measurements = [
        judge_existing(said, existing.suite, judge, step=step, refusal=config.refusal)
        for step, said in existing.by_step.items()
    ]
    before = _baseline(existing.suite, judge, config)
    return _evaluation([*before, measurements[-1]] if before else measurements, config)


def _parameters(subject: str, config: Config) -> dict[str, str]:
    return {"model": subject, **{key: str(value) for key, value in config.model_dump(exclude_none=True).items()}}
