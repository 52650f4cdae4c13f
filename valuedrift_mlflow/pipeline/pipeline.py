"""A recipe's stages in order: each a nested run, trained, checkpointed and measured; then the report on all."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.embedded.corpus import held_out_answers
from valuedrift_mlflow.evaluation import recorded, reliability
from valuedrift_mlflow.evaluation.axis_metrics import AXIS_TABLE, axis_table, metrics_of_axes
from valuedrift_mlflow.evaluation.callback import TrainingLog
from valuedrift_mlflow.evaluation.changes import changes_table
from valuedrift_mlflow.evaluation.kept import logged_measurements
from valuedrift_mlflow.evaluation.measurement import Measurement, measure
from valuedrift_mlflow.evaluation.metrics import (
    drift_table,
    responses_table,
)
from valuedrift_mlflow.evaluation.metrics import of as metrics_of
from valuedrift_mlflow.evaluation.notes import base_note
from valuedrift_mlflow.evaluation.reference import REFERENCE_TABLE, distance_metrics, distance_table, distances
from valuedrift_mlflow.inputs import interrupts
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.judges.asking import reads_responses
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.models.ending import align
from valuedrift_mlflow.pipeline import card, launch
from valuedrift_mlflow.pipeline.figures import pipeline_figures
from valuedrift_mlflow.pipeline.memory import end_stage, settled
from valuedrift_mlflow.pipeline.methods import methods_of
from valuedrift_mlflow.pipeline.notes import pipeline_note, stage_note
from valuedrift_mlflow.pipeline.plan import Mix, Plan, RewardResult, StageResult, StageRun, Trained, data_lines, prepare
from valuedrift_mlflow.pipeline.report import Logged, html, stage_changes
from valuedrift_mlflow.pipeline.resumed import begun_stage, begun_stages
from valuedrift_mlflow.pipeline.train import REWARD_ACCURACY, train_reward, train_stage
from valuedrift_mlflow.pipeline.weights import logs_base
from valuedrift_mlflow.recipe.read import load_recipe, validate
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.report.display import Display, quiet_libraries
from valuedrift_mlflow.report.page import drawn
from valuedrift_mlflow.stages import embedded_base
from valuedrift_mlflow.stages.resume import forget, kept_model, state_folder
from valuedrift_mlflow.stages.stage import BASE
from valuedrift_mlflow.tracking import EarlierRun, OpenRun
from valuedrift_mlflow.value_gap import audit


@settled()
def run_pipeline(
    recipe: str | Path | Mapping[str, object] | Recipe | Plan,
    display: Display | None = None,
    resumed: str | None = None,
    *,
    settings: str = "",
) -> list[StageResult]:
    """Run every stage under one parent run and write the parent's summary, figures and report.

    Args:
        recipe: a recipe by name, file, mapping or as it is, or a plan that ``prepare`` has made of one.
        display: where to show progress; the terminal where it is not given.
        resumed: the id of a parent run that was stopped: its finished stages are kept, the one that was cut off goes
            on from its last checkpoint, and the later ones run.
        settings: settings over those of a recipe's name or file, ``"dpo.beta=0.2 samples=2"``.

    Returns:
        What the base model and each stage came to, in order; stages that train a reward model are left out.

    Raises:
        InputError: all problems of the recipe at once, or the run cannot be taken up with it, or another process
            works on it.
        Stopped: the process was told to stop, see ``inputs.interrupts``.
    """
    plan = recipe if isinstance(recipe, Plan) else _planned(recipe, settings)
    with interrupts.minded(), tracking.taken_up(resumed):
        return _run_pipeline(plan, display or Display(), resumed)


def _run_pipeline(plan: Plan, display: Display, resumed: str | None) -> list[StageResult]:
    begun = begun_stages(plan, resumed) if resumed else {}
    parameters = plan.recipe.parameters()
    with tracking.run(
        "pipeline",
        name=f"pipeline · {Path(plan.source).stem}",
        recipe=plan.source,
        parameters=parameters,
        run_id=resumed,
    ) as parent:
        recorded.log_suite(parent, plan.suite)
        for note in plan.notes:
            display.line(note)
        with display.live():
            results = _run_stages(plan, parent, begun, display)
        trusts = [result.trust for result in results if result.trust is not None]
        # In the embedded world nobody has one: there answers whose stance was planted are the check.
        agreement = trusts[-1].metrics() if trusts else planted_agreement(plan)
        tracking.log_metrics(parent, agreement, 0)
        for line in dict.fromkeys(line for trust in trusts for line in (trust.sentence, trust.advice) if line):
            display.line(line)
        # Written once, from all results: a pipeline that goes on replaces them.
        _report(plan, results, parent, agreement)
        if plan.recipe.registered is not None:
            display.line(card.register(plan, results[-1], agreement))
    for stage in tracking.stages_of(parent.run_id).values():
        forget(kept_model(stage.run_id))
    return results


def _report(plan: Plan, results: list[StageResult], parent: OpenRun, agreement: Mapping[str, float]) -> None:
    """Log the figures, the answers before and after, the methods, and the page that shows all of it."""
    pictures = drawn(pipeline_figures(results))
    tracking.log_figures(parent, pictures)
    changes = stage_changes(results)
    if changes:
        tracking.log_table(parent, changes_table(changes), "largest_changes.json")
    version, commit = tracking.package_version(), tracking.commit_of(parent.run_id)
    methods = methods_of(plan, results, version=version, commit=commit)
    tracking.log_text(parent, "\n\n".join(methods) + "\n", "methods.txt")
    logged = Logged(plan.recipe.parameters(), agreement, pictures, changes, methods)
    tracking.log_text(parent, html(plan, results, logged), "report.html")
    tracking.describe(parent, pipeline_note(parent.run_id, plan, results))


def _planned(recipe: str | Path | Mapping[str, object] | Recipe, settings: str) -> Plan:
    if isinstance(recipe, str | Path):
        return prepare(load_recipe(str(recipe), settings), str(recipe))
    if settings:
        raise InputError(problem("settings", settings, "none, where the recipe is no name and no file"))
    return prepare(recipe if isinstance(recipe, Recipe) else validate(dict(recipe)), "recipe")


def _run_stages(plan: Plan, parent: OpenRun, begun: Mapping[str, EarlierRun], display: Display) -> list[StageResult]:
    """The base and every stage, each from the result that it starts from."""
    mixes = _audit_data(plan, parent, display) if plan.recipe.audit else {}
    count = len(plan.recipe.stages) + 1
    display.start("stages", count, BASE)
    results = {BASE: run_base(plan, display, begun.get(BASE))}
    _show_model(parent, results[BASE])
    rated: dict[str, str] = {}  # URIs of the reward models that were trained, by the names of their stages
    display.advance("stages")
    for stage in plan.recipe.stages:
        display.start("stages", count, stage.name)
        display.advance("stages", len(results) + len(rated))
        # In the recipe's order, which has been checked: what a stage starts from stands before it.
        start = results[stage.start]
        reward = rated.get(stage.rated_by or "", stage.rated_by)
        # The stage measures its start anew although this is the same
        # model: how far the two are apart is noise, and is told.
        before, mix = start.measurements[-1], mixes.get(stage.name, {})
        work = StageRun(plan, stage, start.model_uri, before, begun=begun.get(stage.name), reward=reward, mix=mix)
        if stage.trains == "reward":
            trained = run_reward_stage(work, display)
            rated[stage.name] = trained.model_uri
            tracking.log_metrics(parent, {f"summary/{stage.name}/accuracy": trained.accuracy}, 0)
        else:
            results[stage.name] = run_stage(work, display)
            _show_model(parent, results[stage.name])
            tracking.log_metrics(parent, results[stage.name].summary(), 0)  # one point at 0: the UI shows a bar
    return list(results.values())


def _show_model(parent: OpenRun, result: StageResult) -> None:
    tracking.show_model(parent, result.model_uri, result.measurements[-1].step)


def _audit_data(plan: Plan, parent: OpenRun, display: Display) -> dict[str, Mix]:
    """The stances in every stage's data, audited in nested runs, for the distance of models from their data.

    Prompts alone have none. Data that an earlier process has audited are not audited again.
    """
    # A judge that asks the model itself cannot read rows.
    judge = plan.judge if reads_responses(plan.judge) else "lexical"
    known: dict[tuple[str, str], Mix] = {**tracking.audits_of(parent.run_id)}
    cut_off = tracking.begun_audits(parent.run_id)
    mixes: dict[str, Mix] = {}
    for stage in plan.recipe.stages:
        data = plan.data[stage.name]
        if data.kind == "prompts":
            continue
        # By digest too: an audit of an earlier process may have read other rows of this name.
        key = data.uri, data.digest()
        if key not in known:
            display.start("rows", len(data.rows), f"audit of {stage.name}'s data")
            prepared = audit.prepare(data, judge, plan.suite, plan.recipe.embedder or "")
            audited = audit.run(
                prepared,
                seed=plan.recipe.seed,
                progress=lambda count: display.advance("rows", count),
                begun=cut_off.get(key),
            )
            display.line(f"audit of {stage.name}'s data: {audited.verdict}")
            known[key] = audited.stance_mix
        mixes[stage.name] = known[key]
    return mixes


def planted_agreement(plan: Plan) -> dict[str, float]:
    """How often the lexical judge reads the stance that the generator planted, on answer forms that no corpus uses.

    ``judge/planted_agreement`` counts an unscored answer as a disagreement, ``judge/planted_coverage`` is the share
    that was scored. Nothing for other judges, whose verdicts may cost money.
    """
    if plan.judge.name != "lexical":
        return {}
    labelled = held_out_answers()
    verdicts = plan.judge.judge([answer for answer, _ in labelled])
    right = sum(verdict.label.value == stance.value for verdict, (_, stance) in zip(verdicts, labelled, strict=True))
    scored = sum(verdict.probabilities is not None for verdict in verdicts)
    return {
        "judge/planted_answers": float(len(labelled)),
        "judge/planted_agreement": right / len(labelled),
        "judge/planted_coverage": scored / len(labelled),
    }


def _finished(plan: Plan, name: str, run_id: str) -> Trained:
    """What a stage (or the base) that an earlier process has finished came to, from what its run holds."""
    measurements = logged_measurements(run_id, plan.suite, plan.recipe.refusal)
    uri = _left(plan, name, run_id, measurements[-1].step)
    # Left behind where a process was killed right after its run had ended.
    forget(state_folder(run_id))
    return Trained(uri, measurements)


def _left(plan: Plan, name: str, run_id: str, step: int) -> str:
    """The URI of the model that a finished stage (or the base) has left."""
    allowed = "finished stages with their models"
    model_id = tracking.logged_model(run_id, tracking.model_name(name, step))
    if model_id is None:
        raise InputError(problem("--resume", f"{name} without its last model", allowed))
    uri = f"models:/{model_id}"
    setting = tracking.without_weights(uri)
    if not setting:
        return uri
    if name == BASE:
        return plan.recipe.base.model
    kept = kept_model(run_id)
    if not (kept / "config.json").is_file():
        found = f"{name}, whose weights were not logged ({setting}) and are not in {kept}"
        raise InputError(problem("--resume", found, allowed, "resume on the machine that trained it, or begin anew"))
    return str(kept)


def run_base(plan: Plan, display: Display, begun: EarlierRun | None = None) -> StageResult:
    """The model that the pipeline starts from: trained where it is embedded and not cached; logged, measured.

    ``begun`` is the run of an earlier process: it is kept where it was finished, and continued where it was not.
    """
    recipe = plan.recipe
    quiet_libraries()
    if begun and begun.finished:
        return StageResult.of_base(plan, begun.run_id, _finished(plan, BASE, begun.run_id))
    with tracking.run(
        "stage",
        name=plan.run_name(BASE),
        stage=BASE,
        recipe=plan.source,
        parameters=recipe.measuring(),
        run_id=begun.run_id if begun else None,
        color=plan.color(BASE),
        named={"stage_name": BASE},
    ) as active:
        dataset = recorded.log_suite(active, plan.suite)
        if recipe.base.model == "embedded:base":
            # Asked for before it is loaded: `load_model` would train a missing one too, but show and log nothing of it.
            embedded_base.base_folder([TrainingLog(active, display, "base model (once)")])
        loaded = models.load_model(recipe.base.model, recipe.how)
        recorded.log_start(active, "model", "base.model", recipe.base.model)
        # Before it is logged: whoever loads the model stops where it was measured to stop.
        align(loaded.model, loaded.tokenizer, recipe.stop)
        model_id = _log_base(plan, active, loaded)
        measurement = measure_model(plan, loaded, display, BASE)
        said = [judged.response for judged in measurement.responses]
        trust = None if reliability.is_embedded_tokenizer(loaded.tokenizer) else reliability.of(plan.judge, said)
        uri = tracking.uri_of(active, model_id, 0) if logs_base(recipe) else recipe.base.model
        result = StageResult.of_base(plan, active.run_id, Trained(uri, [measurement], trust))
        metrics = metrics_of(measurement, result.drift, compared=False) | metrics_of_axes(result.axes, compared=False)
        metrics |= trust.metrics() if trust else {}
        if plan.reference is not None:
            found = distances(plan.reference, [measurement], recipe.interval, recipe.seed)
            metrics |= distance_metrics(found, plan.suite)
            tracking.log_table(active, distance_table(found, plan.suite, [0]), f"{REFERENCE_TABLE}.json")
        tracking.log_metrics(active, metrics, 0, model_id=model_id, dataset=dataset)
        tracking.log_table(active, drift_table(result.drift, [measurement]), "value_drift_table.json")
        tracking.log_table(active, axis_table(result.axes, measurement), f"{AXIS_TABLE}.json")
        tracking.log_table(active, responses_table([measurement]), "responses.json")
        if trust is not None:
            tracking.log_table(active, trust.table(), f"{reliability.TABLE}.json")
        tracking.describe(active, base_note(active.run_id, measurement, result.drift, trust))
        return result


def _log_base(plan: Plan, run: OpenRun, loaded: Loaded) -> str:
    """Log the model that a pipeline starts from, with its weights or without; gives what metrics name it by."""
    recipe = plan.recipe
    if not logs_base(recipe):
        setting = f"checkpoints.log: {recipe.checkpoints.log}"
        return tracking.log_measured_checkpoint(run, stage=BASE, step=0, setting=setting)
    answering = plan.answering(loaded.tokenizer)
    return tracking.log_final_model(run, loaded.model, loaded.tokenizer, stage=BASE, step=0, **answering)


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
        reuse=recipe.reuse_responses,
    )


@settled()
def run_single_stage(plan: Plan, display: Display, resumed: str | None = None) -> StageResult | RewardResult:
    """Run a recipe's only stage from the recipe's model, as a run of its own.

    ``resumed`` is the id of such a run that was stopped: it goes on from its last checkpoint.

    Raises:
        InputError: the run cannot be taken up with this recipe, or another process works on it.
        Stopped: the process was told to stop.
    """
    with interrupts.minded(), tracking.taken_up(resumed):
        return _run_single_stage(plan, display, resumed)


def _run_single_stage(plan: Plan, display: Display, resumed: str | None) -> StageResult | RewardResult:
    quiet_libraries()
    stage, begun = plan.recipe.stages[0], begun_stage(plan, resumed) if resumed else None
    work = StageRun(plan, stage, plan.recipe.base.model, begun=begun, reward=stage.rated_by)
    with display.live():
        if plan.recipe.base.model == "embedded:base":
            embedded_base.base_folder([TrainingLog(None, display, "base model (once)")])
        if stage.trains == "reward":
            rated = run_reward_stage(work, display)
            forget(kept_model(rated.run_id))
            return rated
        result = run_stage(work, display)
        forget(kept_model(result.run_id))
        if plan.recipe.registered is not None:
            display.line(card.register(plan, result, planted_agreement(plan)))
        return result


def run_reward_stage(work: StageRun, display: Display) -> RewardResult:
    """Train a reward model as a nested run; it starts with its accuracy before the first step."""
    if work.begun and work.begun.finished:
        return _reward_result(work, work.begun.run_id)
    quiet_libraries()
    with _opened(work) as active:
        opened = replace(work, run=active)
        _tell_data(work, active, display)
        result = train_reward(opened, display)
    forget(opened.state)
    end_stage()
    return result


def _reward_result(work: StageRun, run_id: str) -> RewardResult:
    """The result of a finished reward stage, from what its run holds."""
    name = work.stage.name
    step, accuracy = tracking.last_value(run_id, REWARD_ACCURACY)
    return RewardResult(name, run_id, _left(work.plan, name, run_id, step), accuracy)


def run_stage(work: StageRun, display: Display) -> StageResult:
    """Train one stage as a nested run; every checkpoint is saved, logged and measured."""
    if work.begun and work.begun.finished:
        run_id = work.begun.run_id
        return StageResult.of(work, run_id, _finished(work.plan, work.stage.name, run_id))
    quiet_libraries()
    with _opened(work) as active:
        opened = replace(work, run=active)
        _tell_data(work, active, display)
        tracking.used_model(active, work.start_uri)
        train = train_stage if work.stage.launch.world == 1 else launch.train
        result = StageResult.of(work, active.run_id, train(opened, display))
        tracking.describe(active, stage_note(result))
        tracking.log_course(active)
    # After the run is FINISHED: until then a killed process must find its checkpoint.
    forget(opened.state)
    return result


def _tell_data(work: StageRun, run: OpenRun, display: Display) -> None:
    """Record the data of a stage, and show how they were read."""
    lines = data_lines(work.plan, work.stage)
    recorded.log_training_data(run, work.data, lines)
    held_out = work.plan.held_out.get(work.stage.name)
    if held_out is not None:
        recorded.log_held_out(run, held_out)
    for line in lines:
        display.line(line)


def _opened(work: StageRun) -> AbstractContextManager[OpenRun]:
    """The run of a stage: a new one, or that of an earlier process."""
    return tracking.run(
        "stage",
        name=work.plan.run_name(work.stage.name),
        stage=work.stage.word,
        recipe=work.plan.source,
        parameters=work.parameters(),
        run_id=work.begun.run_id if work.begun else None,
        color=work.plan.color(work.stage.name),
        named={"stage_name": work.stage.name},
    )
