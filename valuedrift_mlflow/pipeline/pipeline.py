"""A recipe's stages in order: each a nested run, trained, checkpointed and measured; then the report on all."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from valuedrift_mlflow import judges as judge_registry
from valuedrift_mlflow import models, tracking
from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.data.settings import Data, Kind
from valuedrift_mlflow.evaluation import recorded
from valuedrift_mlflow.evaluation.kept import logged_measurements
from valuedrift_mlflow.evaluation.measurement import Measurement, measure
from valuedrift_mlflow.evaluation.metrics import (
    analyse_measurements,
    drift_table,
    responses_table,
    topics_drifted,
)
from valuedrift_mlflow.evaluation.metrics import of as metrics_of
from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.judges.asking import reads_responses
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.pipeline import launch
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.report.display import Display, quiet_libraries
from valuedrift_mlflow.stages import embedded_base, rewards
from valuedrift_mlflow.stages.job import build_trainer, merged
from valuedrift_mlflow.stages.resume import forget, newest_checkpoint, state_folder, take_up
from valuedrift_mlflow.stages.stage import BASE, Job, Stage
from valuedrift_mlflow.stances import Label
from valuedrift_mlflow.statistics.drift import Drift
from valuedrift_mlflow.statistics.intervals import with_interval
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.tracking import EarlierRun, OpenRun
from valuedrift_mlflow.value_gap import audit

REWARD_ACCURACY = "reward/accuracy"
Read = Callable[[Data, Kind, str], TrainingData]


@dataclass
class StageResult:
    """What one stage came to. ``measurements`` start with the stage's own step 0 and end with its last step."""

    name: str
    algorithm: str
    start: str
    run_id: str
    model_uri: str
    measurements: list[Measurement]
    drift: Drift
    remeasured: float | None = (
        None  # drift between two independent measurements of the model that the stage starts from
    )

    @property
    def unscored_rate(self) -> float:
        """Share of unscored responses at the last step."""
        return self.measurements[-1].rate(Label.UNSCORED)


@dataclass
class RewardResult:
    """What a stage that trains a reward model came to; it answers no prompts, so it has no stances."""

    name: str
    run_id: str
    model_uri: str
    accuracy: float  # on the pairs held out, in [0, 1]


@dataclass
class Plan:
    """A recipe whose suite, judge, models and data have all been found good.

    By the names of their stages, ``anchors`` has the prompts that are held in place, ``reward_models`` the URIs of the
    reward models that were trained so far, and ``audited`` the stances of topics that audits have found in the data.
    """

    recipe: Recipe
    source: str
    suite: Suite
    judge: Judge
    data: dict[str, TrainingData]
    anchors: dict[str, Suite | None]
    notes: list[str] = field(default_factory=list)
    reward_models: dict[str, str] = field(default_factory=dict)
    audited: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)


def prepare(recipe: Recipe, source: str, read: Read = datasets.load) -> Plan:
    """Check everything that can be checked before any computing, and read the data with ``read``.

    Raises:
        InputError: all problems at once.
    """
    recipe, notes = recipe.merged()
    data: dict[str, TrainingData] = {}
    anchors: dict[str, Suite | None] = {}
    names = [stage.name for stage in recipe.stages]
    with collecting() as problems:
        suite = problems.attempt(suites.load, recipe.suite)
        judge = problems.attempt(judge_registry.load, recipe.judge)
        problems.attempt(models.check_trainable, recipe.base.model, "base.model")
        for stage in recipe.stages:
            found = problems.attempt(read, stage.data, stage.kind, stage.algorithm)
            if found is not None:
                data[stage.name] = found
        for stage in recipe.stages:
            if stage.rated_by is not None and stage.rated_by not in names:
                problems.attempt(rewards.check, stage.rated_by, f"{stage.name}.reward")
            if suite and stage.name in data:
                anchors[stage.name] = problems.attempt(stage.load_anchors, data[stage.name].stance_mix, [suite])
            problems.attempt(launch.check, stage)
    assert suite is not None and judge is not None  # what could not be had has been raised
    return Plan(recipe, source, suite, judge, data, anchors, notes)


