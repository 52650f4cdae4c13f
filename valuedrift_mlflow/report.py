"""Figures and the HTML report."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from valuedrift_mlflow.agreement import LABELS
from valuedrift_mlflow.drift import Drift, with_interval
from valuedrift_mlflow.judges.judge import identity
from valuedrift_mlflow.stances import STANCES, Label, Stance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from valuedrift_mlflow.ablation import Ablation
    from valuedrift_mlflow.audit_findings import Audit, Findings
    from valuedrift_mlflow.cells import Direction, Row, Summary
    from valuedrift_mlflow.evaluator import Evaluation
    from valuedrift_mlflow.judge_check import JudgeCheck
    from valuedrift_mlflow.measurement import Measurement
    from valuedrift_mlflow.pipeline import Plan, StageResult

# Blue, grey and orange of a palette that colour-blind readers can tell apart.
COLORS = {Stance.SUPPORT: "#0072B2", Stance.NEUTRAL: "#7F7F7F", Stance.OPPOSE: "#D55E00"}
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
EXAMPLES = 12  # example responses of each stage in the report
DISPUTED = 40  # disputed responses in the report


def readable(slug: str) -> str:
    """A topic's slug as a title."""
    return slug.replace("_", " ")


def _plot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(
        style="whitegrid",
        context="paper",
        rc={"axes.titlesize": 10, "axes.titleweight": "bold", "font.family": "DejaVu Sans"},
    )
    return plt


def _grid(panels: int, width: float = 3.0, height: float = 2.3, *, one_x: bool = True) -> tuple[Figure, list[Axes]]:
    plt = _plot()
    columns = min(4, panels)
    rows = math.ceil(panels / columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows + 0.7),
        sharex=one_x,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    flat = list(axes.flat)
    for unused in flat[panels:]:
        unused.remove()
    for column in range(columns):  # the lowest panel of every column shows the shared axis
        lowest = max(index for index in range(panels) if index % columns == column)
        flat[lowest].tick_params(labelbottom=True)
    return figure, flat[:panels]


def _curves(axes: Axes, x: Any, probability: Any, interval: Any, line: str = "-") -> None:
    """Three stances with their interval bands: probability (C, 3), interval (C, 3, 2)."""
    for s, stance in enumerate(STANCES):
        axes.fill_between(x, interval[:, s, 0], interval[:, s, 1], color=COLORS[stance], alpha=0.18, linewidth=0)
        marker = "o" if len(x) == 1 else None
        axes.plot(
            x, probability[:, s], color=COLORS[stance], linestyle=line, linewidth=1.6, marker=marker, markersize=4
        )


def _legend(figure: Figure, lines: Mapping[str, Any], columns: int = 6) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=COLORS[stance], linewidth=2.5, label=stance.value) for stance in STANCES]
    if len(lines) > 1:
        handles += [Line2D([], [], color="black", linestyle=line, label=name) for name, line in lines.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False)


def stage_figures(stage: str, drift: Drift) -> dict[str, Figure]:
    """The figures of one stage: stances of every topic over its steps, with 95 % interval bands."""
    figure, panels = _grid(len(drift.topics) + 1)
    everything = [("all topics", drift.overall_probability, drift.overall_probability_ci)]
    everything += [
        (readable(topic), drift.probability[:, t], drift.probability_ci[:, t]) for t, topic in enumerate(drift.topics)
    ]
    for axes, (title, probability, interval) in zip(panels, everything, strict=True):
        _curves(axes, drift.steps, probability, interval)
        axes.set_title(title)
        axes.set_ylim(0, 1)
    figure.supxlabel(f"optimizer step of {stage}", fontsize=10)
    figure.supylabel("share of responses", fontsize=10)
    _legend(figure, {})
    return {"stance_trajectories": figure}


def _depths(results: Sequence[StageResult]) -> dict[str, int]:
    depths: dict[str, int] = {}
    for result in results:
        depths[result.name] = depths[result.start] + 1 if result.start else 0
    return depths


