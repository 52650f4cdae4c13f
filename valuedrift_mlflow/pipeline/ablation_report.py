"""Figure and HTML report of an ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.judges.judge import identity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from valuedrift_mlflow.pipeline.ablation_axes import Shift
    from valuedrift_mlflow.pipeline.ablation_summary import Row, Summary
    from valuedrift_mlflow.pipeline.ablation_topics import TopicFindings
    from valuedrift_mlflow.pipeline.design import Ablation
    from valuedrift_mlflow.pipeline.directions import Direction
from valuedrift_mlflow.report.page import Illustration, Picture, render
from valuedrift_mlflow.report.plots import LINES, MARKERS, plot, readable
from valuedrift_mlflow.report.tables import Cell, Table
from valuedrift_mlflow.statistics.intervals import with_interval

Floats = NDArray[np.float64]
# Okabe and Ito's palette, for colour-blind readers; yellow is left out, as it is hard to see on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")


WIDTH = 5.2  # inches: in a page 390 pixels wide its text is still 9 pixels high
LEFT_OUT = 0.35  # of a place on the axis, which the lines of one figure share: intervals would hide each other


def ablation_figures(summaries: Sequence[Summary], *, from_base: bool = False) -> dict[str, Illustration]:
    """Drift with its intervals over the doses of the first axis, one line for each series (and further doses)."""
    if not summaries:
        return {}
    from valuedrift_mlflow.pipeline.ablation_summary import lines

    axis = summaries[0].doses[0].axis if summaries[0].doses else ""
    drawn = lines(summaries) if axis else {"": list(summaries)}
    figure, axes = plot().subplots(figsize=(WIDTH, 3.9), layout="constrained")
    labels = _labels(summaries)
    for number, (name, own) in enumerate(drawn.items()):
        values = np.array([[entry.drift, entry.low, entry.high] for entry in own])
        _line(axes, [labels.index(_label(entry)) for entry in own], values, name, number, len(drawn))
    noise = min(entry.noise for entry in summaries)  # flipped signs of large changes are more than noise
    axes.axhline(noise, color="0.5", linewidth=0.9, linestyle=":", label="noise")
    _doses(axes, labels, axis)
    axes.set_ylabel("drift (total variation)")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", frameon=False, ncols=3, fontsize=9)
    columns = ("cells", "series", "dose", "seeds", "drift", "ci_low", "ci_high", "noise")
    data: list[list[Cell]] = [
        [one.name, one.series, _label(one), one.seeds, one.drift, one.low, one.high, one.noise] for one in summaries
    ]
    start = "the base model" if from_base else "the model that every cell starts from"
    caption = (
        f"Drift from {start}, the mean over topics and seeds, with 95 % intervals. Dotted: the drift to expect had "
        "nothing changed (the smallest noise of the cells)."
    )
    name = f"drift_by_{axis}" if axis else "drift_by_stages"
    return {name: Illustration(figure, caption, _most(summaries), Table(columns, data))}


def _most(summaries: Sequence[Summary]) -> str:
    """Which choices drifted most and least, in one sentence."""
    known = sorted((one for one in summaries if np.isfinite(one.drift)), key=lambda one: one.drift)
    if not known:
        return "No cell came through."
    ends = [known[-1], known[0]] if len(known) > 1 else known
    told = [f"{one.name} {with_interval(one.drift, np.array([one.low, one.high]))}" for one in ends]
    return f"Most drift: {told[0]}{f'; least: {told[1]}' if len(told) > 1 else ''}."


def axes_figure(rows: Sequence[Row]) -> dict[str, Illustration]:
    """The shift along each axis of the suite over the doses of the first axis, a panel for each; none without keys."""
    from valuedrift_mlflow.pipeline.ablation_axes import shifts

    found = [entry for entry in shifts(rows) if np.isfinite(entry.shift.value)]
    if not found:
        return {}
    names = list(dict.fromkeys(entry.axis for entry in found))
    across = 2 if len(names) > 1 else 1
    down = -(-len(names) // across)
    figure, panels = plot().subplots(
        down, across, figsize=(WIDTH, 1.7 * down + 0.8), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    labels = _labels(found)
    for place, panel in enumerate(panels.flat):
        if place >= len(names):
            panel.set_visible(False)
            continue
        of_axis = [entry for entry in found if entry.axis == names[place]]
        by_line: dict[str, list[Shift]] = {}
        for entry in of_axis:
            rest = [f"{dose.axis} {dose.label}" for dose in entry.doses[1:]]
            by_line.setdefault(", ".join([entry.series, *rest]) if entry.doses else "", []).append(entry)
        panel.axhline(0, color="0.5", linewidth=0.8)
        for number, (name, own) in enumerate(by_line.items()):
            values = np.array([[entry.shift.value, *entry.shift.ends] for entry in own])
            _line(panel, [labels.index(_label(entry)) for entry in own], values, name, number, len(by_line))
        panel.set_title(readable(names[place]), fontsize=10)
        _doses(panel, labels, "")
        panel.tick_params(labelbottom=place >= len(names) - across)
    figure.supxlabel(readable(found[0].doses[0].axis) if found[0].doses else "", fontsize=10)
    figure.supylabel("axis shift", fontsize=10)
    handles, lines = panels.flat[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, lines, loc="outside upper center", frameon=False, ncols=3, fontsize=9)
    columns = ("series", "dose", "axis", "shift", "ci_low", "ci_high")
    data: list[list[Cell]] = [
        [one.series, _label(one), one.axis, one.shift.value, float(one.shift.ends[0]), float(one.shift.ends[1])]
        for one in found
    ]
    far = max(found, key=lambda one: abs(one.shift.value))
    told = with_interval(far.shift.value, far.shift.ends)
    says = f"The largest shift: {readable(far.axis)} {told} ({', '.join(dict.fromkeys((far.series, _label(far))))})."
    caption = "Axis shift since the start, the mean over seeds; 95 % intervals for other seeds and propositions."
    name = "axis_shift_by_" + (found[0].doses[0].axis if found[0].doses else "stages")
    return {name: Illustration(figure, caption, says, Table(columns, data))}


def _label(entry: Summary | Shift) -> str:
    return entry.doses[0].label if entry.doses else entry.series


def _labels(entries: Sequence[Summary | Shift]) -> list[str]:
    # One place for each label, not a scale: doses may be words ("style alone") and numbers decades apart.
    return list(dict.fromkeys(_label(entry) for entry in entries))


def _line(axes: Axes, places: Sequence[int], values: Floats, name: str, number: int, lines: int) -> None:
    """Means with intervals over places, values (n, 3): mean, lower and upper end; a colour, marker and dash of its own.

    An interval that is undefined is left out, the mean is not.
    """
    mean, low, high = values.T
    shift = LEFT_OUT * ((number + 0.5) / lines - 0.5)
    axes.errorbar(
        np.asarray(places) + shift,
        mean,
        yerr=np.nan_to_num(np.maximum([mean - low, high - mean], 0.0)),
        label=name or None,
        color=PALETTE[number % len(PALETTE)],
        linestyle=LINES[number % len(LINES)] if name else "none",
        marker=MARKERS[number % len(MARKERS)],
        markersize=4.5,
        linewidth=1.3,
        elinewidth=1,
        capsize=2,
    )


def _doses(axes: Axes, labels: Sequence[str], axis: str) -> None:
    crowded = sum(map(len, labels)) > 40
    axes.set_xticks(range(len(labels)), labels, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    axes.set_xlabel(readable(axis), fontsize=10)
    axes.tick_params(labelsize=9)
    axes.yaxis.label.set_fontsize(10)


def ablation_html(
    ablation: Ablation,
    rows: Sequence[Row],
    summaries: Sequence[Summary],
    directions: Sequence[Direction],
    pictures: Mapping[str, Picture],
    topics: TopicFindings,
) -> str:
    """The report of an ablation with its figures as they were drawn: one file, as ``html``."""
    from valuedrift_mlflow import tracking
    from valuedrift_mlflow.pipeline.ablation_axes import axes_rows
    from valuedrift_mlflow.pipeline.ablation_summary import SUMMARY_COLUMNS, crossed, summary_rows

    plan = ablation.cells[0].training.origin
    along = {name: picture for name, picture in pictures.items() if name.startswith("axis")}
    told = [[one.paper, "; ".join(one.here), one.verdict] for one in directions]
    return render(
        "ablation.html.j2",
        design=ablation.design_source,
        recipe=ablation.source,
        version=tracking.package_version(),
        suite=plan.suite,
        judge=identity(plan.judge),
        leads=[_most(summaries), *topics.lines()],
        directions=Table(("reported of the paper (arXiv 2510.26707)", "here", "so"), told),
        pictures=[picture for name, picture in pictures.items() if name not in along],
        shifts=Table(*axes_rows(rows)),
        shift_pictures=list(along.values()),
        crossed=Table(*crossed(summaries)),
        by_topic=[(title, Table(columns, cells)) for title, columns, cells in topics.shown()],
        summary=Table(SUMMARY_COLUMNS, summary_rows(summaries)),
        cells=_cells(rows),
        failed=[(_name(row), row.reason) for row in rows if row.reason],
        notes=ablation.notes,
        parameters=Table(("setting", "value"), list(ablation.recipe.parameters().items())),
    )


def _name(row: Row) -> str:
    from valuedrift_mlflow.pipeline.ablation_summary import cell_name

    return cell_name(row.series, row.doses, row.seed)


def _cells(rows: Sequence[Row]) -> Table:
    """Every cell that came through."""
    columns = ("cell", "drift [95 % interval over prompts]", "topics moved", "unscored", "run")
    cells: list[list[Cell]] = [
        [
            _name(row),
            with_interval(row.drift, np.array(row.interval)),
            f"{row.topics_moved:.0f}",
            f"{row.unscored_rate:.3f}",
            row.run_id,
        ]
        for row in rows
        if not row.reason
    ]
    return Table(columns, cells)