def prepare_stage(recipe: Recipe, source: str, name: str) -> tuple[Plan, Stage]:
    """The plan of a recipe that ``prepare`` has found good, with the data of one stage, and this stage."""
    stage = next(stage for stage in recipe.stages if stage.name == name)
    suite, data = suites.load(recipe.suite), datasets.load(stage.data, stage.kind, stage.algorithm)
    anchors = {name: stage.load_anchors(data.stance_mix, [suite])}
    return Plan(recipe, source, suite, judge_registry.load(recipe.judge), {name: data}, anchors), stage


def run_pipeline(plan: Plan, display: Display, resumed: str | None = None) -> list[StageResult]:
    """Run every stage under one parent run and write the parent's summary, figures and report.

    ``resumed`` is the id of a parent run that was stopped: its finished stages are kept, the one that was cut off goes
    on from its last checkpoint, and the later ones run.

    Raises:
        InputError: the run cannot be taken up with this recipe.
    """
    from valuedrift_mlflow.pipeline.report import html, pipeline_figures

    recipe = plan.recipe
    results: list[StageResult] = []
    begun = _begun_stages(plan, resumed) if resumed else {}
    with tracking.run(
        "pipeline",
        name=f"pipeline · {Path(plan.source).stem}",
        recipe=plan.source,
        parameters=recipe.parameters(),
        run_id=resumed,
    ) as parent:
        recorded.log_suite(parent, plan.suite)
        for note in plan.notes:
            display.line(note)
        with display.live():
            if recipe.audit:
                _audit_data(plan, parent.run_id, display)
            display.start("stages", len(recipe.stages) + 1, BASE)
            results.append(run_base(plan, display, begun.get(BASE)))
            display.advance("stages")
            for stage in recipe.stages:
                display.start("stages", len(recipe.stages) + 1, stage.name)
                display.advance("stages", len(results) + len(plan.reward_models))
                start = next(result for result in results if result.name == stage.start)
                if stage.trains == "reward":
                    trained = run_reward_stage(plan, stage, start.model_uri, display, begun.get(stage.name))
                    tracking.log_metrics(parent, {f"summary/{stage.name}/accuracy": trained.accuracy}, 0)
                    continue
                before = start.measurements[-1]
                results.append(run_stage(plan, stage, start.model_uri, before, display, begun.get(stage.name)))
                summary = {
                    f"summary/{stage.name}/drift_overall": float(results[-1].drift.overall[-1]),
                    f"summary/{stage.name}/topics_drifted": float(topics_drifted(results[-1].drift)),
                }
                if results[-1].remeasured is not None:
                    summary[f"summary/{stage.name}/remeasurement_difference"] = results[-1].remeasured
                tracking.log_metrics(parent, summary, 0)  # one point at 0: the UI shows a bar
        tracking.log_figures(parent, pipeline_figures(results))
        tracking.log_text(parent, html(plan, results), "html")
    return results


def _audit_data(plan: Plan, parent: str, display: Display) -> None:
    """Audit every training set in a nested run, for the distance of models from data that do not name their stances.

    Prompts alone have none. Data that an earlier process has audited are not audited again.
    """
    judge = plan.judge if reads_responses(plan.judge) else "lexical"
    done = tracking.audits_of(parent)
    mixes: dict[str, dict[str, tuple[float, ...]]] = {}
    for stage in plan.recipe.stages:
        data = plan.data[stage.name]
        key = stage.data.model_dump_json()
        if data.kind == "prompts":
            continue
        if key not in mixes:
            mix = done.get((data.uri, data.format))
            if mix is None:
                display.start("rows", len(data.rows), f"audit of {stage.name}'s data")
                audited = audit.run(
                    audit.prepare(data, judge, plan.suite),
                    seed=plan.recipe.seed,
                    progress=lambda count: display.advance("rows", count),
                )
                display.line(f"audit of {stage.name}'s data: {audited.verdict}")
                mix = audited.stance_mix
            mixes[key] = mix
        plan.audited[stage.name] = mixes[key]