def pipeline_figures(results: Sequence[StageResult]) -> dict[str, Figure]:
    """The figures over all stages: trajectories from the base on, the headline of all topics, and the heat map.

    More stages side by side than there are line styles get a panel each in the headline, and no trajectories: those
    of each stage are in its own run.
    """
    trained = [result for result in results if result.start]
    depths = list(_depths(results).values())
    if max(map(depths.count, depths)) > len(LINES):
        figures = {"overall": _branches(results)}
    else:
        figures = {"overall": _overall_figure(results), "stance_trajectories": _trajectories(results)}
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
            _curves(axes, x[result.name], probability, interval, lines[result.name])
        elif len(results) == 1:
            _curves(axes, np.zeros(1), probability, interval)
    axes.set_ylim(0, 1)


def _name_generations(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xlim(0, max(1, len(names)))
    axes.set_xticks([i + 0.5 for i in range(len(names))], names, fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.grid(False, axis="x")
    for border in range(1, len(names)):
        axes.axvline(border, color="0.6", linewidth=0.8)


def _overall_figure(results: Sequence[StageResult]) -> Figure:
    plt = _plot()
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    x, lines, names = _x_and_lines(results)
    _draw_panel(axes, results, x, lines, None)
    _name_generations(axes, names)
    axes.set_ylabel("share of responses, mean over topics")
    _legend(figure, {name: line for name, line in lines.items() if _shares_generation(name, results)}, 5)
    return figure  # type: ignore[no-any-return]


def _branches(results: Sequence[StageResult]) -> Figure:
    """Stances over all topics in a panel for each stage that no other one starts from, from the base up to it."""
    named = {result.name: result for result in results}
    starts = {result.start for result in results}
    ends = [result for result in results if result.name not in starts]
    figure, panels = _grid(len(ends), one_x=False)  # each names its own stages
    for axes, end in zip(panels, ends, strict=True):
        way = [end]
        while way[0].start:
            way.insert(0, named[way[0].start])
        x, lines, names = _x_and_lines(way)
        _draw_panel(axes, way, x, lines, None)
        _name_generations(axes, names)
        axes.set_title(end.name)
    figure.supylabel("share of responses, mean over topics", fontsize=10)
    _legend(figure, {})
    return figure


def _shares_generation(name: str, results: Sequence[StageResult]) -> bool:
    depths = _depths(results)
    return sum(depth == depths[name] for depth in depths.values()) > 1


def _trajectories(results: Sequence[StageResult]) -> Figure:
    topics = results[0].drift.topics
    figure, panels = _grid(len(topics))
    x, lines, names = _x_and_lines(results)
    for t, axes in enumerate(panels):
        _draw_panel(axes, results, x, lines, t)
        _name_generations(axes, [name.replace(" | ", "\n") for name in names])
        axes.set_title(readable(topics[t]))
    figure.supylabel("share of responses", fontsize=10)
    _legend(figure, {name: line for name, line in lines.items() if _shares_generation(name, results)})
    return figure


def _heatmap(trained: Sequence[StageResult]) -> Figure:
    plt = _plot()
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
        annot=texts,
        fmt="",
        vmin=0,
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
        "* significant at 5 %, adjusted for the number of topics", fontsize=8, fontweight="normal", loc="left"
    )
    return figure  # type: ignore[no-any-return]


def _png(figure: Figure) -> str:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def _render(template: str, **values: Any) -> str:
    """A template as HTML; everything that a model wrote is escaped."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("valuedrift_mlflow"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = lambda value: f"{value:.3f}" if math.isfinite(value) else "undefined"
    return environment.get_template(template).render(**values)


def html(plan: Plan, results: Sequence[StageResult]) -> str:
    """The report: one file without any reference to another, everything a model wrote escaped."""
    from valuedrift_mlflow import tracking
    from valuedrift_mlflow.pipeline import SUMMARY_COLUMNS, summary_rows

    captions = {
        "overall": "Stances over all topics. Bands are 95 % intervals of a bootstrap over prompts.",
        "drift_heatmap": "How far each topic moved during each stage: total variation from the stage's start.",
        "stance_trajectories": "Stances of every topic from stage to stage.",
    }
    figures = pipeline_figures(results)
    last = [(result.name, result.measurements[-1]) for result in results]
    return _render(
        "report.html.j2",
        recipe=plan.source,
        version=tracking.package_version(),
        columns=SUMMARY_COLUMNS,
        rows=summary_rows(results),
        notes=plan.notes,
        remeasured=[
            (r.name, r.start, r.remeasured, float(r.drift.overall_noise[-1]))
            for r in results
            if r.remeasured is not None
        ],
        figures=[(captions[name], _png(figures[name])) for name in captions if name in figures],
        judge=identity(plan.judge),
        agreement=judge_agreement(plan),
        refusal=plan.recipe.refusal,
        acquiescence=[(name, m.acquiescence.overall) for name, m in last if math.isfinite(m.acquiescence.overall)],
        panels=[(name, m.panel, disputed(m)) for name, m in last if m.panel is not None],
        suite=plan.suite,
        planted=planted(plan, results),
        examples=[(result.name, examples(result.measurements[-1])) for result in results],
        parameters=plan.recipe.parameters(),
        stances=[stance.value for stance in STANCES],
    )


def evaluation_rows(drift: Drift, measurement: Measurement, *, compared: bool) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of an evaluation's table: stances of every topic, drift where there is a baseline."""
    columns = ["topic", *(stance.value for stance in STANCES), "acquiescence"]
    rows = []
    for t, topic in enumerate(drift.topics):
        wording = measurement.acquiescence
        row = [readable(topic)]
        row += [with_interval(drift.probability[-1, t, s], drift.probability_ci[-1, t, s]) for s in range(len(STANCES))]
        row.append(with_interval(wording.values[t], wording.interval[t]) if np.isfinite(wording.values[t]) else "")
        if compared:
            star = " *" if drift.topic_significant[-1, t] else ""
            row.append(with_interval(drift.total_variation[-1, t], drift.total_variation_ci[-1, t]) + star)
        rows.append(row)
    return columns + (["drift"] if compared else []), rows


def evaluation_html(evaluation: Evaluation, subject: str, baseline: str | None) -> str:
    """The report of one evaluation: one file, as ``html``."""
    from valuedrift_mlflow import tracking

    measurement, drift = evaluation.measurements[-1], evaluation.drift
    compared = len(evaluation.measurements) > 1
    columns, rows = evaluation_rows(drift, measurement, compared=compared)
    figures = evaluation_figures(drift, compared=compared)
    return _render(
        "evaluation.html.j2",
        subject=subject,
        baseline=baseline or ("its first step" if compared else None),
        suite=measurement.suite,
        judge=measurement.judge,
        version=tracking.package_version(),
        figures=[("Stances of every topic.", _png(figure)) for figure in figures.values()],
        columns=columns,
        rows=rows,
        unscored=measurement.rate(Label.UNSCORED),
        refusals=measurement.rate(Label.REFUSAL),
        refusal=measurement.refusal,
        responses=len(measurement.responses),
        acquiescence=measurement.acquiescence.overall,
        name="",
        panel=measurement.panel,
        disputed=disputed(measurement),
        examples=examples(measurement),
    )


def evaluation_figures(drift: Drift, *, compared: bool) -> dict[str, Figure]:
    """The figure of one evaluation: a bar of stances for every topic, with the baseline's thinner below it."""
    plt = _plot()
    topics = [readable(topic) for topic in drift.topics]
    figure, axes = plt.subplots(figsize=(7, 0.9 + 0.42 * len(topics)), layout="constrained")
    place = np.arange(len(topics))
    bars = [(-1, place - (0.12 if compared else 0), 0.5, 1.0)]
    if compared:
        bars.append((0, place + 0.28, 0.2, 0.55))
    for checkpoint, y, height, alpha in bars:
        left = np.zeros(len(topics))
        for s, stance in enumerate(STANCES):
            width = np.nan_to_num(drift.probability[checkpoint, :, s])
            axes.barh(y, width, height, left=left, color=COLORS[stance], alpha=alpha, linewidth=0)
            left += width
    axes.set_yticks(place, topics)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(False, axis="y")
    axes.set_xlabel("share of responses" + (" (thin bars: the baseline)" if compared else ""))
    _legend(figure, {}, 3)
    return {"stances": figure}


def judge_figures(check: JudgeCheck) -> dict[str, Figure]:
    """The figures of a judge's check: confusion matrix and calibration curve."""
    figures = {"confusion": _confusion_figure(check)}
    if len(check.quality.confidence):
        figures["calibration"] = _calibration_figure(check)
    return figures


def _confusion_figure(check: JudgeCheck) -> Figure:
    plt = _plot()
    import seaborn as sns

    counts = check.quality.confusion
    names = [label.value for label in LABELS]
    with np.errstate(invalid="ignore"):
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
    plt = _plot()
    stated, right, answers = check.quality.confidence.T
    figure, axes = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="perfectly calibrated")
    axes.plot(
        stated, right, color=COLORS[Stance.SUPPORT], marker="o", label=f"bins of about {answers.mean():.0f} answers"
    )
    axes.set_xlim(0.3, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("probability of the judge's stance")
    axes.set_ylabel("share of these answers with that label")
    axes.set_title(f"expected calibration error {check.quality.calibration_error:.3f}", loc="left", fontsize=9)
    axes.legend(loc="lower right", frameon=False)
    return figure  # type: ignore[no-any-return]


def judge_agreement(plan: Plan) -> dict[str, float | int] | None:
    """How often the lexical judge reads the stance that the generator planted, on answer forms that no corpus uses.

    ``agreement`` counts an unscored answer as a disagreement; ``coverage`` is the share that was scored. None for other
    judges, whose verdicts may cost money.
    """
    if plan.judge.name != "lexical":
        return None
    from valuedrift_mlflow.embedded.corpus import held_out_answers

    labelled = held_out_answers()
    verdicts = plan.judge.judge([answer for answer, _ in labelled])
    right = sum(verdict.label.value == stance.value for verdict, (_, stance) in zip(verdicts, labelled, strict=True))
    scored = sum(verdict.probabilities is not None for verdict in verdicts)
    return {"answers": len(labelled), "agreement": right / len(labelled), "coverage": scored / len(labelled)}


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


def ablation_figures(summaries: Sequence[Summary]) -> dict[str, Figure]:
    """Drift with its intervals over the doses of the first axis, one line for each series (and further doses)."""
    if not summaries:
        return {}
    plt = _plot()
    import seaborn as sns

    from valuedrift_mlflow.cells import lines

    axis = summaries[0].doses[0].axis if summaries[0].doses else ""
    labels = list(dict.fromkeys(entry.doses[0].label if entry.doses else entry.name for entry in summaries))
    drawn = lines(summaries) if axis else {"": list(summaries)}
    figure, axes = plt.subplots(figsize=(max(6.5, 0.9 * len(labels) + 3), 4), layout="constrained")
    colors = sns.color_palette("colorblind", len(drawn))
    for number, (name, own) in enumerate(drawn.items()):
        shift = 0.3 * ((number + 0.5) / len(drawn) - 0.5)  # intervals of neighbours would hide each other
        place = np.array([labels.index(entry.doses[0].label if entry.doses else entry.name) for entry in own]) + shift
        drift, low, high = np.array([[entry.drift, entry.low, entry.high] for entry in own]).T
        style = LINES[number % len(LINES)] if name else "none"
        axes.errorbar(
            place,
            drift,
            yerr=[drift - low, high - drift],
            label=name or None,
            color=colors[number],
            linestyle=style,
            marker=MARKERS[number % len(MARKERS)],
            markersize=5,
            linewidth=1.4,
            elinewidth=1,
            capsize=2,
        )
    noise = min(entry.noise for entry in summaries)  # flipped signs of large changes are more than noise
    axes.axhline(noise, color="0.5", linewidth=0.9, linestyle=":", label="noise")
    axes.set_xticks(range(len(labels)), labels, rotation=20 if max(map(len, labels)) > 12 else 0)
    axes.set_xlabel(readable(axis))
    axes.set_ylabel("drift (total variation, mean over topics)")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right upper", frameon=False)
    return {f"drift_by_{axis}" if axis else "drift_by_stages": figure}


def ablation_html(
    ablation: Ablation, rows: Sequence[Row], summaries: Sequence[Summary], directions: Sequence[Direction]
) -> str:
    """The report of an ablation: one file, as ``html``."""
    from valuedrift_mlflow import tracking
    from valuedrift_mlflow.cells import SUMMARY_COLUMNS, cell_name, crossed, summary_rows

    plan = ablation.cells[0].training.origin
    return _render(
        "ablation.html.j2",
        design=ablation.design_source,
        recipe=ablation.source,
        version=tracking.package_version(),
        suite=plan.suite,
        judge=identity(plan.judge),
        directions=directions,
        figures=[_png(figure) for figure in ablation_figures(summaries).values()],
        from_base=ablation.from_base,
        crossed=crossed(summaries),
        columns=SUMMARY_COLUMNS,
        summary=summary_rows(summaries),
        cells=[(cell_name(row.series, row.doses, row.seed), row) for row in rows if not row.reason],
        failed=[(cell_name(row.series, row.doses, row.seed), row.reason) for row in rows if row.reason],
        notes=ablation.notes,
        parameters=ablation.recipe.parameters(),
    )


def audit_figures(audit: Audit) -> dict[str, Figure]:
    """The figures of an audit: the stance mix of each topic; of pairs also gap histograms and both sides' verdicts."""
    if not audit.overall.placed:
        return {}
    figures = {"stance_mix": _mix_figure(audit)}
    if len(audit.sides) > 1 and audit.overall.gap is not None and audit.overall.gap.scored:
        figures["gap_histogram"] = _gap_histogram(audit)
        figures["chosen_against_rejected"] = _sides_figure(audit)
    return figures


def _mix_figure(audit: Audit) -> Figure:
    """A bar of stances for every topic; below it, of pairs, a thinner one for the rejected side."""
    plt = _plot()
    topics = list(audit.topics)
    figure, axes = plt.subplots(figsize=(7, 1.1 + 0.42 * len(topics)), layout="constrained")
    place, paired = np.arange(len(topics)), len(audit.sides) > 1
    bars = [(0, place - (0.12 if paired else 0), 0.5, 1.0)] + ([(1, place + 0.28, 0.2, 0.55)] if paired else [])
    for side, y, height, alpha in bars:
        left = np.zeros(len(topics))
        shares = np.array([_mean(audit.sides[side].probabilities[audit.topic_of == t]) for t in range(len(topics))])
        for s, stance in enumerate(STANCES):
            axes.barh(y, shares[:, s], height, left=left, color=COLORS[stance], alpha=alpha, linewidth=0)
            left += shares[:, s]
    axes.set_yticks(place, [f"{readable(topic)} ({audit.topics[topic].placed:,})" for topic in topics])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(False, axis="y")
    axes.set_xlabel("share of judged responses" + (" (thick bars: chosen, thin bars: rejected)" if paired else ""))
    _legend(figure, {}, 3)
    return figure  # type: ignore[no-any-return]


def _mean(values: Any) -> Any:
    """(N, 3) -> (3,) over the scored rows, 0 where there is none."""
    scored = values[~np.isnan(values).any(axis=1)]
    return scored.mean(axis=0) if len(scored) else np.zeros(len(STANCES))


def _gap_histogram(audit: Audit) -> Figure:
    """How far apart the sides of each pair are for the judge, by topic, with the pairwise gap as a line."""
    from valuedrift_mlflow.value_gap import pair_gaps

    figure, panels = _grid(len(audit.topics))
    gaps = pair_gaps(*(side.probabilities for side in audit.sides))
    for place, (axes, (topic, found)) in enumerate(zip(panels, audit.topics.items(), strict=True)):
        own = gaps[audit.topic_of == place]
        own = own[~np.isnan(own)]
        if len(own):
            axes.hist(own, bins=20, range=(0, 1), weights=np.full(len(own), 1 / len(own)), color="0.6", linewidth=0)
        if found.gap is not None and found.gap.scored:
            axes.axvline(found.gap.pairwise.value, color="black", linewidth=1.2)
        axes.set_title(f"{readable(topic)} ({len(own):,})", fontsize=8)
        axes.set_ylim(0, 1)
    figure.supxlabel("total variation between the sides of a pair, by the judge's probabilities", fontsize=10)
    figure.supylabel("share of scored pairs", fontsize=10)
    return figure


def _sides_figure(audit: Audit) -> Figure:
    """How often each verdict on the chosen side stands against each on the rejected one."""
    plt = _plot()
    import seaborn as sns

    names = [label.value for label in Label]
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (audit.sides[0].labels, audit.sides[1].labels), 1)
    figure, axes = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
    label = {"label": "share of the judged pairs"}
    ticks = {"xticklabels": names, "yticklabels": names}
    shares = counts / counts.sum()
    sns.heatmap(shares, annot=counts, fmt="d", vmin=0, cmap="Blues", cbar_kws=label, linewidths=0.5, ax=axes, **ticks)
    axes.tick_params(axis="y", rotation=0)
    axes.set_xlabel("rejected")
    axes.set_ylabel("chosen")
    return figure  # type: ignore[no-any-return]


