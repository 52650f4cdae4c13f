"""The figures of a pipeline: shifts along axes, stances from stage to stage, a heat map of topics and stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

from valuedrift_mlflow.pipeline.axis_report import shift_figure
from valuedrift_mlflow.pipeline.plan import StageResult
from valuedrift_mlflow.report.page import Illustration
from valuedrift_mlflow.report.plots import (
    COLUMN,
    LINES,
    STANCE_COLUMNS,
    curves,
    grid,
    legend,
    plot,
    readable,
    stance_rows,
    went,
)
from valuedrift_mlflow.report.tables import Cell, Table


def _depths(results: Sequence[StageResult]) -> dict[str, int]:
    depths: dict[str, int] = {}
    for result in results:
        # Results come in the recipe's order, in which a start stands before whatever starts from it.
        depths[result.name] = depths[result.start] + 1 if result.start else 0
    return depths


def pipeline_figures(results: Sequence[StageResult]) -> dict[str, Illustration]:
    """The figures over all stages: axis shifts, the headline of all topics, trajectories from the base on, a heat map.

    More stages side by side than there are line styles get a panel each in the headline, and no trajectories: those
    of each stage are in its own run.
    """
    trained = [result for result in results if result.start]
    interval = results[-1].drift.interval
    units = interval if interval == "propositions" else "the responses to these prompts"
    overall = f"Stances over all topics from stage to stage. Bands are 95 % intervals over {units}."
    rows = [row for result in results for row in stance_rows(result.name, result.drift)]
    of_all = Table(STANCE_COLUMNS, [row for row in rows if row[2] == "all"])
    says = ". ".join(f"{result.name}: {went(result.drift)}" for result in (trained or results)) + "."
    depths = list(_depths(results).values())
    if max(map(depths.count, depths)) > len(LINES):
        figures = shift_figure(results) | {"overall": Illustration(_branches(results), overall, says, of_all)}
    else:
        by_topic = Table(STANCE_COLUMNS, [row for row in rows if row[2] != "all"])
        trajectories, caption = _trajectories(results), "Stances of every topic from stage to stage."
        figures = shift_figure(results)
        figures["overall"] = Illustration(_overall_figure(results), overall, says, of_all)
        figures["stance_trajectories"] = Illustration(trajectories, caption, _topics_say(results), by_topic)
    if trained:
        figures["drift_heatmap"] = _heatmap(trained)
    return figures


def _topics_say(results: Sequence[StageResult]) -> str:
    """Between which topics support lies at the end of every stage."""
    said = []
    for result in results:
        support = result.drift.probability[-1, :, 0]
        if np.isfinite(support).any():
            ends = int(np.nanargmin(support)), int(np.nanargmax(support))
            low, high = (f"{support[t]:.2f} ({readable(result.drift.topics[t])})" for t in ends)
            said.append(f"At the end of {result.name} support lies between {low} and {high}")
    return ". ".join(said) + "."


def _x_and_lines(results: Sequence[StageResult]) -> tuple[dict[str, NDArray[np.float64]], dict[str, str], list[str]]:
    """Where each stage lies on the axis (one unit a generation of stages), its line style, the units' names."""
    depths = _depths(results)
    x: dict[str, NDArray[np.float64]] = {}
    lines: dict[str, str] = {}
    names: dict[int, list[str]] = {}
    for result in results:
        depth = depths[result.name]
        if depth == 0:
            continue
        steps = result.drift.steps - result.drift.steps[0]
        x[result.name] = depth - 1 + steps / max(1, steps[-1])
        lines[result.name] = LINES[len(names.setdefault(depth, [])) % len(LINES)]
        names[depth].append(result.name)
    return x, lines, [" | ".join(names[depth]) for depth in sorted(names)]


def _draw_panel(
    axes: Axes,
    results: Sequence[StageResult],
    x: Mapping[str, NDArray[np.float64]],
    lines: Mapping[str, str],
    topic: int | None,
) -> None:
    for result in results:
        drift = result.drift
        probability = drift.overall_probability if topic is None else drift.probability[:, topic]
        interval = drift.overall_probability_ci if topic is None else drift.probability_ci[:, topic]
        if result.name in x:
            curves(axes, x[result.name], probability, interval, lines[result.name])
        elif len(results) == 1:
            curves(axes, np.zeros(1), probability, interval)
    axes.set_ylim(0, 1)


