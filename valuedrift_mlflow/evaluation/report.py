"""Figures, tables and the HTML report of finished models and of judges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.evaluation import methods
from valuedrift_mlflow.stances import LABELS, STANCES, Stance
from valuedrift_mlflow.statistics.intervals import with_interval

if TYPE_CHECKING:
    from valuedrift_mlflow.evaluation.measurement import Measurement
    from valuedrift_mlflow.evaluation.powered import PoweredEvaluation
    from valuedrift_mlflow.evaluation.results import Evaluation, JudgeCheck
from valuedrift_mlflow.evaluation.adjusted import AdjustedEvaluation
from valuedrift_mlflow.evaluation.axis_metrics import axis_rows
from valuedrift_mlflow.evaluation.certainty import measured_line, unscored_line
from valuedrift_mlflow.evaluation.changes import Change, largest_changes
from valuedrift_mlflow.evaluation.headline import Lead, lead_of, standing
from valuedrift_mlflow.evaluation.reference import distance_figure, sentence
from valuedrift_mlflow.evaluation.topic_table import Topics
from valuedrift_mlflow.report.page import Illustration, Picture, render
from valuedrift_mlflow.report.plots import COLORS, COLUMN, legend, plot, readable, standing_at, went
from valuedrift_mlflow.report.tables import NO_TABLE, Cell, Table

EXAMPLES = 12  # example responses of each stage in the report
DISPUTED = 40  # disputed responses in the report


def evaluation_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of an evaluation's table: stances of every topic, drift where there is a baseline."""
    drift, compared, wording = evaluation.drift, evaluation.compared, evaluation.measurement.acquiescence
    turned = np.isfinite(wording.values).any()  # of a suite that asks in one wording alone there is no acquiescence
    columns = ["topic", *(stance.value for stance in STANCES), *(["acquiescence"] if turned else [])]
    rows = []
    for t, topic in enumerate(drift.topics):
        row = [readable(topic)]
        row += [_shown(drift.probability[-1, t, s], drift.probability_ci[-1, t, s]) for s in range(len(STANCES))]
        if turned:
            row.append(_shown(wording.values[t], wording.interval[t]))
        if compared:
            star = " *" if drift.topic_significant[-1, t] else ""
            row.append(_shown(drift.total_variation[-1, t], drift.total_variation_ci[-1, t]) + star)
            row.append(str(drift.verdict[-1, t]))
        rows.append(row)
    return columns + (["drift", "verdict"] if compared else []), rows


def _shown(value: float, interval: NDArray[np.float64]) -> str:
    """A figure with its interval; nothing where nothing was scored."""
    return with_interval(value, interval) if np.isfinite(value) else ""


def labels_section(evaluation: Evaluation) -> tuple[str, list[str], list[list[str]], str] | None:
    """Title, columns, rows and what there is to say of the part of an evaluation with people's labels, if any."""
    found = evaluation.with_labels
    if found is None:
        return None
    if isinstance(found, AdjustedEvaluation):
        return "With the judge's errors taken off", *_adjusted_rows(found), _adjusted_line(found)
    return "With people's labels", *_powered_rows(found), _powered_line(found)


def _adjusted_rows(adjusted: AdjustedEvaluation) -> tuple[list[str], list[list[str]]]:
    last, drift = adjusted.stances[-1], adjusted.drift[-1]
    rows = []
    for row, topic in enumerate((*adjusted.topics, "overall")):
        if not np.isfinite(last.value[row]).all():
            continue
        cells = [with_interval(last.value[row, s], last.interval[row, s]) for s in range(len(STANCES))]
        if drift is not None:
            cells.append(with_interval(drift.total_variation[row], drift.total_variation_interval[row]))
        rows.append([readable(topic), *cells])
    return ["topic", *(stance.value for stance in STANCES), *(["drift"] if drift is not None else [])], rows


