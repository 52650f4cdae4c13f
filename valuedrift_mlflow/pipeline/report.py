"""The HTML report of a pipeline: what moved, how surely, because of what, and how far all that can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from valuedrift_mlflow.evaluation.changes import Change, largest_changes
from valuedrift_mlflow.evaluation.report import disputed, examples
from valuedrift_mlflow.evaluation.topic_table import Topics
from valuedrift_mlflow.judges.judge import identity
from valuedrift_mlflow.pipeline.axis_report import planted_positions, shift_rows
from valuedrift_mlflow.pipeline.headline import leads, stage_table
from valuedrift_mlflow.pipeline.plan import SUMMARY_COLUMNS, Plan, StageResult, certainty_lines, summary_rows
from valuedrift_mlflow.report.page import Picture, render
from valuedrift_mlflow.report.tables import NO_TABLE, Table
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics.distance import above
from valuedrift_mlflow.statistics.drift import Drift


@dataclass(frozen=True)
class MovingRows:
    """The rows that moved a stage's stances most, as a run of the entry point ``attribute`` has found them."""

    run_id: str
    says: str
    rows: Table


@dataclass(frozen=True)
class Logged:
    """What a pipeline's run has logged before its page is written, and the page shows.

    Attributes:
        parameters: every setting of the recipe.
        agreement: what the run says of the judge, by metric.
        pictures: the figures as they were drawn.
        changes: of every stage, answers before and after.
        methods: the paragraphs on how it was done.
    """

    parameters: Mapping[str, str]
    agreement: Mapping[str, float]
    pictures: Mapping[str, Picture]
    changes: Sequence[tuple[str, Change]]
    methods: Sequence[str]


def stage_changes(results: Sequence[StageResult]) -> list[tuple[str, Change]]:
    """Of every stage in which a topic moved significantly: answers to what moved most, before and after."""
    found = []
    for result in results:
        first, last = result.measurements[0], result.measurements[-1]
        starred = [topic for t, topic in enumerate(result.drift.topics) if result.drift.topic_significant[-1, t]]
        if result.start and starred:
            found += [(result.name, change) for change in largest_changes(first, last, starred)]
    return found


def html(plan: Plan, results: Sequence[StageResult], logged: Logged) -> str:
    """The report: one file without any reference to another, everything that a model or a user wrote escaped.

    It shows what was measured and logged before.
    """
    from valuedrift_mlflow import tracking

    axis_columns, axis_rows = shift_rows(results, plan.suite)
    trained = [result for result in results if result.start]
    last = [(result.name, result.measurements[-1]) for result in results]
    topics = [(result.name, Topics(result.drift)) for result in trained]
    return render(
        "report.html.j2",
        recipe=plan.source,
        suite=plan.suite,
        judge=identity(plan.judge),
        version=tracking.package_version(),
        interval=plan.recipe.interval,
        margin=plan.recipe.margin,
        refusal=plan.recipe.refusal,
        stances=[stance.value for stance in STANCES],
        leads=leads(results, plan.suite),
        # Without a stage that is trained there is the base model alone, and its stances.
        headline=stage_table(results) or Table(SUMMARY_COLUMNS, summary_rows(results)),
        pictures=logged.pictures,
        keyed=bool(plan.suite.axes),
        axes=Table(axis_columns, axis_rows),
        stage_rows=Table(SUMMARY_COLUMNS, summary_rows(results)),
        topics=topics,
        notes=[*certainty_lines(results), *plan.notes],
        remeasured=[(r.name, r.start, r.remeasured) for r in results if r.remeasured is not None],
        floors=[(r.name, *floor) for r in trained if all(map(math.isfinite, floor := noise_taken_off(r.drift)))],
        causes=causes(plan, results),
        run_ids=[(result.name, result.run_id) for result in trained],
        agreement=logged.agreement,
        # Stages on texts of one kind say the same; it is shown once.
        trusts=list({r.trust.sentence: r.trust for r in results if r.trust is not None}.values()),
        acquiescence=[(name, m.acquiescence.overall) for name, m in last if math.isfinite(m.acquiescence.overall)],
        panels=[(name, m.panel, disputed(m)) for name, m in last if m.panel is not None],
        planted=planted(plan, results),
        planted_axes=planted_positions(plan, results),
        changes=[(r.name, [change for name, change in logged.changes if name == r.name]) for r in trained],
        examples=[(result.name, examples(result.measurements[-1])) for result in results],
        methods=logged.methods,
        parameters=Table(("key", "value"), list(logged.parameters.items())),
    )


def noise_taken_off(drift: Drift) -> tuple[float, float, float]:
    """A stage's overall drift, what sampling alone makes of it, and what is left without that."""
    measured, floor = drift.overall[-1], drift.overall_noise[-1]
    return float(measured), float(floor), float(above(measured, floor))


def with_rows(page: str, stage: str, own: MovingRows) -> str:
    """The page of a pipeline with the rows that moved one of its stages, in place of earlier ones.

    A page from before it had a place for them stays as it is.
    """
    begins, ends = f"<!-- rows of {stage} -->", f"<!-- end of rows of {stage} -->"
    before, begun, rest = page.partition(begins)
    _, ended, after = rest.partition(ends)
    if not begun or not ended:
        return page
    return before + begins + render("moving_rows.html.j2", stage=stage, own=own) + ends + after


def causes(plan: Plan, results: Sequence[StageResult]) -> Table:
    """What every stage was trained on and how, beside how far it moved."""
    rows = []
    for result in results:
        data = plan.data.get(result.name)
        if not result.start or data is None:
            continue
        drift = f"{result.drift.overall[-1]:.3f}" if math.isfinite(result.drift.overall[-1]) else ""
        steps = f"{int(result.drift.steps[-1]):,}"
        rows.append([result.name, result.start, result.algorithm, data.uri, f"{len(data.rows):,}", steps, drift])
    columns = ("stage", "starts from", "algorithm", "data", "rows", "steps", "net drift")
    return Table(columns, rows) if rows else NO_TABLE


def planted(plan: Plan, results: Sequence[StageResult]) -> list[tuple[str, list[float], list[float]]]:
    """For every SFT stage on data of known stances: the planted mix and the one measured at its end."""
    rows = []
    for result in results:
        data = plan.data.get(result.name)
        if data is not None and data.kind == "sft" and data.stance_mix:
            mix = np.mean(list(data.stance_mix.values()), axis=0)
            rows.append(
                (result.name, [float(v) for v in mix], [float(v) for v in result.drift.overall_probability[-1]])
            )
    return rows
