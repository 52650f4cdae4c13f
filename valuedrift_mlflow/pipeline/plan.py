"""What a pipeline will do, found good before anything is computed, and what it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from valuedrift_mlflow import judges, models, suite, tracking
from valuedrift_mlflow.data import datasets, shown
from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.evaluation.axis_metrics import axis_shifts
from valuedrift_mlflow.evaluation.certainty import measured_line, unscored_line
from valuedrift_mlflow.evaluation.measurement import Measurement
from valuedrift_mlflow.evaluation.metrics import analyse_measurements, topics_drifted, topics_undecided
from valuedrift_mlflow.evaluation.nothing_scored import nothing_scored
from valuedrift_mlflow.evaluation.reference import Reference, distances, load_reference, sentence
from valuedrift_mlflow.evaluation.reliability import Reliability
from valuedrift_mlflow.inputs.errors import collecting, problem
from valuedrift_mlflow.inputs.modules import only_looked_up
from valuedrift_mlflow.inputs.strict import flat
from valuedrift_mlflow.judges.auto import resolved
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.models.encoder import check_embedder
from valuedrift_mlflow.models.ending import stop_token
from valuedrift_mlflow.models.files import check_template, tokenizer_of
from valuedrift_mlflow.pipeline import processes, templates
from valuedrift_mlflow.pipeline.nodes import check_nodes
from valuedrift_mlflow.recipe.recipe import Recipe, check_logged, check_precision
from valuedrift_mlflow.report.plots import COLORS, PALETTE, color_of
from valuedrift_mlflow.stages import rewards
from valuedrift_mlflow.stages.resume import state_folder
from valuedrift_mlflow.stages.stage import BASE, Stage
from valuedrift_mlflow.stages.trainer_settings import check_adapters, check_trainer
from valuedrift_mlflow.stances import Label, Stance
from valuedrift_mlflow.statistics.axes import AxisShifts
from valuedrift_mlflow.statistics.drift import Drift
from valuedrift_mlflow.statistics.intervals import with_interval
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.tracking import Answering, EarlierRun, OpenRun

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# How data are read is handed in: a dry run's own way leaves data on the hub alone.
Read = Callable[[Stage, str], TrainingData]  # of a stage and the URI of the model that the recipe starts from
Mix = Mapping[str, Sequence[float]]  # of topics, the (support, neutral, oppose) shares of their answers


@dataclass(frozen=True)
class Plan:
    """A recipe whose suite, judge, models and data have all been found good and opened, once.

    By the names of their stages, ``data`` has the rows and ``anchors`` the prompts that are held in place.
    """

    recipe: Recipe
    source: str
    suite: Suite
    judge: Judge
    data: Mapping[str, TrainingData]
    anchors: Mapping[str, Suite | None]
    notes: Sequence[str] = ()
    held_out: Mapping[str, TrainingData | None] = field(default_factory=dict)  # the rows of ``eval_data``
    reference: Reference | None = None

    def run_name(self, stage: str) -> str:
        """``STAGE · MODEL``."""
        return f"{stage} · {models.short_name(self.recipe.base.model)}"

    def color(self, stage: str) -> str:
        """The colour of a stage's run: those of one plan can be told from each other, the base is grey."""
        names = [own.name for own in self.recipe.stages]
        if stage not in names:
            return COLORS[Stance.NEUTRAL]
        # The stages of an ablation have a plan each.
        return PALETTE[names.index(stage) % len(PALETTE)] if len(names) > 1 else color_of(stage)

    def answering(self, tokenizer: PreTrainedTokenizerBase) -> Answering:
        """How a logged model answers where its caller does not say: as it was measured."""
        recipe, speech = self.recipe, self.recipe.speech
        thought = speech.max_thinking_tokens if speech.thinking and speech.may_think(tokenizer) else 0
        return {
            "max_new_tokens": recipe.max_new_tokens + thought,
            "temperature": recipe.temperature,
            # Texts of one token are among the end tokens that `align` has written into the model.
            "stop": [text for text in speech.stop if stop_token(tokenizer, text) is None],
            "template_kwargs": speech.arguments(tokenizer),
        }