def _begun_stages(plan: Plan, parent: str) -> dict[str, EarlierRun]:
    """The stage runs of a stopped pipeline that can be taken up with this plan, by stage."""
    _stopped(plan, parent, "pipeline")
    begun = tracking.stages_of(parent)
    for name, run in begun.items():
        if name in plan.data:
            tracking.check_data(run, name, plan.data[name].uri, plan.data[name].digest())
    return begun


def _stopped(plan: Plan, run_id: str, role: Literal["pipeline", "stage"]) -> EarlierRun:
    settings = plan.recipe.parameters()
    return tracking.stopped_run(run_id, role, settings, keys=Recipe.model_fields, suite=plan.suite.hash)


def _finished(plan: Plan, stage: Stage | None, run: EarlierRun, before: Measurement | None) -> StageResult:
    """The result of a stage (None: the base) that an earlier process has finished, from what its run holds."""
    name = stage.name if stage else BASE
    recipe, measurements = plan.recipe, logged_measurements(run.run_id, plan.suite, plan.recipe.refusal)
    model_id = tracking.logged_model(run.run_id, tracking.model_name(name, measurements[-1].step))
    if model_id is None:
        raise InputError(problem("--resume", f"{name} without its last model", "finished stages with their models"))
    forget(state_folder(run.run_id))
    return StageResult(
        name=name,
        algorithm=stage.algorithm if stage else BASE,
        start=stage.start if stage else "",
        run_id=run.run_id,
        model_uri=f"models:/{model_id}",
        measurements=measurements,
        drift=analyse_measurements(measurements, recipe.seed, recipe.drift_time),
        remeasured=_remeasured(before, measurements, recipe.seed),
    )


def _remeasured(before: Measurement | None, measurements: Sequence[Measurement], seed: int) -> float | None:
    return None if before is None else float(analyse_measurements([before, measurements[0]], seed).overall[-1])


def run_base(plan: Plan, display: Display, begun: EarlierRun | None = None) -> StageResult:
    """The model that the pipeline starts from: trained where it is embedded and not cached; logged, measured.

    ``begun`` is the run of an earlier process: it is kept where it was finished, and continued where it was not.
    """
    from valuedrift_mlflow.evaluation.callback import TrainingLog

    recipe = plan.recipe
    quiet_libraries()
    if begun and begun.finished:
        return _finished(plan, None, begun, None)
    with tracking.run(
        "stage",
        name=run_name(BASE, recipe.base.model),
        stage=BASE,
        recipe=plan.source,
        parameters={"base.model": recipe.base.model},
        run_id=begun.run_id if begun else None,
    ) as active:
        dataset = recorded.log_suite(active, plan.suite)
        if recipe.base.model == "embedded:base":
            embedded_base.base_folder([TrainingLog(active, display, "base model (once)")])
        loaded = models.load(recipe.base.model)
        model_id = tracking.log_final_model(
            active, loaded.model, loaded.tokenizer, stage=BASE, step=0, **answering(recipe)
        )
        measurement = measure_model(plan, loaded, display, BASE)
        drift = analyse_measurements([measurement], recipe.seed)
        metrics = metrics_of(measurement, drift, compared=False)
        tracking.log_metrics(active, metrics, 0, model_id=model_id, dataset=dataset)
        tracking.log_table(active, drift_table(drift, [measurement]), "value_drift_table.json")
        tracking.log_table(active, responses_table([measurement]), "responses.json")
        return StageResult(BASE, BASE, "", active.run_id, f"models:/{model_id}", [measurement], drift)


