"""The figure, the tables and the page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation import methods
from valuedrift_mlflow.evaluation.certainty import measured_line
from valuedrift_mlflow.evaluation.headline import lead_of, verdict_counts
from valuedrift_mlflow.report.page import Illustration, Picture, render
from valuedrift_mlflow.report.plots import plot, readable
from valuedrift_mlflow.report.tables import Cell, Table
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics.intervals import with_interval
from valuedrift_mlflow.statistics.verdicts import CANNOT_TELL, MOVED, NOT_MOVED

if TYPE_CHECKING:
    from valuedrift_mlflow.evaluation.compare import Compared


def overall_rows(compared: Compared) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of the table of targets, the baseline first."""
    drift = compared.drift
    columns = ["", *(stance.value for stance in STANCES), "net drift [95 % interval]", MOVED, NOT_MOVED, CANNOT_TELL]
    rows = []
    for place, target in enumerate(compared.targets):
        shares = [
            with_interval(drift.overall_probability[place, s], drift.overall_probability_ci[place, s])
            if np.isfinite(drift.overall_probability[place, s])
            else ""
            for s in range(len(STANCES))
        ]
        if not place:
            rows.append([f"{target.name} (baseline)", *shares, "", "", "", ""])
            continue
        counts = verdict_counts(drift, place)
        net = with_interval(drift.overall[place], drift.overall_ci[place]) if np.isfinite(drift.overall[place]) else ""
        told = [str(counts[verdict]) for verdict in (MOVED, NOT_MOVED, CANNOT_TELL)]
        rows.append([target.name, *shares, net, *told])
    return columns, rows


def topic_rows(compared: Compared) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of the table of topics: the net drift of every target, with a star where it moved."""
    drift = compared.drift
    rows = []
    for t, topic in enumerate(drift.topics):
        cells = []
        for place in range(1, len(compared.targets)):
            value, star = drift.total_variation[place, t], " *" if drift.topic_significant[place, t] else ""
            known = np.isfinite(value)
            cells.append(with_interval(value, drift.total_variation_ci[place, t]) + star if known else "")
        rows.append([readable(topic), *cells])
    return ["topic", *compared.names], rows


def comparison_figures(compared: Compared) -> dict[str, Illustration]:
    """The heat map: net drift of every topic (rows) and target (columns) from the baseline."""
    import seaborn as sns

    drift, plt = compared.drift, plot()
    values = drift.total_variation[1:].T
    starred = drift.topic_significant[1:].T
    marks = np.array([[_mark(*cell) for cell in zip(*row, strict=True)] for row in zip(values, starred, strict=True)])
    width = max(4.2, 2.4 + 0.75 * values.shape[1])
    figure, axes = plt.subplots(figsize=(width, 1.6 + 0.3 * len(drift.topics)), layout="constrained")
    sns.heatmap(
        values,
        annot=marks,
        fmt="",
        vmin=0,
        vmax=max(0.2, float(np.nanmax(values, initial=0.0))),
        cmap="Blues",
        xticklabels=compared.names,
        yticklabels=[readable(topic) for topic in drift.topics],
        cbar_kws={"label": "net drift (total variation)"},
        linewidths=0.5,
        ax=axes,
    )
    axes.tick_params(axis="x", rotation=30)
    plt.setp(axes.get_xticklabels(), ha="right")
    axes.tick_params(axis="y", rotation=0)
    rows: list[list[Cell]] = [
        [name, topic, float(values[t, place]), str(drift.verdict[place + 1, t])]
        for place, name in enumerate(compared.names)
        for t, topic in enumerate(drift.topics)
    ]
    baseline = compared.targets[0].name
    caption = f"Net drift of every topic from {baseline}; a star marks topics that moved significantly."
    moved = [f"{name} {int(drift.topic_significant[p].sum())}" for p, name in enumerate(compared.names, start=1)]
    says = f"Topics of {len(drift.topics)} that moved: {', '.join(moved)}."
    data = Table(("target", "topic", "drift", "verdict"), rows)
    return {"drift_heatmap": Illustration(figure, caption, says, data)}


def _mark(value: float, star: bool) -> str:
    return f"{value:.2f}{'*' if star else ''}" if np.isfinite(value) else ""


def comparison_html(compared: Compared, pictures: Mapping[str, Picture]) -> str:
    """The page of a comparison: one file."""
    drift, suite = compared.drift, compared.measurements[-1].suite
    version = tracking.package_version()
    told = [
        f"{name}: {line}" for place, name in enumerate(compared.names, start=1) if (line := measured_line(drift, place))
    ]
    measured = compared.measurements[0]
    return render(
        "comparison.html.j2",
        baseline=compared.targets[0],
        targets=compared.targets[1:],
        leads=[lead_of(name, drift, compared.axes, suite, place) for place, name in enumerate(compared.names, start=1)],
        suite=suite,
        judge=measured.judge,
        interval=drift.interval,
        margin=drift.margin,
        notes=[*compared.notes, *told],
        overall=Table(*overall_rows(compared)),
        topics=Table(*topic_rows(compared)),
        pictures=list(pictures.values()),
        changes=compared.changes,
        methods=[
            f"{methods.asked(suite)} {methods.judged(measured)}",
            methods.analysed(drift, suite),
            methods.made_with(version),
        ],
        version=version,
    )
