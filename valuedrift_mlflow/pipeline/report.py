"""Figures and the HTML report of a pipeline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from valuedrift_mlflow.judges.judge import identity
from valuedrift_mlflow.stances import STANCES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

from valuedrift_mlflow.evaluation.report import disputed, examples
from valuedrift_mlflow.pipeline.axis_report import planted_positions, shift_figure, shift_rows
from valuedrift_mlflow.pipeline.plan import SUMMARY_COLUMNS, Plan, StageResult, certainty_lines, summary_rows
from valuedrift_mlflow.report.page import inline, render
from valuedrift_mlflow.report.plots import LINES, curves, grid, legend, plot, readable


def _depths(results: Sequence[StageResult]) -> dict[str, int]:
    depths: dict[str, int] = {}
    for result in results:
        # Results come in the recipe's order, in which a start stands before whatever starts from it.
        depths[result.name] = depths[result.start] + 1 if result.start else 0
    return depths


def pipeline_figures(results: Sequence[StageResult]) -> dict[str, Figure]:
    """The figures over all stages: axis shifts, the headline of all topics, trajectories from the base on, a heat map.

    More stages side by side than there are line styles get a panel each in the headline, and no trajectories: those
    of each stage are in its own run.
    """
    trained = [result for result in results if result.start]
    depths = list(_depths(results).values())
    if max(map(depths.count, depths)) > len(LINES):
        figures = shift_figure(results) | {"overall": _branches(results)}
    else:
        figures = shift_figure(results)
        figures |= {"overall": _overall_figure(results), "stance_trajectories": _trajectories(results)}
    if trained:
        figures["drift_heatmap"] = _heatmap(trained)
    return figures


def _x_and_lines(results: Sequence[StageResult]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Where each stage lies on the axis (one unit a generation of stages), its line style, the units' names."""
    depths = _depths(results)
    x: dict[str, Any] = {}
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
    axes: Axes, results: Sequence[StageResult], x: Mapping[str, Any], lines: Mapping[str, str], topic: int | None
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
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    x, lines, names = _x_and_lines(results)
    _draw_panel(axes, results, x, lines, None)
    _name_generations(axes, names)
    axes.set_ylabel("share of responses, mean over topics")
    legend(figure, {name: line for name, line in lines.items() if _shares_generation(name, results)}, 5)
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


def _heatmap(trained: Sequence[StageResult]) -> Figure:
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
    figure, axes = plt.subplots(figsize=(2.8 + 1.25 * len(trained), 0.6 + 0.36 * len(topics)), layout="constrained")
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
    axes.set_title(
        "* significant at 5 %, in the family of all checkpoints, topics and stances",
        fontsize=8,
        fontweight="normal",
        loc="left",
    )
    return figure  # type: ignore[no-any-return]


def html(
    plan: Plan,
    results: Sequence[StageResult],
    parameters: Mapping[str, str],
    agreement: Mapping[str, float],
    pictures: Mapping[str, bytes],
) -> str:
    """The report: one file without any reference to another, everything a model wrote escaped.

    It shows what was measured and logged before: ``agreement`` is what the pipeline's run says of the judge,
    ``pictures`` are its figures as they were drawn.
    """
    from valuedrift_mlflow import tracking

    units = plan.recipe.interval if plan.recipe.interval == "propositions" else "the responses to these prompts"
    captions = {
        "axis_shifts": "Shift along every axis of values during each stage, with 95 % intervals over propositions.",
        "overall": f"Stances over all topics. Bands are 95 % intervals over {units}.",
        "drift_heatmap": "Net drift of each topic during each stage: total variation from the stage's start.",
        "stance_trajectories": "Stances of every topic from stage to stage.",
    }
    axis_columns, axis_rows = shift_rows(results, plan.suite)
    last = [(result.name, result.measurements[-1]) for result in results]
    return render(
        "report.html.j2",
        recipe=plan.source,
        interval=plan.recipe.interval,
        margin=plan.recipe.margin,
        version=tracking.package_version(),
        keyed=bool(plan.suite.axes),
        axis_columns=axis_columns,
        axis_rows=axis_rows,
        columns=SUMMARY_COLUMNS,
        rows=summary_rows(results),
        notes=[*certainty_lines(results), *plan.notes],
        remeasured=[
            (r.name, r.start, r.remeasured, float(r.drift.overall_noise[-1]))
            for r in results
            if r.remeasured is not None
        ],
        figures=[(captions[name], inline(pictures[name])) for name in captions if name in pictures],
        judge=identity(plan.judge),
        agreement=agreement,
        # Stages on texts of one kind say the same; it is shown once.
        trusts=list({r.trust.sentence: r.trust for r in results if r.trust is not None}.values()),
        refusal=plan.recipe.refusal,
        acquiescence=[(name, m.acquiescence.overall) for name, m in last if math.isfinite(m.acquiescence.overall)],
        panels=[(name, m.panel, disputed(m)) for name, m in last if m.panel is not None],
        suite=plan.suite,
        planted=planted(plan, results),
        planted_axes=planted_positions(plan, results),
        examples=[(result.name, examples(result.measurements[-1])) for result in results],
        parameters=parameters,
        stances=[stance.value for stance in STANCES],
    )


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