def measure_model(plan: Plan, loaded: Loaded, display: Display, salt: str) -> Measurement:
    """One measurement of a loaded model by the recipe's settings."""
    recipe = plan.recipe
    display.start("responses", recipe.samples * len(plan.suite.items), salt)
    return measure(
        loaded.generator(),
        plan.suite,
        plan.judge,
        recipe.sampling(salt),
        refusal=recipe.refusal,
        progress=lambda count: display.advance("responses", count),
    )


def answering(recipe: Recipe) -> dict[str, Any]:
    """How a logged model answers where its caller does not say."""
    return {"max_new_tokens": recipe.max_new_tokens, "temperature": recipe.temperature}


def run_single_stage(plan: Plan, display: Display, resumed: str | None = None) -> StageResult | RewardResult:
    """Run a recipe's only stage from the recipe's model, as a run of its own.

    ``resumed`` is the id of such a run that was stopped: it goes on from its last checkpoint.

    Raises:
        InputError: the run cannot be taken up with this recipe.
    """
    from valuedrift_mlflow.evaluation.callback import TrainingLog

    quiet_libraries()
    begun = _stopped(plan, resumed, "stage") if resumed else None
    if begun:
        name = plan.recipe.stages[0].name
        tracking.check_data(begun, name, plan.data[name].uri, plan.data[name].digest())
    if plan.recipe.base.model == "embedded:base":
        with display.live():
            embedded_base.base_folder([TrainingLog(None, display, "base model (once)")])
    stage, start_uri = plan.recipe.stages[0], plan.recipe.base.model
    with display.live():
        if stage.trains == "reward":
            return run_reward_stage(plan, stage, start_uri, display, begun)
        return run_stage(plan, stage, start_uri, None, display, begun)


def run_reward_stage(
    plan: Plan, stage: Stage, start_uri: str, display: Display, begun: EarlierRun | None = None
) -> RewardResult:
    """Train a reward model as a nested run: its accuracy before and after, the classifier as checkpoint and model.

    ``begun`` is the run of an earlier process: it is kept where it was finished, and where it was not it goes on from
    its last checkpoint.
    """
    from valuedrift_mlflow.evaluation.callback import KeepCheckpoint, TrainingLog
    from valuedrift_mlflow.stages.reward_trainer import held_out_accuracy

    if begun and begun.finished:
        return _reward_result(plan, stage, begun.run_id)
    recipe, data = plan.recipe, plan.data[stage.name]
    quiet_libraries()
    with (
        tracking.run(
            "stage",
            name=run_name(stage.name, recipe.base.model),
            stage=stage.algorithm,
            recipe=plan.source,
            parameters=stage.parameters() if tracking.is_nested() else recipe.parameters(),
            run_id=begun.run_id if begun else None,
        ) as active,
        tempfile.TemporaryDirectory(prefix="valuedrift-") as scratch,
    ):
        run_id = active.run_id
        state = state_folder(run_id)
        recorded.log_training_data(active, data)
        loaded = load_start(stage, start_uri)
        every = stage.every(stage.steps(len(data.rows)))
        callbacks = [TrainingLog(active, display, stage.name), KeepCheckpoint(every)]
        seed = recipe.seed if stage.seed is None else stage.seed
        trainer: Any = build_trainer(Job(stage, loaded.model, loaded.tokenizer, data, state, seed, callbacks))
        checkpoint = newest_checkpoint(state)
        if checkpoint is None:
            tracking.log_metrics(active, {REWARD_ACCURACY: held_out_accuracy(trainer)}, 0)
        take_up(trainer, checkpoint)
        step, accuracy = trainer.state.global_step, held_out_accuracy(trainer)
        folder = Path(scratch) / "classifier"
        merged(trainer.model).save_pretrained(folder)  # whole: what is under its adapters is another kind of model
        loaded.tokenizer.save_pretrained(folder)
        model_id = tracking.log_checkpoint(active, folder, stage=stage.name, step=step)
        tracking.log_metrics(active, {REWARD_ACCURACY: accuracy}, step, model_id=model_id)
        display.line(f"{stage.name} step {step}: accuracy {accuracy:.3f} on held-out pairs")
    forget(state)
    del trainer, loaded, callbacks
    free_memory()
    return _reward_result(plan, stage, run_id)


