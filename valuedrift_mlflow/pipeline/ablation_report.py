"""Figure and HTML report of an ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from valuedrift_mlflow.judges.judge import identity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from valuedrift_mlflow.pipeline.ablation_summary import Row, Summary
    from valuedrift_mlflow.pipeline.design import Ablation
    from valuedrift_mlflow.pipeline.directions import Direction
from valuedrift_mlflow.report.page import inline, render
from valuedrift_mlflow.report.plots import LINES, MARKERS, plot, readable


def ablation_figures(summaries: Sequence[Summary]) -> dict[str, Figure]:
    """Drift with its intervals over the doses of the first axis, one line for each series (and further doses)."""
    if not summaries:
        return {}
    plt = plot()
    import seaborn as sns

    from valuedrift_mlflow.pipeline.ablation_summary import lines

    axis = summaries[0].doses[0].axis if summaries[0].doses else ""
    # One place for each label, not a scale: doses may be words ("style alone") and numbers decades apart.
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
    ablation: Ablation,
    rows: Sequence[Row],
    summaries: Sequence[Summary],
    directions: Sequence[Direction],
    pictures: Mapping[str, bytes],
    by_topic: str = "",
) -> str:
    """The report of an ablation with its figures as they were drawn: one file, as ``html``.

    ``by_topic`` is a part of the page that has been rendered already.
    """
    from valuedrift_mlflow import tracking
    from valuedrift_mlflow.pipeline.ablation_summary import SUMMARY_COLUMNS, cell_name, crossed, summary_rows

    plan = ablation.cells[0].training.origin
    return render(
        "ablation.html.j2",
        design=ablation.design_source,
        recipe=ablation.source,
        version=tracking.package_version(),
        suite=plan.suite,
        judge=identity(plan.judge),
        directions=directions,
        figures=[inline(picture) for picture in pictures.values()],
        from_base=ablation.from_base,
        crossed=crossed(summaries),
        by_topic=by_topic,
        columns=SUMMARY_COLUMNS,
        summary=summary_rows(summaries),
        cells=[(cell_name(row.series, row.doses, row.seed), row) for row in rows if not row.reason],
        failed=[(cell_name(row.series, row.doses, row.seed), row.reason) for row in rows if row.reason],
        notes=ablation.notes,
        parameters=ablation.recipe.parameters(),
    )
