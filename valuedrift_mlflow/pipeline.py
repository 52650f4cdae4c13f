"""A recipe's stages in order: each a nested run, trained, checkpointed and measured; then the report on all."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valuedrift_mlflow import datasets, models, tracking
from valuedrift_mlflow import judges as judge_registry
from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.datasets import TrainingData
from valuedrift_mlflow.display import Display, quiet_libraries
from valuedrift_mlflow.drift import Drift, with_interval
from valuedrift_mlflow.errors import InputError
from valuedrift_mlflow.generation import Sampling
from valuedrift_mlflow.judges import Judge
from valuedrift_mlflow.judges.likelihood import LikelihoodJudge
from valuedrift_mlflow.measurement import (
    Measurement,
    analyse_measurements,
    drift_table,
    measure,
    responses_table,
    stance_metrics,
    topics_drifted,
)
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.recipe import BASE, AnyStage, Recipe, stage_parameters
from valuedrift_mlflow.stages import KINDS, Job, build_trainer, checkpoint_every, merged, total_steps
from valuedrift_mlflow.stances import Label
from valuedrift_mlflow.suite import Suite


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
class Plan:
    """A recipe whose suite, judge, models and data have all been found good."""

    recipe: Recipe
    source: str
    suite: Suite
    judge: Judge | LikelihoodJudge
    data: dict[str, TrainingData]
    notes: list[str] = field(default_factory=list)


def prepare(recipe: Recipe, source: str) -> Plan:
    """Check everything that can be checked before any computing, and read the data.

    Raises:
        InputError: all problems at once.
    """
    recipe, notes = recipe.merged()
    problems: list[str] = []

    def attempt(function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except InputError as error:
            problems.extend(error.problems)
            return None

    suite = attempt(suites.load, recipe.suite)
    attempt(judge_registry.check, recipe.judge)
    attempt(models.check_trainable, recipe.base.model, "base.model")
    data = {stage.name: attempt(datasets.load, stage.data, KINDS[stage.algorithm]) for stage in recipe.stages}
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return Plan(recipe, source, suite, judge_registry.load(recipe.judge), data, notes)


def run_pipeline(plan: Plan, display: Display) -> list[StageResult]:
    """Run every stage under one parent run and write the parent's summary, figures and report."""
    from valuedrift_mlflow import report

    recipe = plan.recipe
    results: list[StageResult] = []
    with tracking.run(
        "pipeline", name=f"pipeline · {Path(plan.source).stem}", recipe=plan.source, parameters=recipe.parameters()
    ) as parent:
        tracking.log_suite(plan.suite)
        for note in plan.notes:
            display.line(note)
        with display.live():
            display.start("stages", len(recipe.stages) + 1, BASE)
            results.append(run_base(plan, display))
            display.advance("stages")
            for stage in recipe.stages:
                display.start("stages", len(recipe.stages) + 1, stage.name)
                display.advance("stages", len(results))
                start = next(result for result in results if result.name == stage.start)
                results.append(run_stage(plan, stage, start.model_uri, start.measurements[-1], display))
                summary = {
                    f"summary/{stage.name}/drift_overall": float(results[-1].drift.overall[-1]),
                    f"summary/{stage.name}/topics_drifted": float(topics_drifted(results[-1].drift)),
                }
                if results[-1].remeasured is not None:
                    summary[f"summary/{stage.name}/remeasurement_difference"] = results[-1].remeasured
                tracking.log_metrics(parent.info.run_id, summary, 0)  # one point at 0: the UI shows a bar
        tracking.log_figures(parent.info.run_id, report.pipeline_figures(results))
        tracking.log_text(parent.info.run_id, report.html(plan, results), "report.html")
    return results


def run_base(plan: Plan, display: Display) -> StageResult:
    """The model that the pipeline starts from: trained where it is embedded and not cached; logged, measured."""
    from valuedrift_mlflow.callback import TrainingLog

    recipe = plan.recipe
    quiet_libraries()
    with tracking.run(
        "stage",
        name=run_name(BASE, recipe.base.model),
        stage=BASE,
        recipe=plan.source,
        parameters={"base.model": recipe.base.model},
    ) as active:
        dataset = tracking.log_suite(plan.suite)
        if recipe.base.model == "embedded:base":
            models.base_folder([TrainingLog(active.info.run_id, display, "base model (once)")])
        loaded = models.load(recipe.base.model)
        model_id = tracking.log_final_model(loaded.model, loaded.tokenizer, stage=BASE, step=0, **answering(recipe))
        measurement = measure_model(plan, loaded, display, BASE)
        drift = analyse_measurements([measurement], recipe.seed)
        metrics = stance_metrics(drift) | measurement.qualities() | measurement.costs()
        tracking.log_metrics(active.info.run_id, metrics, 0, model_id=model_id, dataset=dataset)
        tracking.log_table(active.info.run_id, drift_table(drift, [measurement]), "value_drift_table.json")
        tracking.log_table(active.info.run_id, responses_table([measurement]), "responses.json")
        return StageResult(BASE, BASE, "", active.info.run_id, f"models:/{model_id}", [measurement], drift)