@dataclass(frozen=True)
class StageRun:
    """One stage of a plan, with all that is known when it starts.

    Attributes:
        plan: the plan it belongs to.
        stage: the stage.
        start_uri: the model it starts from.
        before: an earlier measurement of that model, where there is one.
        remeasure: whether the stage measures its start itself; without it ``before`` stands for that measurement.
        begun: its run in an earlier process: kept where it was finished, else it goes on from its last checkpoint.
        reward: the URI of what rates responses, for stages that sample them.
        mix: the stances of topics in its data, as an audit found them; empty where nobody has audited.
        run: its MLflow run, once that is open.
    """

    plan: Plan
    stage: Stage
    start_uri: str
    before: Measurement | None = None
    remeasure: bool = True
    begun: EarlierRun | None = None
    reward: str | None = None
    mix: Mix = field(default_factory=dict)
    run: OpenRun = field(default_factory=lambda: OpenRun(""))

    @property
    def data(self) -> TrainingData:
        """The stage's rows."""
        return self.plan.data[self.stage.name]

    @property
    def seed(self) -> int:
        """The stage's own seed, or the recipe's."""
        return self.plan.recipe.seed if self.stage.seed is None else self.stage.seed

    @property
    def every(self) -> int:
        """Steps between checkpoints."""
        return self.stage.every(self.stage.steps(len(self.data.rows)))

    @property
    def given(self) -> Measurement | None:
        """What stands for the stage's own measurement of its start."""
        return None if self.remeasure else self.before

    @property
    def state(self) -> Path:
        """The folder of the trainer's newest checkpoint."""
        return state_folder(self.run.run_id)

    def parameters(self) -> dict[str, str]:
        """What the run records: the stage's settings, and once more by its name, as its parent has them.

        Those of the measurement stand beside them, and all others too of a stage that has no parent.
        """
        # In the order in which MLflow's page of the run lists them.
        own, recipe = self.stage.plain() | {"seed": str(self.seed)}, self.plan.recipe
        shared = recipe.measuring() if tracking.is_nested() else recipe.parameters()
        return own | shared | self.stage.parameters()


@dataclass(frozen=True)
class Trained:
    """A trained stage: its last LoggedModel, and the measurements from its step 0 to its last (first process only)."""

    model_uri: str
    measurements: list[Measurement]
    trust: Reliability | None = None  # what the judge reaches on labelled texts; None in the embedded world


@dataclass(frozen=True)
class StageResult:
    """What one stage came to. ``measurements`` start with the stage's own step 0 and end with its last step.

    ``remeasured`` is the drift between two independent measurements of the model that the stage starts from.
    """

    name: str
    algorithm: str
    start: str
    run_id: str
    model_uri: str
    measurements: list[Measurement]
    drift: Drift
    moved: int  # topics that moved significantly
    unscored_rate: float  # share of unscored responses at the last step
    remeasured: float | None = None
    trust: Reliability | None = None
    nearness: str = ""  # whether it came nearer to the recipe's reference, in words

    @cached_property
    def axes(self) -> AxisShifts:
        """Positions and shifts along the axes of the suite's values."""
        return axis_shifts(self.measurements, self.drift.steps.tolist())

    @classmethod
    def of(cls, work: StageRun, run_id: str, trained: Trained) -> StageResult:
        """What a trained stage came to."""
        stage, recipe = work.stage, work.plan.recipe
        remeasured = None
        if work.remeasure and work.before is not None:
            twice = [work.before, trained.measurements[0]]
            remeasured = float(analyse_measurements(twice, recipe.seed).overall[-1])
        found = cls._of(work.plan, (stage.name, stage.algorithm, stage.start), run_id, trained)
        return replace(found, remeasured=remeasured)

    @classmethod
    def of_base(cls, plan: Plan, run_id: str, trained: Trained) -> StageResult:
        """What the model that a pipeline starts from shows."""
        return cls._of(plan, (BASE, BASE, ""), run_id, trained)

    @classmethod
    def _of(cls, plan: Plan, named: tuple[str, str, str], run_id: str, trained: Trained) -> StageResult:
        recipe, measured = plan.recipe, trained.measurements
        drift = analyse_measurements(
            measured, recipe.seed, recipe.drift_time, interval=recipe.interval, margin=recipe.margin
        )
        return cls(
            *named,
            run_id,
            trained.model_uri,
            measured,
            drift,
            topics_drifted(drift),
            measured[-1].rate(Label.UNSCORED),
            trust=trained.trust,
            nearness=_nearness(plan, measured),
        )

    def summary(self) -> dict[str, float]:
        """What the pipeline's run says of the stage."""
        said = {"drift_overall": float(self.drift.overall[-1]), "topics_drifted": float(self.moved)}
        said["axes_shifted"] = float(self.axes.significant[-1].sum())
        said["topics_undecided"] = float(topics_undecided(self.drift))
        if self.remeasured is not None:
            said["remeasurement_difference"] = self.remeasured
        # MLflow's UI makes a section of charts of what stands before the last slash: each stage has its own.
        return {f"summary/{self.name}/{key}": value for key, value in said.items()}


def _nearness(plan: Plan, measured: Sequence[Measurement]) -> str:
    """Whether the stances came nearer to the plan's reference; empty where there is none."""
    if plan.reference is None:
        return ""
    compared = measured[:: max(1, len(measured) - 1)]  # the first and the last
    found = distances(plan.reference, compared, plan.recipe.interval, plan.recipe.seed)
    return sentence(found, plan.reference.uri)


