"""Ablations: every cell of a design as a nested run; then tables, figure and report on all of them.

A *design* says what is crossed: stages of a recipe (one prototype for each algorithm), axes (recipe keys with a list of
values, their *doses*) and seeds; or that stages are left out, one at a time and in combination. A *cell* is one such
choice. Cells share every training that none of their axes touches, so that they start from one and the same
checkpoint, and the model they start from is measured once for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation import recorded
from valuedrift_mlflow.evaluation.metrics import analyse_measurements, topics_drifted
from valuedrift_mlflow.evaluation.notes import described
from valuedrift_mlflow.inputs import interrupts
from valuedrift_mlflow.inputs.errors import Unanswered, one_line
from valuedrift_mlflow.pipeline import pipeline
from valuedrift_mlflow.pipeline.ablation_axes import axes_table
from valuedrift_mlflow.pipeline.ablation_summary import (
    SUMMARY_COLUMNS,
    Keys,
    Row,
    cell_name,
    cells_table,
    changed,
    slug,
    summarise,
    summary_rows,
    summary_table,
)
from valuedrift_mlflow.pipeline.ablation_topics import TopicFindings
from valuedrift_mlflow.pipeline.design import Ablation, Cell, Training
from valuedrift_mlflow.pipeline.directions import directions, directions_table
from valuedrift_mlflow.pipeline.memory import free_memory, settled
from valuedrift_mlflow.pipeline.outcomes import Outcome
from valuedrift_mlflow.pipeline.plan import Plan, RewardResult, StageResult, StageRun
from valuedrift_mlflow.pipeline.resumed import begun_trainings, recorded_of
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.report.tables import Table
from valuedrift_mlflow.stages.resume import forget, kept_model
from valuedrift_mlflow.stages.stage import BASE
from valuedrift_mlflow.stances import Label
from valuedrift_mlflow.tracking import EarlierRun


class CellsFailed(RuntimeError):
    """Cells of an ablation that failed; the others have been run and are in the tables."""

    def __init__(self, lines: Sequence[str]) -> None:
        """Say it in these lines."""
        super().__init__("\n".join(lines))

    @classmethod
    def of(cls, rows: Sequence[Row], cells: int) -> CellsFailed:
        """Name every failed cell with its reason."""
        lines = [f"{cell_name(row.series, row.doses, row.seed)}: {row.reason}" for row in rows]
        return cls([f"{len(rows)} of {cells} cells failed", *lines])


class _NotRun(RuntimeError):
    """A training that cannot be run because what it needs has failed."""


class Execution:
    """Runs trainings in the order in which they are needed, each once."""

    def __init__(self, display: Display, begun: Mapping[str, EarlierRun]) -> None:
        """Nothing has been run here; ``begun`` are runs of an earlier process."""
        self.display = display
        self.begun = begun  # runs of an earlier process, by their trainings
        self.bases: dict[str, StageResult] = {}
        self.done: dict[str, StageResult | RewardResult] = {}  # by what was trained: designs may share it
        self.failed: dict[str, str] = {}

    def base(self, plan: Plan) -> StageResult:
        """The base model of a plan, measured by its recipe."""
        # Everything but the stages decides how a base is measured:
        # an axis over `samples` or `judge` gives it several measurements.
        key = plan.recipe.model_dump_json(exclude={"stages"})
        if key not in self.bases:
            self.bases[key] = pipeline.run_base(plan, self.display, self.begun.get(BASE))
        return self.bases[key]

    def result(self, training: Training) -> StageResult:
        """The result of a training that is measured.

        Raises:
            _NotRun: it or what it needs has failed before.
            Exception: it fails now.
        """
        result = self.trained(training)
        assert isinstance(result, StageResult)  # reward models are neither compared nor started from
        return result

    def trained(self, training: Training) -> StageResult | RewardResult:
        """The result of any training, run now unless it has been run; raises as `result`."""
        key = training.identity
        if key in self.failed:
            raise _NotRun(f"{training.name} failed: {self.failed[key]}")
        if key not in self.done:
            try:
                self.done[key] = self._run(training)
            except Exception as error:
                # Kept: other cells that need this training must not run it again only to see it fail again.
                self.failed[key] = _reason(error)
                # `train_stage` frees what has ended well; what has failed
                # still holds its model, and the next cell loads another.
                free_memory()
                raise
        return self.done[key]

    def forget_models(self) -> None:
        """Delete what trainings have left on this machine for those that start from them."""
        for result in self.done.values():
            forget(kept_model(result.run_id))

    def _run(self, training: Training) -> StageResult | RewardResult:
        try:
            start = self.result(training.start) if training.start else self.base(training.origin)
            reward = self.trained(training.reward).model_uri if training.reward else training.stage.rated_by
        # Passed on as they are: the first names its cause already,
        # the second ends the whole ablation (see `_run_cell`).
        except (_NotRun, Unanswered):
            raise
        except Exception as error:
            raise _NotRun(f"what it needs failed: {_reason(error)}") from error
        work = StageRun(
            training.plan,
            training.stage,
            start.model_uri,
            start.measurements[-1],
            # Cells from one start share its measurement, as `over_seeds` expects of them.
            remeasure=False,
            begun=self.begun.get(training.name),
            reward=reward,
        )
        if training.stage.trains == "reward":
            return pipeline.run_reward_stage(work, self.display)
        return pipeline.run_stage(work, self.display)


def _reason(error: Exception) -> str:
    return one_line(str(error) or type(error).__name__, most=None)


@dataclass(frozen=True)
class Result:
    """What an ablation came to: a row for each cell, and what they show topic by topic."""

    rows: list[Row]
    topics: TopicFindings


def run_ablation(ablation: Ablation, display: Display, resumed: str | None = None) -> list[Row]:
    """The rows of ``run``, which see."""
    return run(ablation, display, resumed).rows


def run_all(ablations: Sequence[Ablation], display: Display) -> Iterator[Result]:
    """Run several designs, each under a parent run of its own; what two of them need is trained once.

    Raises:
        CellsFailed: cells of some designs failed; all designs have been run.
    """
    execution, failed = Execution(display, {}), []
    for ablation in ablations:
        try:
            yield run(ablation, display, execution=execution)
        except CellsFailed as failure:
            failed.append(f"design {ablation.design_source}: {failure}")
    if failed:
        raise CellsFailed(failed)
    execution.forget_models()


@settled()
def run(ablation: Ablation, display: Display, resumed: str | None = None, execution: Execution | None = None) -> Result:
    """Run every cell as a nested run of one parent, and write the parent's tables, figure, report and metrics.

    ``resumed`` is the id of a parent run that was stopped or in which cells failed: its finished trainings are kept,
    the others go on from their last checkpoints or begin. ``execution`` has what was trained for other designs.

    Raises:
        InputError: the run cannot be taken up with this recipe and design, or another process works on it.
        CellsFailed: some cells failed; all others have been run and everything has been written.
        Stopped: the process was told to stop.
    """
    with interrupts.minded(), tracking.taken_up(resumed):
        if execution is not None:
            return _run(ablation, display, resumed, execution)
        execution = Execution(display, begun_trainings(ablation, resumed) if resumed else {})
        result = _run(ablation, display, resumed, execution)
        execution.forget_models()
        return result


def _run(ablation: Ablation, display: Display, resumed: str | None, execution: Execution) -> Result:
    from valuedrift_mlflow.pipeline.ablation_report import ablation_figures, ablation_html, axes_figure
    from valuedrift_mlflow.report.page import drawn

    plan = ablation.cells[0].training.origin
    with tracking.run(
        "ablation",
        name=f"ablation · {Path(ablation.design_source).stem}",
        recipe=ablation.source,
        parameters=recorded_of(ablation),
        run_id=resumed,
    ) as parent:
        opened = replace(parent, last_steps=None)  # a continued run is written anew: the means are of more cells now
        recorded.log_suite(opened, plan.suite)
        rows: list[Row] = []
        outcomes: list[Outcome] = []
        with display.live():
            for number, cell in enumerate(ablation.cells):
                display.start("cells", len(ablation.cells), cell.name)
                display.advance("cells", number)
                row, outcome = _run_cell(cell, execution, opened, ablation.from_base)
                rows.append(row)
                outcomes += [] if outcome is None else [outcome]
                said = f"FAILED: {row.reason}" if row.reason else f"drift {row.drift:.3f}"
                display.line(f"cell {number + 1} of {len(ablation.cells)}: {cell.name}: {said}")
        summary = summarise(rows)
        metrics = {
            f"ablation/{slug(entry)}/{key}": value
            for entry in summary
            for key, value in (("drift", entry.drift), ("drift_ci_low", entry.low), ("drift_ci_high", entry.high))
            if math.isfinite(value)
        }
        tracking.log_metrics(opened, metrics, 0)
        tracking.log_table(opened, cells_table(rows), "ablation.json")
        tracking.log_table(opened, summary_table(summary), "ablation_summary.json")
        topics = TopicFindings.of(outcomes, ablation.recipe)
        told = {"ablation_directions": directions_table(directions(rows)), "ablation_axes": axes_table(rows)}
        for name, frame in (told | topics.tables()).items():
            if len(frame):
                tracking.log_table(opened, frame, f"{name}.json")
        pictures = drawn(ablation_figures(summary, from_base=ablation.from_base) | axes_figure(rows) | topics.figures())
        tracking.log_figures(opened, pictures)
        page = ablation_html(ablation, rows, summary, directions(rows), pictures, topics)
        tracking.log_text(opened, page, "report.html")
        files = {"report": "report.html", "figures": "figures", "every cell": "ablation.json"}
        lead = f"{len(rows)} cells of {ablation.design_source}, drift as a mean over seeds"
        table = Table(SUMMARY_COLUMNS, summary_rows(summary))
        tracking.describe(opened, described(opened.run_id, lead, table, topics.lines(), files))
        failed = [row for row in rows if row.reason]
        if failed:
            # Last, and inside the run: it is left FAILED, with every
            # table, figure and report of the cells that came through.
            raise CellsFailed.of(failed, len(rows))
    return Result(rows, topics)


def _run_cell(
    cell: Cell, execution: Execution, parent: tracking.OpenRun, from_base: bool
) -> tuple[Row, Outcome | None]:
    """The row of a cell, and its measurements unless it failed."""
    described = {dose.axis: dose.label for dose in cell.doses} | {"seed": str(cell.seed), "series": cell.series}
    algorithm = cell.training.stage.algorithm
    try:
        result = execution.result(cell.training)
    except Unanswered:  # every other cell would miss the same server
        raise
    except Exception as error:
        begun = execution.begun.get(cell.training.name)
        if isinstance(error, _NotRun):
            run_id = _failed_run(cell, error, begun)
        else:
            # The training has opened its run and failed in it: there is no newer one below the parent.
            run_id = begun.run_id if begun else tracking.last_child(parent.run_id)
        tracking.log_parameters(replace(parent, run_id=run_id), described)
        return Row(cell.series, algorithm, cell.doses, cell.seed, run_id, reason=_reason(error)), None
    tracking.log_parameters(replace(parent, run_id=result.run_id), described)
    drift, start, end = result.drift, result.measurements[0], result.measurements[-1]
    if from_base:
        # Chains of which stages were left out end in stages with different starts; they have only the base in common.
        start = execution.base(cell.training.origin).measurements[-1]
        recipe = cell.training.origin.recipe
        drift = analyse_measurements([start, end], cell.seed, interval=recipe.interval, margin=recipe.margin)
    low, high = drift.overall_ci[-1]
    row = Row(
        series=cell.series,
        algorithm=algorithm,
        doses=cell.doses,
        seed=cell.seed,
        run_id=result.run_id,
        drift=float(drift.overall[-1]),
        interval=(float(low), float(high)),
        noise=float(drift.overall_noise[-1]),
        topics_moved=float(topics_drifted(drift)),
        unscored_rate=end.rate(Label.UNSCORED),
        mix=tuple(float(share) for share in drift.overall_probability[-1]),
        changes=changed(start, end),
        axes=Keys.of(end.suite),
        estimand=cell.training.origin.recipe.interval,
    )
    return row, Outcome(cell.series, cell.training.lineage, cell.doses, cell.seed, start, end)


def _failed_run(cell: Cell, error: Exception, begun: EarlierRun | None) -> str:
    """A run for a cell that could not start, FAILED with the reason."""
    run_id = ""
    try:
        stage = cell.training.stage
        with tracking.run(
            "stage",
            name=cell.training.plan.run_name(stage.name),
            stage=stage.word,
            parameters=stage.parameters(),
            named={"stage_name": stage.name},
            run_id=begun.run_id if begun else None,
        ) as active:
            run_id = active.run_id
            # Raised inside the run: that is what makes MLflow call it FAILED, and `tracking.run` note the reason.
            raise error
    except _NotRun:
        return run_id
