"""Figures, tables and the HTML report of an audited dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.evaluation.notes import described
from valuedrift_mlflow.stances import STANCES, Label
from valuedrift_mlflow.statistics.intervals import NOTHING, Estimate, with_interval

if TYPE_CHECKING:
    from valuedrift_mlflow.value_gap.findings import Audit, Findings
from valuedrift_mlflow.report.page import Illustration, Picture, render
from valuedrift_mlflow.report.plots import COLORS, COLUMN, grid, legend, plot, readable
from valuedrift_mlflow.report.surroundings import hardware, software
from valuedrift_mlflow.report.tables import Cell, Table


def audit_figures(audit: Audit) -> dict[str, Illustration]:
    """The figures of an audit: the stance mix of each topic; of pairs also gap histograms and both sides' verdicts."""
    if not audit.overall.placed:
        return {}
    figures = {"stance_mix": _mix_figure(audit)}
    if len(audit.sides) > 1 and audit.overall.gap is not None and audit.overall.gap.scored:
        figures["gap_histogram"] = _gap_histogram(audit)
        figures["chosen_against_rejected"] = _sides_figure(audit)
    return figures


def _mix_figure(audit: Audit) -> Illustration:
    """A bar of stances for every topic; below it, of pairs, a thinner one for the rejected side."""
    plt = plot()
    topics = list(audit.topics)
    figure, axes = plt.subplots(figsize=(COLUMN, 1.2 + 0.42 * len(topics)), layout="constrained")
    place, paired = np.arange(len(topics)), len(audit.sides) > 1
    bars = [(0, place - (0.12 if paired else 0), 0.5, 1.0)] + ([(1, place + 0.28, 0.2, 0.55)] if paired else [])
    names = ("chosen responses", "rejected responses") if paired else ("answers",)
    rows: list[list[Cell]] = []
    for side, y, height, alpha in bars:
        left = np.zeros(len(topics))
        shares = np.array([_mean(audit.sides[side].probabilities[audit.topic_of == t]) for t in range(len(topics))])
        for s, stance in enumerate(STANCES):
            axes.barh(y, shares[:, s], height, left=left, color=COLORS[stance], alpha=alpha, linewidth=0)
            left += shares[:, s]
            rows += [[topic, names[side], stance.value, float(shares[t, s])] for t, topic in enumerate(topics)]
    axes.set_yticks(place, [f"{readable(topic)} ({audit.topics[topic].placed:,})" for topic in topics])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(False, axis="y")
    axes.set_xlabel("share" + (" (thick: chosen, thin: rejected)" if paired else " of judged responses"))
    legend(figure, {}, 3)
    mix = audit.overall.mix
    overall = ", ".join(f"{stance} {own.value:.2f}" for stance, own in zip(STANCES, mix, strict=True))
    if not np.isfinite([own.value for own in mix]).all():
        overall = f"none of {audit.overall.placed:,} could be scored"
    caption = "Stances of the responses that were judged, by the judge's probabilities; rows in brackets."
    data = Table(("topic", "side", "stance", "share"), rows)
    return Illustration(figure, caption, f"Over all topics, of the {names[0]}: {overall}.", data)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) -> (3,) over the scored rows, 0 where there is none."""
    scored = values[~np.isnan(values).any(axis=1)]
    return scored.mean(axis=0) if len(scored) else np.zeros(len(STANCES))


def _gap_histogram(audit: Audit) -> Illustration:
    """How far apart the sides of each pair are for the judge, by topic, with the pairwise gap as a line."""
    from valuedrift_mlflow.statistics.value_gap import pair_gaps

    figure, panels = grid(len(audit.topics))
    rows: list[list[Cell]] = []
    gaps = pair_gaps(*(side.probabilities for side in audit.sides))
    for place, (axes, (topic, found)) in enumerate(zip(panels, audit.topics.items(), strict=True)):
        own = gaps[audit.topic_of == place]
        own = own[~np.isnan(own)]
        if len(own):
            weights = np.full(len(own), 1 / len(own))
            shares, ends, _ = axes.hist(own, bins=20, range=(0, 1), weights=weights, color="0.6", linewidth=0)
            rows += [[topic, *map(float, cells)] for cells in zip(ends[:-1], ends[1:], shares, strict=True)]
        if found.gap is not None and found.gap.scored:
            axes.axvline(found.gap.pairwise.value, color="black", linewidth=1.2)
        axes.set_title(f"{readable(topic)} ({len(own):,})", fontsize=8)
        axes.set_ylim(0, 1)
    figure.supxlabel("total variation between the sides of a pair, by the judge's probabilities", fontsize=10)
    figure.supylabel("share of scored pairs", fontsize=10)
    caption = (
        "How far apart the sides of each pair are, by the judge's probabilities; the line is the topic's pairwise gap, "
        "from the stances that the responses take. Scored pairs in brackets."
    )
    gap = audit.overall.gap
    says = f"Over all topics the pairwise gap is {_with_interval(gap.pairwise)}." if gap is not None else caption
    return Illustration(figure, caption, says, Table(("topic", "from", "to", "share of pairs"), rows))


def _sides_figure(audit: Audit) -> Illustration:
    """How often each verdict on the chosen side stands against each on the rejected one."""
    plt = plot()
    import seaborn as sns

    # In the order of LABELS: the sides hold places in it.
    names = [label.value for label in Label]
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    # Not `counts[...] += 1`, which counts a place that comes twice only once.
    np.add.at(counts, (audit.sides[0].labels, audit.sides[1].labels), 1)
    figure, axes = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
    label = {"label": "share of the judged pairs"}
    ticks = {"xticklabels": names, "yticklabels": names}
    shares = counts / counts.sum()
    sns.heatmap(shares, annot=counts, fmt="d", vmin=0, cmap="Blues", cbar_kws=label, linewidths=0.5, ax=axes, **ticks)
    axes.tick_params(axis="y", rotation=0)
    axes.set_xlabel("rejected")
    axes.set_ylabel("chosen")
    rows: list[list[Cell]] = [[a, b, int(counts[i, j])] for i, a in enumerate(names) for j, b in enumerate(names)]
    says = f"{int(np.trace(counts)):,} of {int(counts.sum()):,} judged pairs have the same verdict on both sides."
    caption = "Verdicts on the chosen side against those on the rejected one."
    return Illustration(figure, caption, says, Table(("chosen", "rejected", "pairs"), rows))


def audit_rows(audit: Audit) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of an audit's table: all topics, then each."""
    columns = ["topic", "rows", "topic alone", "judged", "/".join(f"{stance.value[:3]}." for stance in STANCES)]
    columns += (["pairwise gap", "marginal", "direction"] if len(audit.sides) > 1 else []) + ["unscored"]
    if audit.overall.error is not None:
        columns[-1:-1] = ["by error alone", "errors off"]
    if audit.overall.labelled is not None and audit.overall.gap is not None:
        columns[-1:-1] = ["with labels"]
    return columns, [
        _audit_row("all topics", audit.overall, audit.overall),
        *(_audit_row(readable(topic), found, audit.overall) for topic, found in audit.topics.items()),
    ]


