"""Figures, tables and the HTML report of finished models and of judges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.stances import LABELS, STANCES, Stance
from valuedrift_mlflow.statistics.intervals import with_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from valuedrift_mlflow.evaluation.measurement import Measurement
    from valuedrift_mlflow.evaluation.powered import PoweredEvaluation
    from valuedrift_mlflow.evaluation.results import Evaluation, JudgeCheck
from valuedrift_mlflow.evaluation.adjusted import AdjustedEvaluation
from valuedrift_mlflow.evaluation.axis_metrics import axis_rows
from valuedrift_mlflow.evaluation.reference import distance_figure, sentence
from valuedrift_mlflow.report.page import inline, render
from valuedrift_mlflow.report.plots import COLORS, legend, plot, readable

EXAMPLES = 12  # example responses of each stage in the report
DISPUTED = 40  # disputed responses in the report
_CAPTIONS = {
    "axis_shifts": "Shift along every axis of values from the baseline, with 95 % intervals over propositions.",
    "axis_positions": "Position on every axis of values, with 95 % intervals over propositions.",
    "stances": "Stances of every topic.",
    "reference_distance": "Distance from the reference: total variation, mean over its topics, with 95 % intervals.",
}


def evaluation_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of an evaluation's table: stances of every topic, drift where there is a baseline."""
    drift, compared, wording = evaluation.drift, evaluation.compared, evaluation.measurement.acquiescence
    columns = ["topic", *(stance.value for stance in STANCES), "acquiescence"]
    rows = []
    for t, topic in enumerate(drift.topics):
        row = [readable(topic)]
        row += [_shown(drift.probability[-1, t, s], drift.probability_ci[-1, t, s]) for s in range(len(STANCES))]
        row.append(with_interval(wording.values[t], wording.interval[t]) if np.isfinite(wording.values[t]) else "")
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


def evaluation_html(evaluation: Evaluation, pictures: Mapping[str, bytes]) -> str:
    """The report of one evaluation with its figures as they were drawn: one file, as ``html``."""
    from valuedrift_mlflow import tracking

    measurement, metrics = evaluation.measurement, evaluation.metrics
    columns, rows = evaluation_rows(evaluation)
    axis_columns, axis_cells = axes_of(evaluation)
    return render(
        "evaluation.html.j2",
        subject=evaluation.subject,
        baseline=evaluation.baseline,
        interval=evaluation.drift.interval,
        margin=evaluation.drift.margin,
        suite=measurement.suite,
        judge=measurement.judge,
        trust=evaluation.trust,
        worth=_worth(evaluation),
        untold=evaluation.untold,
        nearness=sentence(evaluation.distance, evaluation.reference) if evaluation.distance is not None else "",
        version=tracking.package_version(),
        figures=[(_CAPTIONS[name], inline(picture)) for name, picture in pictures.items()],
        keyed=bool(measurement.suite.axes),
        axis_columns=axis_columns,
        axis_rows=axis_cells,
        columns=columns,
        rows=rows,
        unscored=metrics["quality/unscored_rate"],
        refusals=metrics["quality/refusal_rate"],
        refusal=measurement.refusal,
        responses=len(measurement.responses),
        acquiescence=metrics.get("quality/acquiescence", math.nan),
        name="",
        panel=measurement.panel,
        disputed=disputed(measurement),
        labels=labels_section(evaluation),
        examples=examples(measurement),
    )


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


def evaluation_figures(evaluation: Evaluation) -> dict[str, Figure]:
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


def _stances_figure(evaluation: Evaluation) -> Figure:
    """A bar of stances for every topic, with the baseline's thinner below it."""
    drift, compared = evaluation.drift, evaluation.compared
    plt = plot()
    topics = [readable(topic) for topic in drift.topics]
    figure, axes = plt.subplots(figsize=(7, 0.9 + 0.42 * len(topics)), layout="constrained")
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
    axes.set_xlabel("share of responses" + (" (thin bars: the baseline)" if compared else ""))
    legend(figure, {}, 3)
    return figure  # type: ignore[no-any-return]


def judge_figures(check: JudgeCheck) -> dict[str, Figure]:
    """The figures of a judge's check: confusion matrix and calibration curve."""
    figures = {"confusion": _confusion_figure(check)}
    if len(check.quality.confidence):
        figures["calibration"] = _calibration_figure(check)
    return figures


def _confusion_figure(check: JudgeCheck) -> Figure:
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
    return figure  # type: ignore[no-any-return]


def _calibration_figure(check: JudgeCheck) -> Figure:
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
    return figure  # type: ignore[no-any-return]


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