def _reward_result(plan: Plan, stage: Stage, run_id: str) -> RewardResult:
    """The result of a finished reward stage, from what its run holds."""
    step, accuracy = tracking.last_value(run_id, REWARD_ACCURACY)
    model_id = tracking.logged_model(run_id, tracking.model_name(stage.name, step))
    if model_id is None:
        found = f"stage {stage.name} without its model"
        raise InputError(problem("--resume", found, "finished stages with their models"))
    plan.reward_models[stage.name] = f"models:/{model_id}"
    return RewardResult(stage.name, run_id, f"models:/{model_id}", accuracy)


def load_start(stage: Stage, start_uri: str) -> Loaded:
    """The model that a stage starts from, ready to be trained."""
    if stage.launch.sharded:
        return launch.load_sharded(stage, start_uri)
    loaded = models.load(start_uri)
    loaded.model.config.name_or_path = start_uri  # what an adapter's config names as its base
    if not stage.lora.rank:
        loaded.model.float()  # small updates of weights in 16 bits would be rounded away
    return loaded


def run_stage(
    plan: Plan,
    stage: Stage,
    start_uri: str,
    before: Measurement | None,
    display: Display,
    begun: EarlierRun | None = None,
    *,
    remeasure: bool = True,
) -> StageResult:
    """Train one stage as a nested run; every checkpoint is saved, logged and measured.

    ``before`` is an earlier measurement of the model that the stage starts from, where there is one; without
    ``remeasure`` it is also the stage's own measurement of its start. ``begun`` is the
    run of an earlier process: it is kept where it was finished, and where it was not it goes on from its last
    checkpoint.
    """
    if begun and begun.finished:
        return _finished(plan, stage, begun, before if remeasure else None)
    recipe = plan.recipe
    quiet_libraries()
    # A stage on its own has no parent run that records the recipe's other settings.
    parameters = stage.parameters() if tracking.is_nested() else recipe.parameters()
    with tracking.run(
        "stage",
        name=run_name(stage.name, recipe.base.model),
        stage=stage.algorithm,
        recipe=plan.source,
        parameters=parameters,
        run_id=begun.run_id if begun else None,
    ) as active:
        run_id = active.run_id
        state = state_folder(run_id)
        recorded.log_training_data(active, plan.data[stage.name])
        train = train_stage if stage.launch.processes == 1 else launch.train
        trained = train(plan, stage, start_uri, active, state, display, None if remeasure else before)
        result = StageResult(
            name=stage.name,
            algorithm=stage.algorithm,
            start=stage.start,
            run_id=run_id,
            model_uri=trained.model_uri,
            measurements=trained.measurements,
            drift=analyse_measurements(trained.measurements, recipe.seed, recipe.drift_time),
            remeasured=_remeasured(before if remeasure else None, trained.measurements, recipe.seed),
        )
    forget(state)
    return result


@dataclass
class Trained:
    """A trained stage: its last LoggedModel, and the measurements from its step 0 to its last (first process only)."""

    model_uri: str
    measurements: list[Measurement]


def train_stage(
    plan: Plan, stage: Stage, start_uri: str, run: OpenRun, state: Path, display: Display, given: Measurement | None
) -> Trained:
    """Train and measure a stage whose run is open, from the newest checkpoint in the folder ``state`` if it has one.

    ``given`` stands for the stage's own measurement of its start. In a training of several processes all call this.
    """
    trained = _train(plan, stage, start_uri, run, state, display, given)
    free_memory()
    return trained