def _name_generations(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xlim(0, max(1, len(names)))
    axes.set_xticks([i + 0.5 for i in range(len(names))], names, fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.grid(False, axis="x")
    for border in range(1, len(names)):
        axes.axvline(border, color="0.6", linewidth=0.8)


def _overall_figure(results: Sequence[StageResult]) -> Figure:
    plt = plot()
    figure, axes = plt.subplots(figsize=(COLUMN, 3.2), layout="constrained")
    x, lines, names = _x_and_lines(results)
    _draw_panel(axes, results, x, lines, None)
    _name_generations(axes, names)
    axes.set_ylabel("share of responses, mean over topics")
    legend(figure, {name: line for name, line in lines.items() if _shares_generation(name, results)}, 3)
    return figure  # type: ignore[no-any-return]


def _branches(results: Sequence[StageResult]) -> Figure:
    """Stances over all topics in a panel for each stage that no other one starts from, from the base up to it."""
    named = {result.name: result for result in results}
    starts = {result.start for result in results}
    ends = [result for result in results if result.name not in starts]
    figure, panels = grid(len(ends), one_x=False)  # each names its own stages
    for axes, end in zip(panels, ends, strict=True):
        way = [end]
        while way[0].start:
            way.insert(0, named[way[0].start])
        x, lines, names = _x_and_lines(way)
        _draw_panel(axes, way, x, lines, None)
        _name_generations(axes, names)
        axes.set_title(end.name)
    figure.supylabel("share of responses, mean over topics", fontsize=10)
    legend(figure, {})
    return figure


def _shares_generation(name: str, results: Sequence[StageResult]) -> bool:
    depths = _depths(results)
    return sum(depth == depths[name] for depth in depths.values()) > 1


def _trajectories(results: Sequence[StageResult]) -> Figure:
    topics = results[0].drift.topics
    figure, panels = grid(len(topics))
    x, lines, names = _x_and_lines(results)
    for t, axes in enumerate(panels):
        _draw_panel(axes, results, x, lines, t)
        _name_generations(axes, [name.replace(" | ", "\n") for name in names])
        axes.set_title(readable(topics[t]))
    figure.supylabel("share of responses", fontsize=10)
    legend(figure, {name: line for name, line in lines.items() if _shares_generation(name, results)})
    return figure


def _heatmap(trained: Sequence[StageResult]) -> Illustration:
    plt = plot()
    import seaborn as sns

    topics = trained[0].drift.topics
    values = np.array([[result.drift.total_variation[-1, t] for result in trained] for t in range(len(topics))])
    stars = np.array([[result.drift.topic_significant[-1, t] for result in trained] for t in range(len(topics))])
    texts = np.array(
        [
            [f"{v:.2f}{'*' if star else ''}" for v, star in zip(*row, strict=True)]
            for row in zip(values, stars, strict=True)
        ]
    )
    figure, axes = plt.subplots(figsize=(2.4 + 0.95 * len(trained), 0.9 + 0.33 * len(topics)), layout="constrained")
    sns.heatmap(
        values,
        # Texts of our own, as seaborn's have no stars.
        annot=texts,
        fmt="",
        vmin=0,
        # The colours reach 0.5 at least: the largest of many small drifts must not look like a large one.
        vmax=float(np.nanmax(values, initial=0.5)),
        cmap="rocket_r",
        xticklabels=[result.name for result in trained],
        yticklabels=[readable(topic) for topic in topics],
        cbar_kws={"label": "drift over the stage (total variation)"},
        linewidths=0.5,
        ax=axes,
    )
    axes.tick_params(axis="y", rotation=0)
    axes.tick_params(axis="x", rotation=30 if len(trained) > 2 or max(len(r.name) for r in trained) > 10 else 0)
    caption = (
        "Net drift of each topic during each stage: total variation from the stage's start. * significant at 5 %, in "
        "the family of all checkpoints, topics and stances."
    )
    rows: list[list[Cell]] = []
    for s, result in enumerate(trained):
        for t, topic in enumerate(topics):
            ends = map(float, result.drift.total_variation_ci[-1, t])
            rows.append([topic, result.name, float(values[t, s]), *ends, str(bool(stars[t, s]))])
    data = Table(("topic", "stage", "net drift", "ci_low", "ci_high", "significant"), rows)
    return Illustration(figure, caption, _heatmap_says(trained), data)


def _heatmap_says(trained: Sequence[StageResult]) -> str:
    """Of every stage how many topics moved, and the largest drift."""
    said = []
    for result in trained:
        drift = result.drift.total_variation[-1]
        count = f"{result.name}: {result.moved} of {len(drift)} topics moved significantly"
        if np.isfinite(drift).any():
            most = int(np.nanargmax(drift))
            count = f"{count}, the largest net drift is {drift[most]:.2f} ({readable(result.drift.topics[most])})"
        said.append(count)
    return ". ".join(said) + "."
