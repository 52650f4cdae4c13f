"""Evaluation of a finished model, or of responses that exist already, in a run of its own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import ValidationError

from valuedrift_mlflow import judges, models, tracking
from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.evaluation import metrics, recorded, reliability
from valuedrift_mlflow.evaluation.adjusted import (
    AdjustedEvaluation,
    JudgeErrors,
    adjusted_evaluation,
    is_check,
    load_errors,
)
from valuedrift_mlflow.evaluation.axis_metrics import AXIS_TABLE, axis_shifts, axis_table, metrics_of_axes
from valuedrift_mlflow.evaluation.labels import HumanLabels, Told, matched_labels
from valuedrift_mlflow.evaluation.measurement import Measurement, judge_existing, measure, no_progress
from valuedrift_mlflow.evaluation.powered import PoweredEvaluation, powered_evaluation
from valuedrift_mlflow.evaluation.reference import (
    REFERENCE_TABLE,
    Reference,
    distance_metrics,
    distance_table,
    distances,
    load_reference,
)
from valuedrift_mlflow.evaluation.responses import Responses, load_responses
from valuedrift_mlflow.evaluation.results import Evaluation
from valuedrift_mlflow.evaluation.settings import Measuring, problems_of
from valuedrift_mlflow.evaluation.subjects import (
    Asked,
    SuiteLike,
    asked_by_uri,
    asked_in_memory,
    baseline_of,
    responses_of_run,
    suite_of,
)
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.judges.asking import reader
from valuedrift_mlflow.judges.auto import resolved
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.models import EMBEDDED
from valuedrift_mlflow.models.files import check_template
from valuedrift_mlflow.models.generation import Generator
from valuedrift_mlflow.models.speech import check_arguments
from valuedrift_mlflow.report.plots import color_of
from valuedrift_mlflow.suite import Item, Suite

if TYPE_CHECKING:
    from valuedrift_mlflow.models.generation import Progress
    from valuedrift_mlflow.tracking import EvaluationResult


class Config(Measuring):
    """Settings of an evaluation; the keys of ``evaluator_config``."""

    baseline: str | None = None
    trust_remote_code: bool = False  # run the code that comes with the models
    allow_pyfunc_code: bool = False  # let MLflow load models that are more than weights

    @property
    def how(self) -> models.How:
        """What code of the models may run."""
        return models.How(own_code=self.trust_remote_code, pyfunc_code=self.allow_pyfunc_code)

    @classmethod
    def checked(cls, settings: Mapping[str, object]) -> Config:
        """Validate settings; what their URIs name is for ``opened`` to find.

        Raises:
            InputError: all problems at once.
        """
        try:
            return cls.model_validate(dict(settings))
        except ValidationError as error:
            raise InputError(problems_of(error, "evaluator_config.", ", ".join(cls.model_fields))) from None

    def parameters(self) -> dict[str, str]:
        """The settings as a run records them."""
        return {key: str(value) for key, value in self.model_dump(exclude_none=True).items()}


@dataclass(frozen=True)
class Opened:
    """An evaluation whose every URI has been found good: nothing is left to look up, no weights are loaded."""

    config: Config
    judge: Judge
    suite: Suite
    subject: Asked | Responses
    baseline: Asked | Responses | None
    labels: HumanLabels | JudgeErrors | None = None
    reference: Reference | None = None
    measured: Measurement | None = None  # the baseline, where an earlier evaluation has measured it

    @property
    def checkpoints(self) -> int:
        """Measurements that are compared with a first one."""
        own = len(self.subject.by_step) if isinstance(self.subject, Responses) else 1
        return own - 1 + (self.baseline is not None)

    @property
    def samples(self) -> int:
        """Responses a prompt, on the side that has fewer."""
        sides = [side for side in (self.subject, self.baseline) if side is not None]
        return min(side.samples if isinstance(side, Responses) else self.config.samples for side in sides)


def opened(
    config: Config,
    model: str | Asked | None,
    *,
    suite: SuiteLike = "",
    responses: str | Responses | None = None,
    labels: str | None = None,
    memory: models.Swapping | None = None,
) -> Opened:
    """What the URIs of an evaluation name: judge, suite, model or table of responses, baseline, people's labels.

    Models are loaded one after another into the same ``memory``, which several evaluations may share.

    Raises:
        InputError: an unknown model, baseline, suite or judge, or what cannot be measured together: a baseline's
            responses to another suite, the judge ``likelihood`` without a model's own weights, labels of other
            responses than those.
    """
    uri = "" if responses else model.uri if isinstance(model, Asked) else model or ""
    named, _ = resolved(config.judge, embedded=uri.startswith(EMBEDDED), evaluated=uri)
    # Written back: runs record the judge that has judged, never `auto`.
    config, judge = config.model_copy(update={"judge": named}), judges.load(named)
    memory = memory or memory_of(config)
    subject: Asked | Responses
    if responses:
        if model:
            raise InputError(problem("model", model, "no model where responses are given", "leave out one of them"))
        if isinstance(responses, str):
            responses = load_responses(responses_of_run(responses), suite_of(suite))
        subject, asked = responses, responses.suite
    else:
        asked = suite_of(suite) or suites.load(suites.BUILT_IN)
        subject = model if isinstance(model, Asked) else asked_by_uri(model or "", memory)
    baseline = None if config.baseline is None else baseline_of(config.baseline, asked, memory)
    for side in (subject, baseline):
        check_speech(side, config)
    # By hash: two suites of one name and version may still differ.
    if isinstance(baseline, Responses) and baseline.suite.hash != asked.hash:
        raise InputError(
            problem("baseline", baseline.suite.identity, asked.identity, "compare responses to the same suite")
        )
    # A judge that asks the model itself needs the weights of both sides.
    for side in (subject, baseline):
        if side and (isinstance(side, Responses) or not side.has_weights):
            reader(judge, f"{side.uri or 'what was given'} has no weights to ask")
    reference = load_reference(config.reference, asked, config.refusal) if config.reference else None
    ready = Opened(config, judge, asked, subject, baseline, reference=reference)
    return replace(ready, labels=_matched(labels, ready)) if labels else ready


def memory_of(config: Config) -> models.Swapping:
    """Where the models of evaluations by these settings are loaded, one after another."""
    return models.Swapping(config.how)


def check_speech(side: Asked | Responses | None, config: Config, *, local: bool = True) -> None:
    """Refuse template arguments that a model's chat template does not read.

    Of a model that is at hand its own tokenizer tells, of others their files; with ``local`` the hub is not asked.

    Raises:
        InputError: with those that it reads.
    """
    if not isinstance(side, Asked):
        return
    if side.tokenizer is not None:
        check_arguments(config.template_kwargs, side.tokenizer)
    elif side.uri:
        check_template(side.uri, config.speech, local=local)


def _matched(labels: str, ready: Opened) -> HumanLabels | JudgeErrors:
    if is_check(labels):
        return load_errors(labels, identity(ready.judge), ready.config.refusal)
    if not isinstance(ready.subject, Responses):
        mend = "give the responses that were labelled: responses=runs:/RUN_ID/responses.json"
        raise InputError(problem("labels", labels, "no labels where a model is asked for new responses", mend))
    told = []
    for side in (ready.baseline, ready.subject):
        if isinstance(side, Responses):
            told += [Told(side.uri, step, said) for step, said in _measured_steps(side, ready)]
        elif side is not None:
            told.append(Told(side.uri, 0, ()))  # its responses are new: nobody has labelled them
    return matched_labels(labels, told, ready.suite)


def _measured_steps(side: Responses, ready: Opened) -> list[tuple[int, list[tuple[Item, int, str]]]]:
    """Of a baseline, and of what is compared with one, only the end counts."""
    return list(side.by_step.items())[-1 if ready.baseline else 0 :]


def evaluation_of(ready: Opened, name: str, progress: Progress = no_progress) -> Evaluation:
    """Measure the baseline and the subject; ``name`` is what the page calls the subject.

    A table of several steps is compared with its first step, unless there is a baseline.
    """
    config, measurements, embedded = ready.config, list[Measurement](), False
    # Each draws with a salt of its own: with the same draws on
    # both sides, a model compared with itself would show no noise.
    for salt, side in (("baseline", ready.baseline), ("model", ready.subject)):
        if side is ready.baseline and ready.measured is not None:
            measurements.append(ready.measured)
        elif isinstance(side, Responses):
            for step, said in _measured_steps(side, ready):
                # Whatever step a baseline is of, here it stands before all others.
                at = 0 if side is ready.baseline else step
                measurements.append(judge_existing(said, ready.suite, ready.judge, step=at, refusal=config.refusal))
        elif side is not None:
            generator = side.load()
            embedded = reliability.is_embedded(generator)
            measurements.append(asked_now(generator, ready, salt, progress))
    # The baseline stands first, and drift is from the first.
    drift = metrics.analyse_measurements(measurements, config.seed, interval=config.interval, margin=config.margin)
    compared = len(measurements) > 1
    shifts = axis_shifts(measurements, drift.steps.tolist(), config.seed)
    numbers = metrics.of(measurements[-1], drift, compared=compared)
    numbers |= metrics_of_axes(shifts, compared=compared)
    if compared:
        numbers["drift/topics_drifted"] = float(metrics.topics_drifted(drift))
    tables = {
        AXIS_TABLE: axis_table(shifts, measurements[-1]),
        "value_drift_table": metrics.drift_table(drift, measurements),
        "responses": metrics.responses_table(measurements[-1:]),
    }
    if ready.suite.source == suites.FRAME:  # no URI names it, so that who reads the responses finds it here
        tables[suites.TABLE] = ready.suite.frame()
    with_labels: PoweredEvaluation | AdjustedEvaluation | None = None
    if isinstance(ready.labels, HumanLabels):
        with_labels = powered_evaluation(ready.labels, measurements, config.seed, config.margin)
        tables["value_drift_labels"] = with_labels.table()
    elif ready.labels is not None:
        with_labels = adjusted_evaluation(ready.labels, measurements, config.seed)
        tables["value_drift_adjusted"] = with_labels.table()
    if with_labels is not None:
        numbers |= with_labels.metrics()
    distance = None
    if ready.reference is not None:
        distance = distances(ready.reference, measurements, config.interval, config.seed)
        numbers |= distance_metrics(distance, ready.suite)
        tables[REFERENCE_TABLE] = distance_table(distance, ready.suite, drift.steps.tolist())
    trust = None if embedded else reliability.of(ready.judge, [own.response for own in measurements[-1].responses])
    if trust is not None:
        numbers |= trust.metrics()
        tables[reliability.TABLE] = trust.table()
    return Evaluation(
        subject=name,
        baseline=config.baseline or ("its first step" if compared else None),
        measurements=measurements,
        drift=drift,
        axes=shifts,
        metrics=numbers,
        trust=trust,
        tables=tables,
        with_labels=with_labels,
        settings=config if isinstance(ready.subject, Asked) else None,
        reference=config.reference or "",
        distance=distance,
    )


def asked_now(generator: Generator, ready: Opened, salt: str, progress: Progress) -> Measurement:
    """The measurement of a model by the settings of an evaluation."""
    config = ready.config
    return measure(
        generator,
        ready.suite,
        ready.judge,
        config.sampling(salt),
        refusal=config.refusal,
        progress=progress,
        reuse=config.reuse_responses,
    )


def log_evaluation(run: tracking.OpenRun, evaluation: Evaluation) -> EvaluationResult:
    """Log tables, figure and report to a run, and make what MLflow's callers expect of them."""
    from valuedrift_mlflow.evaluation.notes import evaluation_note
    from valuedrift_mlflow.evaluation.report import evaluation_figures, evaluation_html
    from valuedrift_mlflow.report.page import drawn

    result = tracking.log_evaluation(run, evaluation.metrics, evaluation.tables)
    pictures = drawn(evaluation_figures(evaluation))
    tracking.log_text(run, evaluation_html(evaluation, pictures), "report.html")
    tracking.log_figures(run, pictures)
    tracking.describe(run, evaluation_note(run.run_id, evaluation))
    return result


