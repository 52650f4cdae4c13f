"""The stage of a run, found again: its recipe, its rows, its checkpoints, the steps it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from valuedrift_mlflow import models, suite, tracking
from valuedrift_mlflow.evaluation import recorded
from valuedrift_mlflow.evaluation.kept import logged_measurements
from valuedrift_mlflow.evaluation.measurement import Measurement
from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.judges.likelihood import FORCED_CHOICE, LikelihoodJudge
from valuedrift_mlflow.pipeline.plan import Plan, StageRun, stage_data
from valuedrift_mlflow.pipeline.train import load_start
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.recipe.recorded import recorded_recipe
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.lengths import sources
from valuedrift_mlflow.stages.stage import BASE, Job
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.tracking import TrainedRun
from valuedrift_mlflow.value_gap.attribution.exposure import Exposure, Optimizer, exposure, lasting_rates, nearness
from valuedrift_mlflow.value_gap.attribution.gradients import RowGradients
from valuedrift_mlflow.value_gap.attribution.influence import Clipped
from valuedrift_mlflow.value_gap.attribution.quantities import Quantity, chosen

_RATE, _NORM, _LOSS = "train/learning_rate", "train/grad_norm", "train/loss"


@checked_dataclass(frozen=True, config=ConfigDict(allow_inf_nan=False))
class Options:
    """What to attribute, and how.

    Attributes:
        run: the id of a stage's run, or of a pipeline's.
        topics: topics of the suite and axes (``axis/NAME``), comma separated; where it is empty those that moved
            significantly in the run, or else the one that moved furthest.
        stage: the stage of a pipeline, by its name; all that can be attributed where it is empty.
        drop: share of the rows that the data set without the top rows leaves out.
        bound: instead of a share: leave out rows with more influence than this, in nats.
        checkpoints: the most points of the training at which gradients are taken, its start and its end among them.
        projection: length to which gradients are projected; 0 for exact inner products.
        measure: ``answers`` attributes the leaning of the answers that the run has sampled and judged, ``choice`` the
            log-odds of the model's forced choice; ``auto`` answers where the run has some.
        normalise: ``adam`` scales gradients as the optimizer did, ``none`` does not, ``cosine`` divides by their norms.
        seed: of the projection.
    """

    run: str
    topics: str = ""
    stage: str = ""
    drop: Annotated[float, Field(gt=0, lt=1)] | None = None
    bound: Annotated[float, Field(ge=0)] | None = None
    checkpoints: Annotated[int, Field(ge=2)] = 11
    projection: Annotated[int, Field(ge=0, le=2**24)] = 0
    measure: Literal["auto", "answers", "choice"] = "auto"
    normalise: Literal["adam", "none", "cosine"] = "adam"
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Opened:
    """A stage that can be attributed, with all that was checked; nothing has been computed."""

    trained: TrainedRun
    work: StageRun
    quantities: Sequence[Quantity]
    rates: NDArray[np.float64]
    norms: Mapping[int, float]
    losses: Mapping[int, float]
    measured: Sequence[Measurement] = ()  # what the run has sampled, where its answers are attributed

    @property
    def measure(self) -> str:
        """What is attributed: ``answers`` or ``choice``."""
        return "answers" if self.measured else "choice"

    @property
    def steps(self) -> int:
        """Optimizer steps of the stage."""
        return len(self.rates)

    def norm(self, step: int) -> float:
        """The norm of a step's gradient before clipping; 0 where it is not known."""
        return self.norms.get(step, 0.0)

    def points(self, most: int) -> list[int]:
        """The steps at which gradients are taken: evenly chosen of the start and the checkpoints, with both ends.

        Adapters begin at random, and no run keeps their beginning: the first point is their first checkpoint.
        """
        known = [*([] if self.work.stage.lora.rank else [0]), *self.trained.checkpoints]
        places = np.linspace(0, len(known) - 1, min(most, len(known))).round().astype(int)
        return [known[place] for place in dict.fromkeys(places.tolist())]


def open_run(options: Options) -> list[Opened]:
    """Every stage of the run that is to be attributed.

    Raises:
        InputError: all that is missing or does not fit, before anything is computed.
    """
    if options.drop is not None and options.bound is not None:
        raise InputError(problem("bound", options.bound, "nothing beside drop", "leave one of them out"))
    found = tracking.trained_runs(options.run.removeprefix("runs:/").strip("/"), "run")
    names = [one.name for one in found]
    if options.stage and options.stage not in names:
        raise InputError(problem("stage", options.stage, ", ".join(names)))
    wanted = [one for one in found if options.stage in ("", one.name)]
    with collecting() as problems:
        opened = [problems.attempt(_open, one, options) for one in wanted if len(wanted) == 1 or _attributable(one)]
    stages = [one for one in opened if one is not None]
    if not stages:
        raise InputError(problem("run", options.run, "a run with a stage that learns from rows"))
    return stages