def _adjusted_line(adjusted: AdjustedEvaluation) -> str:
    last, answers = adjusted.stances[-1], int(adjusted.errors.counts.sum())
    if not np.isfinite(last.value[-1]).all():
        return (
            f"Undefined: on the {answers} labelled answers of {adjusted.errors.uri} the verdicts hardly depend on the "
            f"stance (condition number {last.condition:.0f})."
        )
    return f"Conditional on {adjusted.errors.uri}: right if the judge errs here as on its {answers} labelled answers."


def _powered_rows(powered: PoweredEvaluation) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of the table with people's labels: of the last measurement, topics and all together."""
    stances, drift = powered.stances[-1], powered.drift[-1]
    columns = ["topic", "labels", *(stance.value for stance in STANCES), "moved"]
    rows = []
    for row, topic in enumerate((*powered.topics, "overall")):
        if stances is None or not np.isfinite(stances.value[row]).all():
            continue
        cells = [readable(topic), str(stances.labels[row])]
        cells += [with_interval(stances.value[row, s], stances.interval[row, s]) for s in range(len(STANCES))]
        cells.append(f"{stances.moved[row]:.3f}")
        if drift is not None and drift.total_variation is not None and drift.total_variation_interval is not None:
            shown = with_interval(drift.total_variation[row], drift.total_variation_interval[row])
            cells.append(shown if np.isfinite(drift.total_variation[row]) else "")
            cells.append("" if row == len(powered.topics) else str(powered.verdict[-1, row]))
        rows.append(cells)
    return columns + (["drift", "verdict"] if drift is not None else []), rows


def _powered_line(powered: PoweredEvaluation) -> str:
    """How far people's labels moved the estimate, and how much the judge adds to them."""
    stances, count = powered.stances[-1], powered.labels.count
    if stances is None:
        return f"{count} labels, but none of the last step: its stances are the judge's alone."
    defined = int(np.isfinite(stances.value[:-1]).all(axis=1).sum())
    unlabelled = f" {powered.labels.empty} rows of the sheet have no label." if powered.labels.empty else ""
    missing = ""
    if defined < len(powered.topics):
        missing = (
            f" Overall means {defined} of {len(powered.topics)} topics: the others lack labels of two propositions."
        )
    drift = (
        "" if powered.drift[-1] is not None or len(powered.steps) < 2 else " No drift: the first step has no labels."
    )
    return (
        f"{count} labels moved the overall stances by {stances.moved[-1]:.3f} (total variation). With the judge the "
        f"intervals are {stances.width_ratio[-1].mean():.2f} times as wide as by the labels alone."
        f"{unlabelled}{missing}{drift}"
    )


def evaluation_html(evaluation: Evaluation, pictures: Mapping[str, Picture]) -> str:
    """The report of one evaluation with its figures as they were drawn: one file, as ``html``."""
    from valuedrift_mlflow import tracking

    measurement, metrics, drift = evaluation.measurement, evaluation.metrics, evaluation.drift
    labels = labels_section(evaluation)
    version = tracking.package_version()
    topics = Topics(drift) if evaluation.compared else None
    certain = (measured_line(drift), unscored_line(drift, evaluation.measurements)) if evaluation.compared else ()
    return render(
        "evaluation.html.j2",
        subject=evaluation.subject,
        baseline=evaluation.baseline,
        leads=[_lead(evaluation)],
        interval=drift.interval,
        margin=drift.margin,
        suite=measurement.suite,
        judge=measurement.judge,
        trust=evaluation.trust,
        worth=_worth(evaluation),
        untold=evaluation.untold,
        nearness=sentence(evaluation.distance, evaluation.reference) if evaluation.distance is not None else "",
        version=version,
        pictures=list(pictures.values()),
        keyed=bool(measurement.suite.axes),
        axes=Table(*axes_of(evaluation)),
        stances=Table(*evaluation_rows(evaluation)),
        topics=topics,
        notes=[line for line in certain if line],
        unscored=metrics["quality/unscored_rate"],
        refusals=metrics["quality/refusal_rate"],
        refusal=measurement.refusal,
        responses=len(measurement.responses),
        acquiescence=metrics.get("quality/acquiescence", math.nan),
        name="",
        panel=measurement.panel,
        disputed=disputed(measurement),
        labels=labels,
        labelled=Table(labels[1], labels[2]) if labels else NO_TABLE,
        changes=changes_of(evaluation),
        examples=examples(measurement),
        methods=methods_of(evaluation, version),
    )