def run_evaluation(ready: Opened, progress: Progress = no_progress) -> tuple[EvaluationResult, Evaluation]:
    """Measure and log what has been opened, in a run of its own (nested where one is active)."""
    subject, config = ready.subject, ready.config
    for side in (subject, ready.baseline):
        check_speech(side, config, local=False)
    parameters = config.parameters()
    if ready.labels:
        parameters["labels"] = ready.labels.uri
    named = subject.named if isinstance(subject, Asked) else subject.uri
    short = tracking.logged_name(named.removeprefix("models:/")) if named.startswith("models:/m-") else ""
    name = f"evaluate · {short or models.short_name(named)}"
    # The suite is recorded first: metrics name the dataset that they were measured on.
    with tracking.run(
        "evaluation", name=name, parameters={"model": named, **parameters}, color=color_of(named)
    ) as active:
        dataset = recorded.log_suite(active, ready.suite)
        evaluation = evaluation_of(ready, named, progress)
        for field, side in (("model", subject), ("baseline", ready.baseline)):
            if isinstance(side, Asked):
                recorded.log_commit(active, field, side.uri)
        model_id = tracking.logged_model_id(subject.uri) if isinstance(subject, Asked) else None
        if model_id is not None:
            tracking.used_model(active, f"models:/{model_id}")
        by_step = evaluation.labelled_steps()
        # What each step comes to with labels is logged at that step, and not at 0 as what the evaluation comes to.
        metrics = {key: value for key, value in evaluation.metrics.items() if not any(key in own for _, own in by_step)}
        tracking.log_metrics(active, metrics, 0, model_id=model_id, dataset=dataset)
        for step, own in by_step:
            tracking.log_metrics(active, own, step, dataset=dataset)
        return log_evaluation(active, evaluation), evaluation


