"""Runs that were stopped, held against a plan: what can be taken up with it, and from where it would go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation import recorded
from valuedrift_mlflow.pipeline.design import Ablation
from valuedrift_mlflow.pipeline.plan import Plan
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.stages.resume import newest_checkpoint, state_folder
from valuedrift_mlflow.stages.stage import BASE, Stage
from valuedrift_mlflow.tracking import EarlierRun


def begun_stages(plan: Plan, parent: str) -> dict[str, EarlierRun]:
    """The stage runs of a stopped pipeline that can be taken up with this plan, by stage.

    Raises:
        InputError: it cannot be taken up: settings, rows or models are not those that it began with.
    """
    _stopped(plan, parent, "pipeline")
    begun = tracking.stages_of(parent)
    if BASE in begun:
        recorded.check_start(begun[BASE].run_id, "model", "base.model", plan.recipe.base.model)
    names = {stage.name for stage in plan.recipe.stages}
    for stage in plan.recipe.stages:
        if stage.name in begun:
            # A reward that is a stage of the recipe is what that stage has logged.
            _check_stage(begun[stage.name], plan, stage, None if stage.rated_by in names else stage.rated_by)
    return begun


def begun_stage(plan: Plan, run_id: str) -> EarlierRun:
    """The run of a single stage that was stopped, if it can be taken up with this plan.

    Raises:
        InputError: it cannot.
    """
    begun, [stage] = _stopped(plan, run_id, "stage"), plan.recipe.stages
    recorded.check_start(run_id, "model", "base.model", plan.recipe.base.model)
    _check_stage(begun, plan, stage, stage.rated_by)
    return begun


def begun_trainings(ablation: Ablation, parent: str) -> dict[str, EarlierRun]:
    """The runs of a stopped ablation that can be taken up with this one, by their trainings.

    Raises:
        InputError: it cannot.
    """
    origin = ablation.cells[0].training.origin
    suite = origin.suite.hash
    tracking.stopped_run(parent, "ablation", recorded_of(ablation), keys=Recipe.model_fields, suite=suite)
    # Data are compared below, with what each training's own run has recorded; the parent's run has no digests.
    begun = tracking.stages_of(parent)
    if len({cell.training.origin.recipe.model_dump_json(exclude={"stages"}) for cell in ablation.cells}) > 1:
        begun.pop(BASE, None)  # it is measured in several ways
    if BASE in begun:
        recorded.check_start(begun[BASE].run_id, "model", "base.model", origin.recipe.base.model)
    for training in ablation.trainings():
        if training.name in begun:
            rated = None if training.reward else training.stage.rated_by
            _check_stage(begun[training.name], training.plan, training.stage, rated)
    return begun


def recorded_of(ablation: Ablation) -> dict[str, str]:
    """What an ablation's run records: the recipe, and with it the design, so that it is taken up with the same axes."""
    design = ablation.design
    return ablation.recipe.parameters() | {
        "design": ablation.design_source,
        "axes": json.dumps(design.axes),
        **({"choices": json.dumps(design.choices)} if design.choices else {}),
        **({"chains": json.dumps(design.chains)} if design.chains else {}),
        "seeds": json.dumps(design.seeds),
    }


def _stopped(plan: Plan, run_id: str, role: Literal["pipeline", "stage"]) -> EarlierRun:
    settings = plan.recipe.parameters()
    return tracking.stopped_run(run_id, role, settings, keys=Recipe.model_fields, suite=plan.suite.hash)


def _check_stage(run: EarlierRun, plan: Plan, stage: Stage, rated_by: str | None) -> None:
    """Refuse rows and a reward that are not those that a stage began with.

    Raises:
        InputError: they are others.
    """
    data = plan.data[stage.name]
    if data.rows:  # a dry run reads none of the hub
        tracking.check_data(run, stage.name, data.uri, data.digest())
    if rated_by is not None:
        recorded.check_start(run.run_id, "reward", f"{stage.name}.reward", rated_by)


def lines_of(run_id: str, begun: Mapping[str, EarlierRun]) -> list[str]:
    """What would become of a run that is taken up, and of its stages."""
    lines = [f"goes on in run {run_id}; stages that are not named begin"]
    for name, run in begun.items():
        checkpoint = None if run.finished else newest_checkpoint(state_folder(run.run_id))
        goes_on = f"goes on from {checkpoint.name}" if checkpoint else "begins anew"
        lines.append(f"  {name} (run {run.run_id}): {'finished, kept' if run.finished else goes_on}")
    return lines