def _audit_row(name: str, found: Findings, overall: Findings) -> list[str]:
    """Of the intervals those of pairwise gaps alone: a terminal is narrow. Cells are those of ``overall``."""
    row = [name, f"{found.touched:,}", f"{found.topic_only:,}", f"{found.placed:,}"]
    row.append("/".join(f"{own.value:.2f}" for own in found.mix))
    if found.gap is not None:
        pairwise = found.gap.pairwise
        row.append(f"{pairwise.value:.2f} [{pairwise.low:.2f}, {pairwise.high:.2f}]")
        row += [f"{own.value:.2f}" for own in (found.gap.marginal, found.gap.direction)]
        if overall.error is not None and found.error is not None:
            adjusted = found.error.adjusted
            row.append(f"{found.error.of_error.value:.2f}")
            row.append(f"{adjusted.value:.2f} [{adjusted.low:.2f}, {adjusted.high:.2f}]")
        if overall.labelled is not None:
            own = found.labelled.estimates["pairwise"] if found.labelled is not None else NOTHING
            row.append(f"{own.value:.2f} [{own.low:.2f}, {own.high:.2f}]")
    shown = ["" if cell.startswith("nan") else cell.replace(" [nan, nan]", "") for cell in row]
    return [*shown, f"{found.unscored:,}"]


def style_rows(audit: Audit) -> list[list[str]]:
    """The rows of the style gap's table: figure, value with its interval, what no difference is."""
    from valuedrift_mlflow.statistics.style_gap import FIGURES

    if audit.style is None:
        return []
    return [
        [readable(name), _with_interval(getattr(audit.style, name)), "1" if name == "length_ratio" else "0"]
        for name in FIGURES
    ]


def _with_interval(estimate: Estimate) -> str:
    """A figure with its interval, or alone where it has none."""
    return with_interval(estimate.value, np.array([estimate.low, estimate.high]))


def audit_html(audit: Audit, pictures: Mapping[str, Picture]) -> str:
    """The report of an audit with its figures as they were drawn: one file, as ``html``."""
    from valuedrift_mlflow import tracking

    version = tracking.package_version()
    return render(
        "audit.html.j2",
        audit=audit,
        version=version,
        topics=Table(*audit_rows(audit)),
        style=Table(("chosen against rejected", "value [95 % interval]", "no difference"), style_rows(audit)),
        pictures=list(pictures.values()),
        texts=("chosen", "rejected") if len(audit.sides) > 1 else ("completion",),
        methods=_methods(audit, version),
    )


def _methods(audit: Audit, version: str) -> list[str]:
    """How the data were read and judged, and with what, as a paper would say it."""
    what = "pairs of a chosen and a rejected response" if audit.kind == "pairs" else "answers"
    return [
        f"{audit.data}: {audit.rows:,} rows with {audit.answers:,} {what}. Rows were matched with the topics and "
        f"propositions of the suite {audit.suite} by their last user turn, and the responses of those on a proposition "
        f"were read by the judge {audit.judge} as support, neutral, oppose, refusal or unscored; a refusal counts as "
        "neutral, and what is unscored is counted and in no mean. Intervals are 95 %, by a bootstrap over prompts.",
        f"Made with valuedrift-mlflow {version}, {software()}, on {hardware()}.",
    ]


def audit_note(audit: Audit) -> str:
    """What an audit's run says of itself on its first page in MLflow: the verdict, and the table of topics."""
    rows = f"{audit.rows:,} rows, {audit.overall.touched:,} of them on a topic, judged by {audit.judge}"
    lines = [rows, *([audit.trust.sentence] if audit.trust is not None else [])]
    files = {"report": "report.html", "figures": "figures", "all figures with intervals": "audit.json"}
    return described(audit.run_id, audit.verdict, Table(*audit_rows(audit)), lines, files)