def evaluate(
    model: str | object | None = None,
    baseline: str | None = None,
    *,
    suite: SuiteLike = "",
    responses: str | None = None,
    labels: str | None = None,
    progress: Progress = no_progress,
    **settings: object,
) -> EvaluationResult:
    """Evaluate a model of any URI, or responses that exist already, in a run of its own (nested where one is active).

    Args:
        model: ``embedded:base``, a folder, a hub id, ``models:/name/1``, ``runs:/run_id/path``, ``openai:/model``; or
            one in memory: a pyfunc, a pipeline, (model, tokenizer), a function from a table of prompts to answers.
        baseline: the model to measure drift from, a table of its responses, or the run of an earlier evaluation
            (``runs:/RUN_ID``).
        suite: a suite, its URI, a table or rows of it, or a dataset of ``mlflow.genai``; ``vaes``, or what a table of
            responses names, where it is not given.
        responses: a table of responses (json, jsonl, csv, parquet, ``runs:/RUN_ID/responses.json``), or a run that
            has one (``runs:/RUN_ID``), to judge instead of asking a model.
        labels: people's labels of some of the responses: files, comma separated, as ``review`` writes them, or
            ``runs:/RUN_ID`` of a reviewed run; or ``runs:/RUN_ID`` of a run of ``check_judge``, whose errors are then
            taken off the judge's verdicts (no label of these responses is needed, and the model may be asked anew).
        progress: called with the number of responses generated.
        settings: ``judge``, ``samples``, ``temperature``, ``max_new_tokens``, ``stop``, ``thinking``,
            ``max_thinking_tokens``, ``template_kwargs``, ``generation_batch_size``, ``generation`` (``backend`` and
            ``server``), ``refusal``, ``interval``, ``margin``, ``reference``, ``seed``, ``trust_remote_code`` (code
            that comes with the models may run; nothing else lets it), ``allow_pyfunc_code`` (so may that of MLflow
            models that are more than weights).

    Returns:
        The metrics of ``docs/metrics.md`` (axis shift and drift only with a baseline) and the tables ``responses``,
        ``axis_table``, ``value_drift_table`` and, with labels, ``value_drift_labels`` (or ``value_drift_adjusted``),
        with a reference ``reference_distance``.

    Raises:
        InputError: before any computing, for an unknown model, suite, judge or setting; for responses to another suite
            than the baseline's; for labels of other responses.
    """
    config = Config.checked({**settings, "baseline": baseline})
    asked = model if model is None or isinstance(model, str) else asked_in_memory(model)
    ready = opened(config, asked, suite=suite, responses=responses, labels=labels)
    result, evaluation = run_evaluation(ready, progress)
    reliability.warn(evaluation.trust)
    if evaluation.untold:
        warnings.warn(evaluation.untold, stacklevel=2)
    return result
