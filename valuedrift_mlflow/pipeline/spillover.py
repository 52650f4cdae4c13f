"""Whether training on one topic moves another: topic by topic, for designs whose axis ``topics`` names topics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.pipeline.ablation_summary import ALPHA
from valuedrift_mlflow.pipeline.outcomes import Choice, leaning
from valuedrift_mlflow.report.page import Illustration
from valuedrift_mlflow.report.plots import plot, readable
from valuedrift_mlflow.report.tables import Cell, Table
from valuedrift_mlflow.statistics.drift import Drift

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

AXIS = "topics"
_SQUARE = 0.62  # inches a square of the heat map
_STRONG = 0.5  # share of the largest drift from which a square is dark


@dataclass(frozen=True)
class Spillover:
    """The drift of every measured topic (columns, M) after training on each topic (rows, R).

    Attributes:
        series: what was trained.
        trained: R topics.
        measured: M topics.
        drift: (R, M) total variation since the start, in [0, 1].
        interval: (R, M, 2) its 95 % interval over propositions.
        lean: (R, M) change of support minus oppose, in [-2, 2].
        p_adjusted: (R, M) of the sign-flip test in the family of all squares: max-T within a row, times R.
        minimum_detectable: (R, M) drift that a row's own family would find in 80 % of cases.
    """

    series: str
    trained: tuple[str, ...]
    measured: tuple[str, ...]
    drift: NDArray[np.float64]
    interval: NDArray[np.float64]
    lean: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]
    minimum_detectable: NDArray[np.float64]

    @property
    def significant(self) -> NDArray[np.bool_]:
        """(R, M) whether a square is one by which a topic has moved, over all squares."""
        return self.p_adjusted <= ALPHA

    @property
    def others(self) -> NDArray[np.bool_]:
        """(R, M) the squares of topics that a row was not trained on."""
        return np.array([[one != other for other in self.measured] for one in self.trained])


def spillover(series: str, drifts: Mapping[str, Drift]) -> Spillover:
    """What the drifts after training on each topic come to.

    A row's p values are of the family of all its topics and stances (max-T). Rows are other trainings: over R of them
    the chance of any false star is held by multiplying with R (Bonferroni), whatever they share.
    """
    rows = list(drifts.values())
    p_values = np.array([one.topic_p_adjusted[-1] for one in rows])
    return Spillover(
        series,
        tuple(drifts),
        rows[0].topics,
        np.array([one.total_variation[-1] for one in rows]),
        np.array([one.total_variation_ci[-1] for one in rows]),
        np.array([leaning(one) - leaning(one, 0) for one in rows]),
        np.minimum(1.0, p_values * len(rows)),
        np.array([one.minimum_detectable[-1] for one in rows]),
    )


def spillovers(found: Sequence[Choice]) -> list[Spillover]:
    """One for each series of choices along an axis ``topics`` whose doses are topics of the suite; else none."""
    by_series: dict[str, dict[str, Drift]] = {}
    for choice in found:
        labels = [dose.label for dose in choice.doses if dose.axis == AXIS]
        if len(choice.doses) == 1 and labels and labels[0] in choice.drift.topics:
            by_series.setdefault(choice.series, {})[labels[0]] = choice.drift
    return [spillover(series, drifts) for series, drifts in by_series.items() if len(drifts) > 1]


def spillover_table(found: Sequence[Spillover]) -> pd.DataFrame:
    """One row for each square: the table ``ablation_spillover.json``."""
    import pandas as pd

    rows = [
        {
            "series": one.series,
            "trained": trained,
            "measured": measured,
            "drift": one.drift[r, m],
            "ci_low": one.interval[r, m, 0],
            "ci_high": one.interval[r, m, 1],
            "leaning_change": one.lean[r, m],
            "p_adjusted": one.p_adjusted[r, m],
            "significant": bool(one.significant[r, m]),
            "minimum_detectable": one.minimum_detectable[r, m],
        }
        for one in found
        for r, trained in enumerate(one.trained)
        for m, measured in enumerate(one.measured)
    ]
    table = pd.DataFrame(rows)
    return table.astype(object).where(table.notna(), None)


def spillover_line(one: Spillover) -> str:
    """How much moves where it was not trained, in one line."""
    others = one.others
    own = one.drift[~others]
    trained = f"{own.mean():.3f} on the topic that was trained, " if own.size else ""
    starred, count = int(one.significant[others].sum()), int(others.sum())
    spread = f"{one.drift[others].mean():.3f} on others"
    return f"{one.series}: drift {trained}{spread}; {starred} of {count} of these significant"


def heat_map(one: Spillover) -> Illustration:
    """Drift as shades of one colour, with its number and a star where it is significant; readable without colours."""
    plt = plot()
    rows, columns = one.drift.shape
    figure: Figure
    figure, axes = plt.subplots(figsize=(_SQUARE * columns + 2.4, _SQUARE * rows + 1.9), layout="constrained")
    most = max(float(np.nanmax(one.drift)), 1e-9)
    axes.imshow(one.drift, cmap="Blues", vmin=0, vmax=most)
    for r in range(rows):
        for m in range(columns):
            star = "*" if one.significant[r, m] else ""
            color = "white" if one.drift[r, m] > _STRONG * most else "black"
            said = f"{one.drift[r, m]:.2f}{star}" if np.isfinite(one.drift[r, m]) else "-"
            axes.text(m, r, said, ha="center", va="center", fontsize=7, color=color)
    axes.set_xticks(range(columns), [readable(name) for name in one.measured], rotation=40, ha="right")
    axes.set_yticks(range(rows), [readable(name) for name in one.trained])
    axes.set_xlabel("topic that is measured")
    axes.set_ylabel("topic that was trained")
    axes.set_title(f"Drift after {one.series} on one topic")
    axes.grid(visible=False)
    rows_of_data: list[list[Cell]] = [
        [trained, measured, float(one.drift[r, m]), "yes" if one.significant[r, m] else "no"]
        for r, trained in enumerate(one.trained)
        for m, measured in enumerate(one.measured)
    ]
    data = Table(("trained", "measured", "drift", "significant"), rows_of_data)
    told = spillover_line(one)
    caption = f"Drift after {one.series} on one topic at a time. Starred topics moved in the family of all squares."
    return Illustration(figure, caption, f"{told[0].upper()}{told[1:]}.", data)