@dataclass(frozen=True)
class RewardResult:
    """What a stage that trains a reward model came to; it answers no prompts, so it has no stances."""

    name: str
    run_id: str
    model_uri: str
    accuracy: float  # on the pairs held out, in [0, 1]


def stage_data(stage: Stage, base: str, *, local: bool = False) -> TrainingData:
    """A stage's rows. With ``local`` nothing is asked of the hub to know what the model's chat template refuses.

    Raises:
        InputError: as ``datasets.load_data``.
    """
    refused = templates.refused_by(base, local=local)
    return datasets.load_data(
        stage.data,
        stage.kind,
        stage.algorithm,
        turns=stage.trained_turns,
        refused=refused,
        field=data_field(stage),
    )


def data_field(stage: Stage) -> str:
    """What problems call the data of a stage: those that it is evaluated on too, see ``evaluated``."""
    return f"{stage.name}.{'eval_data' if stage.data is stage.eval_data else 'data'}"


def evaluated(stage: Stage) -> Stage:
    """The stage with the rows that it is evaluated on as its data, which are read in the same way."""
    return stage.model_copy(update={"data": stage.eval_data})


def data_lines(plan: Plan, stage: Stage) -> list[str]:
    """How a stage's data were read, and their first row as the model will see it; nothing of data not read here.

    Of rows that are held out it is one line.
    """
    data, held_out = plan.data[stage.name], plan.held_out.get(stage.name)
    lines = []
    if data.counts is not None:
        tokenizer = tokenizer_of(plan.recipe.base.model)
        known = tokenizer is not None and tokenizer.chat_template is not None
        rendering = plan.recipe.speech.rendering(tokenizer) if tokenizer is not None and known else None
        lines = [shown.line(data), *(f"  {text}" for text in shown.seen(data.rows[0], rendering))]
    if held_out is not None and held_out.counts is not None:
        lines.append(f"eval_data {shown.line(held_out)}; digest {held_out.digest()}")
    return lines


def prepare(recipe: Recipe, source: str, read: Read = stage_data) -> Plan:
    """Check everything that can be checked before any computing, and read the data with ``read``.

    Raises:
        InputError: all problems at once.
    """
    # First: a plan's recipe is what runs record and what a resumed
    # one is compared with, so `auto` must be gone by then.
    recipe, notes = _with_judge(*recipe.merged())
    data: dict[str, TrainingData] = {}
    held_out: dict[str, TrainingData | None] = {}
    anchors: dict[str, Suite | None] = {}
    names, rated = [stage.name for stage in recipe.stages], dict[str, str]()
    with collecting() as problems:
        asked = problems.attempt(suite.load, recipe.suite)
        with only_looked_up():
            judge = problems.attempt(judges.load, recipe.judge)
        reference = None
        if recipe.reference and asked:
            reference = problems.attempt(load_reference, recipe.reference, asked, recipe.refusal)
        if recipe.registered is not None and recipe.checkpoints.log == "none":
            problems.add(problem("register", recipe.registered, "nothing with checkpoints.log none: it has no weights"))
        problems.attempt(check_nodes, recipe)
        how = recipe.how
        problems.attempt(models.check_trainable, recipe.base.model, "base.model", how)
        problems.attempt(models.check_how, how)
        for stage in recipe.stages:
            rows = problems.attempt(read, stage, recipe.base.model)
            if rows is not None:
                data[stage.name] = rows
            if stage.eval_data is not None:
                rows = problems.attempt(read, evaluated(stage), recipe.base.model)
                if rows is not None:
                    held_out[stage.name] = rows
        # Now: where the data were read the hub's cache has the tokenizer.
        problems.attempt(check_template, recipe.base.model, recipe.speech)
        if recipe.audit and recipe.embedder:
            problems.attempt(check_embedder, recipe.embedder)
        for stage in recipe.stages:
            # What the recipe names a stage has been checked with it; all else is a URI or a function.
            if stage.rated_by is not None and stage.rated_by not in names:
                rated[f"{stage.name}.reward"] = stage.rated_by
                with only_looked_up():
                    problems.attempt(rewards.check_reward, stage.rated_by, f"{stage.name}.reward")
            # Where suite or data are missing, their own problem is collected already.
            if asked and stage.name in data:
                anchors[stage.name] = problems.attempt(stage.load_anchors, data[stage.name].stance_mix, [asked])
            problems.attempt(check_settings, stage, recipe)
    with collecting() as problems:  # what users bring is imported where all else is good
        judge = problems.attempt(judges.load, recipe.judge)
        for place, uri in rated.items():
            problems.attempt(rewards.check_reward, uri, place)
    notes = [*notes, *(line for stage in recipe.stages for line in _said(stage, held_out.get(stage.name)))]
    notes = [*notes, *([reference.said] if reference is not None else [])]
    assert asked is not None and judge is not None  # what could not be had has been raised
    return Plan(recipe, source, asked, judge, data, anchors, notes, held_out, reference)