def measure_model(plan: Plan, loaded: Loaded, display: Display, salt: str) -> Measurement:
    """One measurement of a loaded model by the recipe's settings."""
    recipe = plan.recipe
    display.start("responses", recipe.samples * len(plan.suite.items), salt)
    return measure(
        loaded.generator(),
        plan.suite,
        plan.judge,
        sampling(recipe, salt),
        refusal=recipe.refusal,
        progress=lambda count: display.advance("responses", count),
    )


def sampling(recipe: Recipe, salt: str) -> Sampling:
    """The recipe's sampling settings."""
    return Sampling(
        recipe.samples, recipe.temperature, recipe.max_new_tokens, recipe.generation_batch_size, recipe.seed, salt
    )


def answering(recipe: Recipe) -> dict[str, Any]:
    """How a logged model answers where its caller does not say."""
    return {"max_new_tokens": recipe.max_new_tokens, "temperature": recipe.temperature}


def run_single_stage(plan: Plan, display: Display) -> StageResult:
    """Run a recipe's only stage from the recipe's model, as a run of its own."""
    from valuedrift_mlflow.callback import TrainingLog

    quiet_libraries()
    if plan.recipe.base.model == "embedded:base":
        with display.live():
            models.base_folder([TrainingLog(None, display, "base model (once)")])
    with display.live():
        return run_stage(plan, plan.recipe.stages[0], plan.recipe.base.model, None, display)


def run_stage(plan: Plan, stage: AnyStage, start_uri: str, before: Measurement | None, display: Display) -> StageResult:
    """Train one stage as a nested run; every checkpoint is saved, logged and measured.

    ``before`` is an earlier measurement of the model that the stage starts from, where there is one.
    """
    from valuedrift_mlflow.callback import TrainingLog, ValueDriftCallback

    recipe, data = plan.recipe, plan.data[stage.name]
    quiet_libraries()
    name = run_name(stage.name, recipe.base.model)
    with (
        tracking.run(
            "stage", name=name, stage=stage.algorithm, recipe=plan.source, parameters=stage_parameters(stage)
        ) as active,
        tempfile.TemporaryDirectory(prefix="valuedrift-") as scratch,
    ):
        run_id = active.info.run_id
        tracking.log_training_data(data)
        loaded = models.load(start_uri)
        loaded.model.config.name_or_path = start_uri  # what an adapter's config names as its base
        if not stage.lora.rank:
            loaded.model.float()  # small updates of weights in 16 bits would be rounded away

        saved: list[str] = []

        def save(model: Any, tokenizer: Any, step: int, last: bool) -> str:
            folder = Path(scratch) / f"step-{step:06d}"
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            if last:
                tracking.log_folder(folder, tracking.checkpoint_path(step))
                whole = merged(model, copied=True)
                model_id = tracking.log_final_model(whole, tokenizer, stage=stage.name, step=step, **answering(recipe))
            else:
                model_id = tracking.log_checkpoint(folder, run_id=run_id, stage=stage.name, step=step)
            shutil.rmtree(folder)
            saved.append(model_id)
            return model_id

        seed = recipe.seed if stage.seed is None else stage.seed
        callback = ValueDriftCallback(
            plan.suite,
            plan.judge,
            every=checkpoint_every(stage, total_steps(stage, len(data.rows))),
            samples=recipe.samples,
            checkpoint_samples=recipe.checkpoint_samples,
            temperature=recipe.temperature,
            max_new_tokens=recipe.max_new_tokens,
            batch_size=recipe.generation_batch_size,
            refusal=recipe.refusal,
            drift_time=recipe.drift_time,
            kl=recipe.reference_kl,
            seed=recipe.seed,
            stage=stage.name,
            training_mix=data.stance_mix,
            save_checkpoint=save,
            display=display,
        )
        callbacks = [TrainingLog(run_id, display, stage.name), callback]
        trainer = build_trainer(Job(stage, loaded.model, loaded.tokenizer, data, Path(scratch), seed, callbacks))
        trainer.train()
        again = analyse_measurements([before, callback.measurements[0]], recipe.seed).overall[-1] if before else None
        result = StageResult(
            name=stage.name,
            algorithm=stage.algorithm,
            start=stage.start,
            run_id=run_id,
            model_uri=f"models:/{saved[-1]}",
            measurements=callback.measurements,
            drift=callback.drift(),
            remeasured=None if again is None else float(again),
        )
    del trainer, loaded, callback, callbacks
    free_memory()
    return result


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