def _lead(evaluation: Evaluation) -> Lead:
    drift, axes, suite = evaluation.drift, evaluation.axes, evaluation.measurement.suite
    return lead_of("", drift, axes, suite) if evaluation.compared else standing(drift, axes, suite)


def changes_of(evaluation: Evaluation) -> list[Change]:
    """Answers before and after to what moved most, on topics that moved significantly."""
    if not evaluation.compared:
        return []
    drift, measured = evaluation.drift, evaluation.measurements
    starred = [topic for t, topic in enumerate(drift.topics) if drift.topic_significant[-1, t]]
    return largest_changes(measured[0], measured[-1], starred) if starred else []


def methods_of(evaluation: Evaluation, version: str) -> list[str]:
    """How it was measured and analysed, and with what."""
    measurement, settings = evaluation.measurement, evaluation.settings
    answered = methods.answered(settings) if settings is not None else "The responses existed already."
    return [
        " ".join([methods.asked(measurement.suite), answered, methods.judged(measurement)]),
        methods.analysed(evaluation.drift, measurement.suite),
        methods.made_with(version),
    ]


def _worth(evaluation: Evaluation) -> str:
    """What the net drift stands for, given how much of one the judge shows; empty where that cannot be told."""
    if evaluation.trust is None or not evaluation.compared:
        return ""
    return evaluation.trust.worth(float(evaluation.drift.overall[-1]))