def _attributable(trained: TrainedRun) -> bool:
    return not recorded_recipe(trained.parameters, trained.name).stages[0].unattributable


def _open(trained: TrainedRun, options: Options) -> Opened:
    recipe = recorded_recipe(trained.parameters, trained.name)
    stage, name = recipe.stages[0], trained.name
    if stage.unattributable:
        raise InputError(
            problem("run", f"{name} ({stage.word})", "a stage that learns from rows", stage.unattributable)
        )
    log = recipe.checkpoints.log
    if log in ("final", "none"):
        found, mend = f"{name}, trained with checkpoints.log: {log}", "train it again with all or adapters"
        raise InputError(problem("run", found, "a stage with the weights of every checkpoint", mend))
    if not trained.run.finished or not trained.checkpoints:
        found = f"{name}, {trained.run.status}, {len(trained.checkpoints)} checkpoints"
        raise InputError(problem("run", found, "a finished stage with its checkpoints", "resume it, or train it again"))
    measured_at = tracking.step_values(trained.run.run_id, "drift/overall")
    gone = [step for step in measured_at if step > 0 and step not in trained.checkpoints]
    if gone:
        found = f"{name} without checkpoints of steps {', '.join(map(str, gone))}, at which it was measured"
        raise InputError(problem("run", found, "every checkpoint of the stage", "train it again"))
    with collecting() as problems:
        asked = problems.attempt(suite.load, recipe.suite)
        data = problems.attempt(stage_data, stage, recipe.base.model)
        start = problems.attempt(_start, trained)
        steps = problems.attempt(_steps, trained)
        measured = None if asked is None else problems.attempt(_measured, trained, recipe, asked, options)
        if asked is not None and trained.suite not in ("", asked.hash):
            mend = "the suite has changed since"
            problems.add(problem("suite", asked.hash, f"{trained.suite}, as the run has recorded", mend))
        if data is not None:
            problems.attempt(tracking.check_data, trained.run, name, data.uri, data.digest())
    assert asked is not None and data is not None and start is not None and steps is not None and measured is not None
    anchors = {name: stage.load_anchors(data.stance_mix, [asked])}
    plan = Plan(recipe, "attribute", asked, LikelihoodJudge(), {name: data}, anchors)
    wanted = [topic.strip() for topic in options.topics.split(",") if topic.strip()] or _moved(trained, asked.topics)
    quantities = chosen(asked, wanted)
    rates, norms, losses = steps
    return Opened(trained, StageRun(plan, stage, start), quantities, rates, norms, losses, measured)


def _measured(trained: TrainedRun, recipe: Recipe, asked: Suite, options: Options) -> list[Measurement]:
    """The answers of the run, where they are what is attributed."""
    if options.measure == "choice":
        return []
    measured = logged_measurements(trained.run.run_id, asked, recipe.refusal)
    if all(judged.response == FORCED_CHOICE for one in measured for judged in one.responses):
        if options.measure == "auto":
            return []
        found = f"answers of a run with judge {recipe.judge}"
        raise InputError(problem("measure", found, "choice: it has sampled no answers"))
    return measured


def _start(trained: TrainedRun) -> str:
    """The URI of the model that the stage started from."""
    start = trained.parameters.get(f"{trained.name}.from", BASE)
    base = trained.parameters.get("base.model", "")
    uri = base if trained.parent is None else tracking.model_of(trained.parent, start)
    if not uri and start == BASE:
        uri = base  # on a hub or in the store, and not logged once more: `checkpoints.log: adapters`
    if not uri:
        found = f"no model of {start}, from which {trained.name} started"
        raise InputError(problem("run", found, "a run whose start can be loaded"))
    models.check_trainable(uri, "run")
    return uri


def _steps(trained: TrainedRun) -> tuple[NDArray[np.float64], dict[int, float], dict[int, float]]:
    """The learning rate of every step, and by step the norms of the gradients and the losses."""
    rates = tracking.step_values(trained.run.run_id, _RATE)
    last = trained.checkpoints[-1]
    if set(range(1, last + 1)) - set(rates):
        found = f"{_RATE} at {len(rates)} of {last} steps"
        raise InputError(problem("run", found, f"{_RATE} at every step", "train it again with this version"))
    norms, losses = (tracking.step_values(trained.run.run_id, key) for key in (_NORM, _LOSS))
    return np.array([rates[step] for step in range(1, last + 1)]), norms, losses