def check_settings(stage: Stage, recipe: Recipe) -> None:
    """Refuse what a stage cannot have on this machine, and what its trainer or its adapters do not know.

    Raises:
        InputError: all problems at once.
    """
    with collecting() as problems:
        problems.attempt(processes.check_launch, stage)
        problems.attempt(stage.check_here)
        problems.attempt(check_precision, recipe.base, stage)
        problems.attempt(check_logged, recipe, stage)
        problems.attempt(check_trainer, stage)
        problems.attempt(check_adapters, stage)


def _said(stage: Stage, held_out: TrainingData | None) -> list[str]:
    """What is worth knowing of a stage's settings before it begins."""
    said = []
    if held_out is not None and held_out.counts is None:  # else ``data_lines`` says more
        said.append(f"{stage.name}: eval_data {held_out.uri}: not counted")
    if stage.trainer:
        given = ", ".join(f"{key}={value}" for key, value in flat(stage.trainer).items())
        said.append(f"{stage.name}: trainer {given}")
    return said


def _with_judge(recipe: Recipe, notes: Sequence[str]) -> tuple[Recipe, Sequence[str]]:
    """The recipe with the judge that ``auto`` stands for, which a run must record to be resumed with the same one."""
    base = recipe.base.model
    named, reason = resolved(recipe.judge, embedded=base.startswith(models.EMBEDDED), evaluated=base)
    if named == recipe.judge:
        return recipe, notes
    told = [] if base.startswith(models.EMBEDDED) else [f"judge auto: {named} ({reason})"]
    return recipe.model_copy(update={"judge": named}), [*notes, *told]


def prepare_stage(recipe: Recipe, source: str, name: str) -> tuple[Plan, Stage]:
    """The plan of a recipe that ``prepare`` has found good, with the data of one stage, and this stage."""
    recipe, _ = _with_judge(recipe, [])
    # Nothing is checked again: the process that started this one has done it.
    stage = next(stage for stage in recipe.stages if stage.name == name)
    asked, data = suite.load(recipe.suite), stage_data(stage, recipe.base.model)
    anchors = {name: stage.load_anchors(data.stance_mix, [asked])}
    held_out: dict[str, TrainingData | None] = {}
    if stage.eval_data is not None:
        held_out[name] = stage_data(evaluated(stage), recipe.base.model)
    judge = judges.load(recipe.judge)
    reference = load_reference(recipe.reference, asked, recipe.refusal) if recipe.reference else None
    plan = Plan(recipe, source, asked, judge, {name: data}, anchors, held_out=held_out, reference=reference)
    return plan, stage


SUMMARY_COLUMNS = (
    "stage",
    "drift [95 % interval]",
    "topics moved",
    "cannot tell",
    "support / neutral / oppose",
    "unscored",
)


def summary_rows(results: Sequence[StageResult]) -> list[list[str]]:
    """The table at the end: how each stage moved, how surely, its stance mix and its unscored rate."""
    rows = []
    for result in results:
        drift, trained = result.drift, result.name != BASE
        rows.append(
            [
                result.name,
                _of_drift(result) if trained else "",
                f"{result.moved} of {len(drift.topics)}" if trained else "",
                str(topics_undecided(drift)) if trained else "",
                "not scored" if untold(result) else " / ".join(f"{p:.2f}" for p in drift.overall_probability[-1]),
                f"{result.unscored_rate:.3f}",
            ]
        )
    return rows


def _of_drift(result: StageResult) -> str:
    return "cannot tell" if untold(result) else with_interval(result.drift.overall[-1], result.drift.overall_ci[-1])


def untold(result: StageResult) -> str:
    """Why nothing can be told of a stage: at one of its ends no response was scored; empty where some were."""
    return next(filter(None, map(nothing_scored, (result.measurements[-1], result.measurements[0]))), "")


def certainty_lines(results: Sequence[StageResult]) -> list[str]:
    """For each stage: what cannot be told and would help, what unscored answers may hide, what the judge shows."""
    trained = [result for result in results if result.name != BASE and not untold(result)]
    said = [(result.name, untold(result)) for result in results if untold(result)]
    said += [
        (result.name, line)
        for result in trained
        for line in (
            measured_line(result.drift),
            unscored_line(result.drift, result.measurements),
            result.trust.line(float(result.drift.overall[-1])) if result.trust is not None else "",
        )
    ]
    said += [(result.name, result.nearness) for result in results]
    return [f"{name}: {line}" for name, line in said if line]