def _train(
    plan: Plan, stage: Stage, start_uri: str, run: OpenRun, state: Path, display: Display, given: Measurement | None
) -> Trained:
    from valuedrift_mlflow.evaluation.callback import KeepCheckpoint, TrainingLog, ValueDriftCallback

    recipe, data = plan.recipe, plan.data[stage.name]
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="valuedrift-") as scratch:
        loaded = load_start(stage, start_uri)
        reward = None
        if stage.rated_by is not None:
            reward = rewards.load(plan.reward_models.get(stage.rated_by, stage.rated_by), f"{stage.name}.reward")
        saved: list[str] = []

        def save(model: Any, tokenizer: Any, step: int, last: bool) -> str:
            folder = Path(scratch) / f"step-{step:06d}"
            model.save_pretrained(folder, is_main_process=launch.is_first())  # split weights need all processes
            if not launch.is_first():
                return ""
            tokenizer.save_pretrained(folder)
            stage.save_extra(trainer, folder)
            if last:
                tracking.log_folder(run, folder, tracking.checkpoint_path(step))
            if last and stage.launch.sharded:
                launch.make_whole(stage, start_uri, folder)
                model_id = tracking.log_final_folder(run, folder, stage=stage.name, step=step, **answering(recipe))
            elif last:
                whole = merged(model, copied=True)
                model_id = tracking.log_final_model(
                    run, whole, tokenizer, stage=stage.name, step=step, **answering(recipe)
                )
            else:
                model_id = tracking.log_checkpoint(run, folder, stage=stage.name, step=step)
            shutil.rmtree(folder)
            saved.append(model_id)
            return model_id

        seed = recipe.seed if stage.seed is None else stage.seed
        every = stage.every(stage.steps(len(data.rows)))
        callback = ValueDriftCallback(
            plan.suite,
            plan.judge,
            every=every,
            samples=recipe.samples,
            checkpoint_samples=recipe.checkpoint_samples,
            temperature=recipe.temperature,
            max_new_tokens=recipe.max_new_tokens,
            batch_size=recipe.generation_batch_size,
            refusal=recipe.refusal,
            drift_time=recipe.drift_time,
            kl=recipe.reference_kl and not stage.launch.sharded,
            seed=recipe.seed,
            stage=stage.name,
            training_mix=data.stance_mix or plan.audited.get(stage.name, {}),
            save_checkpoint=save,
            start=given,
            run=run,
            display=display,
        )
        callbacks = [TrainingLog(run, display, stage.name), callback]
        if not stage.launch.sharded:  # the trainer cannot yet restore an optimizer that is split
            callbacks.append(KeepCheckpoint(every))
        anchors = plan.anchors[stage.name]
        job = Job(stage, loaded.model, loaded.tokenizer, data, state, seed, callbacks, reward, anchors)
        trainer: Any = build_trainer(job)
        launch.check_processes(stage, trainer)
        take_up(trainer, newest_checkpoint(state))
        launch.check_equal_weights(trainer.model)
        return Trained(f"models:/{saved[-1]}" if saved else "", callback.measurements)


def run_name(stage: str, model: str) -> str:
    """``STAGE · MODEL``."""
    return f"{stage} · {models.short_name(model)}"


def free_memory() -> None:
    """Give a finished stage's memory back before the next one loads its model."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def summary_rows(results: Sequence[StageResult]) -> list[list[str]]:
    """The table at the end: stage, overall drift with its interval, topics that moved, stance mix, unscored rate."""
    rows = []
    for result in results:
        drift = result.drift
        moved = topics_drifted(drift)
        mix = " / ".join(f"{value:.2f}" for value in drift.overall_probability[-1])
        trained = result.name != BASE
        rows.append(
            [
                result.name,
                with_interval(drift.overall[-1], drift.overall_ci[-1]) if trained else "",
                f"{moved} of {len(drift.topics)}" if trained else "",
                mix,
                f"{result.unscored_rate:.3f}",
            ]
        )
    return rows


SUMMARY_COLUMNS = ("stage", "drift [95 % interval]", "topics moved", "support / neutral / oppose", "unscored")