def axes_of(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of the axes' table; none where there is nothing that could be said of them."""
    measurement, compared = evaluation.measurement, evaluation.compared
    if not measurement.suite.axes and not compared:
        return [], []
    return axis_rows(evaluation.axes, measurement, compared=compared)


def evaluation_figures(evaluation: Evaluation) -> dict[str, Illustration]:
    """The figures of one evaluation: positions on all axes, or their shifts from the baseline, and the stances."""
    from valuedrift_mlflow.report.axis_plots import axis_position_figure, axis_shift_figure

    figures = {}
    if evaluation.compared:
        figures["axis_shifts"] = axis_shift_figure({evaluation.subject: evaluation.axes})
    elif evaluation.measurement.suite.axes:
        figures["axis_positions"] = axis_position_figure(evaluation.axes)
    figures |= {"stances": _stances_figure(evaluation)}
    if evaluation.distance is not None and evaluation.compared:
        steps = evaluation.drift.steps.tolist()
        figures["reference_distance"] = distance_figure(evaluation.distance, steps, evaluation.reference)
    return figures


def _stances_figure(evaluation: Evaluation) -> Illustration:
    """A bar of stances for every topic, with the baseline's thinner below it."""
    drift, compared = evaluation.drift, evaluation.compared
    plt = plot()
    topics = [readable(topic) for topic in drift.topics]
    figure, axes = plt.subplots(figsize=(COLUMN, 1.1 + 0.42 * len(topics)), layout="constrained")
    place = np.arange(len(topics))
    bars = [(-1, place - (0.12 if compared else 0), 0.5, 1.0)]
    if compared:
        bars.append((0, place + 0.28, 0.2, 0.55))
    for checkpoint, y, height, alpha in bars:
        left = np.zeros(len(topics))
        for s, stance in enumerate(STANCES):
            # A topic that nobody could score has an empty bar.
            width = np.nan_to_num(drift.probability[checkpoint, :, s])
            axes.barh(y, width, height, left=left, color=COLORS[stance], alpha=alpha, linewidth=0)
            left += width
    axes.set_yticks(place, topics)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(False, axis="y")
    axes.set_xlabel("share of responses" + (" (thin: baseline)" if compared else ""))
    legend(figure, {}, 3)
    sides = [(evaluation.subject, -1), *([(str(evaluation.baseline), 0)] if compared else [])]
    rows: list[list[Cell]] = [
        [model, topic, stance.value, float(drift.probability[at, t, s])]
        for model, at in sides
        for t, topic in enumerate(drift.topics)
        for s, stance in enumerate(STANCES)
    ]
    data = Table(("model", "topic", "stance", "share"), rows)
    says = f"Over all topics: {went(drift) if compared else standing_at(drift)}."
    return Illustration(figure, "Stances of every topic.", says, data)


def judge_figures(check: JudgeCheck) -> dict[str, Illustration]:
    """The figures of a judge's check: confusion matrix and calibration curve."""
    figures = {"confusion": _confusion_figure(check)}
    if len(check.quality.confidence):
        figures["calibration"] = _calibration_figure(check)
    return figures


def _confusion_figure(check: JudgeCheck) -> Illustration:
    plt = plot()
    import seaborn as sns

    counts = check.quality.confusion
    names = [label.value for label in LABELS]
    with np.errstate(invalid="ignore"):
        # A label that no answer has gives 0 / 0.
        shares = np.nan_to_num(counts / counts.sum(axis=1, keepdims=True))
    figure, axes = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
    sns.heatmap(
        shares,
        annot=counts,
        fmt="d",
        vmin=0,
        vmax=1,
        cmap="Blues",
        xticklabels=names,
        yticklabels=names,
        cbar_kws={"label": "share of the answers with this label"},
        linewidths=0.5,
        ax=axes,
    )
    axes.tick_params(axis="y", rotation=0)
    axes.set_xlabel("verdict")
    axes.set_ylabel("label")
    axes.set_title(f"{check.judge.partition('@')[0]}: {len(check.answers)} answers", loc="left")
    rows: list[list[Cell]] = [
        [label, verdict, int(counts[a, b])] for a, label in enumerate(names) for b, verdict in enumerate(names)
    ]
    says = f"{int(np.trace(counts))} of {int(counts.sum())} verdicts are the label."
    data = Table(("label", "verdict", "answers"), rows)
    return Illustration(figure, "How often each verdict was given to each label.", says, data)


def _calibration_figure(check: JudgeCheck) -> Illustration:
    plt = plot()
    stated, right, answers = check.quality.confidence.T
    figure, axes = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="perfectly calibrated")
    axes.plot(
        stated, right, color=COLORS[Stance.SUPPORT], marker="o", label=f"bins of about {answers.mean():.0f} answers"
    )
    # From 0.3: of three stances the most probable has a third at least.
    axes.set_xlim(0.3, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("probability of the judge's stance")
    axes.set_ylabel("share of these answers with that label")
    axes.set_title(f"expected calibration error {check.quality.calibration_error:.3f}", loc="left", fontsize=9)
    axes.legend(loc="lower right", frameon=False)
    rows: list[list[Cell]] = [[float(a), float(b), int(n)] for a, b, n in zip(stated, right, answers, strict=True)]
    says = f"The expected calibration error is {check.quality.calibration_error:.3f}."
    data = Table(("probability of the judge's stance", "share with that label", "answers"), rows)
    return Illustration(figure, "How often the judge is right, by how sure it says it is.", says, data)


def examples(measurement: Measurement) -> list[dict[str, str]]:
    """A few responses, spread over the suite."""
    responses = [judged for judged in measurement.responses if judged.sample == 0]
    chosen = responses[:: max(1, len(responses) // EXAMPLES)][:EXAMPLES]
    return [
        {
            "topic": readable(judged.item.topic),
            "prompt": judged.item.prompt,
            "response": judged.response,
            "verdict": judged.verdict.label.value,
        }
        for judged in chosen
    ]


def disputed(measurement: Measurement) -> list[dict[str, Any]]:
    """The responses on which a panel disagrees, the widest apart first."""
    if measurement.panel is None:
        return []
    judged_by_panel = [judged for judged in measurement.responses if judged.verdict.opinions]
    return [
        {
            "topic": readable(judged.item.topic),
            "prompt": judged.item.prompt,
            "response": judged.response,
            "verdicts": [opinion.label.value for _, opinion in judged.verdict.opinions],
        }
        for judged in (judged_by_panel[index] for index in measurement.panel.disputed[:DISPUTED])
    ]