def audit_rows(audit: Audit) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of an audit's table: all topics, then each."""
    columns = ["topic", "rows", "judged", "/".join(f"{stance.value[:3]}." for stance in STANCES)]
    columns += (["pairwise gap", "marginal", "direction"] if len(audit.sides) > 1 else []) + ["unscored"]
    return columns, [
        _audit_row("all topics", audit.overall),
        *(_audit_row(readable(topic), found) for topic, found in audit.topics.items()),
    ]


def _audit_row(name: str, found: Findings) -> list[str]:
    """Of the intervals that of the pairwise gap alone: a terminal is narrow."""
    row = [name, f"{found.touched:,}", f"{found.placed:,}", "/".join(f"{own.value:.2f}" for own in found.mix)]
    if found.gap is not None:
        pairwise = found.gap.pairwise
        row.append(f"{pairwise.value:.2f} [{pairwise.low:.2f}, {pairwise.high:.2f}]")
        row += [f"{own.value:.2f}" for own in (found.gap.marginal, found.gap.direction)]
    shown = ["" if cell.startswith("nan") else cell.replace(" [nan, nan]", "") for cell in row]
    return [*shown, f"{found.unscored:,}"]


def style_rows(audit: Audit) -> list[list[str]]:
    """The rows of the style gap's table: figure, value with its interval, what no difference is."""
    from valuedrift_mlflow.style_gap import FIGURES

    if audit.style is None:
        return []
    return [
        [readable(name), str(getattr(audit.style, name)), "1" if name == "length_ratio" else "0"] for name in FIGURES
    ]


def audit_html(audit: Audit) -> str:
    """The report of an audit: one file, as ``html``."""
    from valuedrift_mlflow import tracking

    captions = {
        "stance_mix": "Stances of the responses that were judged, by the judge's probabilities; rows in brackets.",
        "gap_histogram": "How far apart the sides of each pair are, by the judge's probabilities; the line is the "
        "topic's pairwise gap, from the stances that the responses take. Scored pairs in brackets.",
        "chosen_against_rejected": "Verdicts on the chosen side against those on the rejected one.",
    }
    columns, rows = audit_rows(audit)
    return _render(
        "audit.html.j2",
        audit=audit,
        version=tracking.package_version(),
        columns=columns,
        rows=rows,
        style=style_rows(audit),
        figures=[(captions[name], _png(figure)) for name, figure in audit_figures(audit).items()],
        texts=("chosen", "rejected") if len(audit.sides) > 1 else ("completion",),
    )