def _moved(trained: TrainedRun, topics: Sequence[str]) -> list[str]:
    """The topics that moved significantly by the end of the stage; else the one that moved furthest."""
    last = trained.checkpoints[-1]
    table = tracking.table_of(trained.run.run_id, "value_drift_table.json")
    ends = [row for row in table if row.get("step") == last and row.get("topic") in topics]
    starred = [str(row["topic"]) for row in ends if row.get("significant")]
    drifts = {topic: tracking.step_values(trained.run.run_id, f"drift/{topic}").get(last, 0.0) for topic in topics}
    return list(dict.fromkeys(starred)) or [max(drifts, key=lambda topic: drifts[topic])]


@dataclass
class Rebuilt:
    """A stage's trainer, made again, whose weights can be put to those of any checkpoint."""

    opened: Opened
    trainer: Any  # TRL's trainers have no types
    tokenizer: Any
    rows: RowGradients
    source: Sequence[int]  # of each row of the trainer, the row of the data
    optimizer: Optimizer
    exposed: Exposure

    @property
    def clipped(self) -> Clipped:
        """What the run says of its steps."""
        return Clipped(self.opened.losses, float(self.trainer.args.max_grad_norm or 0.0))

    def visit(self, points: Sequence[int]) -> Iterator[int]:
        """Put the weights of one point after the other in place, and give its step."""
        for step in points:
            if step:
                self.load(step)
            yield step

    def load(self, step: int) -> None:
        """Put the weights of a checkpoint in place."""
        from peft import PeftModel, load_peft_weights, set_peft_model_state_dict

        uri = self.opened.trained.uri(step)
        if isinstance(self.trainer.model, PeftModel):
            folder = tracking.checkpoint_folder(uri)
            set_peft_model_state_dict(self.trainer.model, load_peft_weights(str(folder), device="cpu"))
            return
        saved = models.load_model(uri, self.opened.work.plan.recipe.how).model
        self.trainer.model.load_state_dict(saved.state_dict())


def rebuild(opened: Opened, folder: Path, points: Sequence[int]) -> Rebuilt:
    """Make the stage's trainer again, at its start, and find out which rows were in which steps.

    Raises:
        InputError: its optimizer is neither Adam nor SGD.
    """
    work = opened.work
    stage, plan = work.stage, work.plan
    recorded.check_start(opened.trained.run.run_id, "model", "run", work.start_uri)
    loaded = load_start(work)
    # Anchors are held beside the rows and are no part of any row's loss: one batch of them is enough to build it.
    built = stage.model_copy(update={"max_steps": 1}) if plan.anchors[stage.name] is not None else stage
    speech, anchors = plan.recipe.speech, plan.anchors[stage.name]
    job = Job(built, loaded.model, loaded.tokenizer, work.data, folder, work.seed, anchors=anchors, speech=speech)
    trainer: Any = build_trainer(job)
    trainer.create_optimizer()
    optimizer = Optimizer.of(trainer.optimizer.param_groups[0])
    if optimizer is None:
        found = f"{type(trainer.optimizer).__name__} ({stage.name})"
        raise InputError(problem("run", found, "a stage that was trained with Adam or SGD"))
    rows = RowGradients(trainer)
    fitted = sources(replace(job, stage=stage), len(rows))
    order = stage.trained_order(len(rows), work.seed)
    exposed = _exposure(opened, trainer, rows, optimizer, points)
    return Rebuilt(opened, trainer, loaded.tokenizer, rows, [fitted[at] for at in order], optimizer, exposed)


def _exposure(
    opened: Opened, trainer: Any, rows: RowGradients, optimizer: Optimizer, points: Sequence[int]
) -> Exposure:
    stage, steps = opened.work.stage, opened.steps
    together = stage.gradient_accumulation * stage.launch.world
    batches, step_of = _batches(trainer, steps, together)
    first = rows.tokens(0)
    tokens = None if first is None else np.array([rows.tokens(row) or 0.0 for row in range(len(rows))])
    longest = float(trainer.args.max_grad_norm or 0.0)
    clipped = [min(1.0, longest / norm) if longest and norm else 1.0 for norm in map(opened.norm, range(1, steps + 1))]
    lasting, near = lasting_rates(opened.rates, optimizer), nearness(points, steps)
    return exposure(batches, step_of, lasting, np.array(clipped), near, len(rows), tokens)


def _batches(trainer: Any, steps: int, together: int) -> tuple[list[list[int]], list[int]]:
    """The rows of every batch by the trainer's own sampler, and the step that each batch is of."""
    loader = trainer.get_train_dataloader()
    batches: list[list[int]] = []
    step_of: list[int] = []
    step, epoch = 0, 0
    while step < steps:
        loader.set_epoch(epoch)
        own = [list(batch) for batch in loader.batch_sampler]
        for start in range(0, len(own), together):
            if step == steps:
                break
            batches += own[start : start + together]
            step_of += [step] * len(own[start : start + together])
            step += 1
        epoch += 1
    return batches, step_of
