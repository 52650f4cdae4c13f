"""What the cells of an ablation come to: means and intervals over the seeds, and tables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics.intervals import with_interval
from valuedrift_mlflow.statistics.mean_drift import mean_drift
from valuedrift_mlflow.statistics.paired import Changes, changes
from valuedrift_mlflow.statistics.units import Interval

if TYPE_CHECKING:
    import pandas as pd

    from valuedrift_mlflow.evaluation.measurement import Measurement
    from valuedrift_mlflow.pipeline.ablation_axes import Shift
    from valuedrift_mlflow.suite import Suite

ALPHA = 0.05


@dataclass(frozen=True)
class Dose:
    """One value of an axis."""

    key: str
    axis: str  # what figures, tables and metrics call the axis
    value: object
    label: str

    @property
    def number(self) -> float | None:
        """The value where it is a number."""
        return None if isinstance(self.value, bool) or not isinstance(self.value, int | float) else float(self.value)


@dataclass(frozen=True, eq=False)
class Keys:
    """The axes of a suite.

    Attributes:
        names: of the A axes.
        directions: (A, P) of the propositions: +1, -1, or 0 without a key.
    """

    names: tuple[str, ...]
    directions: NDArray[np.int64]

    @classmethod
    def of(cls, suite: Suite) -> Keys | None:
        """Those of a suite; None of one without keys, whose axis would be another one in every cell."""
        return cls(suite.axes, suite.keyed) if suite.axes else None


@dataclass(frozen=True)
class Row:
    """What one cell came to. Numbers are NaN where the cell failed."""

    series: str
    algorithm: str
    doses: tuple[Dose, ...]
    seed: int
    run_id: str
    reason: str = ""  # why it failed
    drift: float = math.nan  # total variation from the start, mean over topics, in [0, 1]
    interval: tuple[float, float] = (math.nan, math.nan)  # over prompts
    noise: float = math.nan  # the drift to expect had nothing changed
    topics_moved: float = math.nan
    unscored_rate: float = math.nan
    mix: tuple[float, ...] = (math.nan,) * len(STANCES)  # mean stances over topics at the end
    changes: Changes | None = None  # of every proposition: what cells are compared by
    axes: Keys | None = None  # of the suite, where it has keys
    estimand: Interval = "propositions"  # what ``interval`` speaks of


def changed(start: Measurement, end: Measurement) -> Changes:
    """What lies between two measurements of one suite, by proposition."""
    suite = end.suite
    return changes(start.values, end.values, suite.propositions[0], suite.groups, suite.hash)


def cell_name(series: str, doses: Sequence[Dose], seed: int | None = None) -> str:
    """A cell in words: ``dpo, gap 0.5, seed 1``; without a seed, all its seeds."""
    words = [series, *(f"{dose.axis} {dose.label}" for dose in doses)]
    return ", ".join(words if seed is None else [*words, f"seed {seed}"])


# Over the seeds ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """The cells of one choice over its seeds: means, and an interval of the drift."""

    series: str
    algorithm: str
    doses: tuple[Dose, ...]
    seeds: int
    drift: float
    low: float
    high: float
    noise: float
    topics_moved: float
    unscored_rate: float
    mix: tuple[float, ...]

    @property
    def name(self) -> str:
        """``dpo, gap 0.5``."""
        return cell_name(self.series, self.doses)


def over_seeds(drifts: Sequence[float], intervals: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Mean drift over S seeds with a 95 % interval for what other prompts and other seeds would give.

    Prompts: the distances from each seed's drift to the ends of its own interval, averaged. All seeds answer the same
    prompts and start from the same measurement, so that this error is shared and does not shrink with their number.
    Seeds: ``t(S - 1, 0.975) s / sqrt(S)``, with ``s`` the standard deviation of the drift over the seeds (training and
    sampling differ). The two are independent and add as squares; the ends are clipped to [0, 1]. It errs on the wide
    side, because the noise of sampling the responses is in both (`mean_drift` counts it once). With one seed it holds
    for that seed only.

    Returns:
        mean, lower end, upper end; the ends are NaN where an interval is undefined.

    >>> mean, low, high = over_seeds([0.30, 0.30], [(0.25, 0.35), (0.25, 0.35)])
    >>> round(mean, 2), round(low, 2), round(high, 2)
    (0.3, 0.25, 0.35)
    """
    from scipy.stats import t

    values, ends = np.asarray(drifts, dtype=np.float64), np.asarray(intervals, dtype=np.float64)
    mean = float(values.mean())
    seeds = len(values)
    spread = float(t.ppf(1 - ALPHA / 2, seeds - 1) * values.std(ddof=1) / math.sqrt(seeds)) if seeds > 1 else 0.0
    below, above = (values - ends[:, 0]).mean(), (ends[:, 1] - values).mean()
    return mean, max(0.0, mean - math.hypot(below, spread)), min(1.0, mean + math.hypot(above, spread))


def _drift(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Mean drift over the seeds of one choice, and its interval.

    It is that of `mean_drift` where intervals speak of propositions like these and every cell has its changes. Of one
    seed, and of these prompts alone, it comes from the intervals of the cells.
    """
    mean, low, high = over_seeds([row.drift for row in rows], [row.interval for row in rows])
    runs = [row.changes for row in rows if row.changes is not None and row.estimand == "propositions"]
    if 1 < len(runs) == len(rows) and (found := mean_drift(runs)) is not None:
        # Around the drift as it was measured, which also counts prompts that some of the cells did not answer.
        low, high = max(0.0, mean - (found.value - found.low)), min(1.0, mean + (found.high - found.value))
    return mean, low, high


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """One summary for each choice with a cell that did not fail, in the order of the cells."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if not row.reason:
            groups.setdefault(cell_name(row.series, row.doses), []).append(row)
    summaries = []
    for own in groups.values():
        mean, low, high = _drift(own)
        summaries.append(
            Summary(
                series=own[0].series,
                algorithm=own[0].algorithm,
                doses=own[0].doses,
                seeds=len(own),
                drift=mean,
                low=low,
                high=high,
                noise=float(np.mean([row.noise for row in own])),
                topics_moved=float(np.mean([row.topics_moved for row in own])),
                unscored_rate=float(np.mean([row.unscored_rate for row in own])),
                mix=tuple(float(share) for share in np.mean([row.mix for row in own], axis=0)),
            )
        )
    return summaries


def slug(summary: Summary) -> str:
    """``dpo/gap_0.5``, in characters that a metric may have."""
    parts = [summary.series.replace(" → ", "-"), *(f"{dose.axis}_{dose.label}" for dose in summary.doses)]
    return "/".join(re.sub(r"[^A-Za-z0-9_.-]+", "-", part).strip("-") for part in parts)


def cells_table(rows: Sequence[Row]) -> pd.DataFrame:
    """One row for each cell: the table ``ablation.json``. What a failed cell lacks is None."""
    import pandas as pd

    table = [
        {
            **choice(row),
            "seed": row.seed,
            "status": "FAILED" if row.reason else "FINISHED",
            "drift": row.drift,
            "ci_low": row.interval[0],
            "ci_high": row.interval[1],
            **_found(row),
            "run_id": row.run_id,
            "reason": row.reason,
        }
        for row in rows
    ]
    return without_nan(pd.DataFrame(table))


def summary_table(summaries: Sequence[Summary]) -> pd.DataFrame:
    """One row for each choice, means over its seeds: the table ``ablation_summary.json``."""
    import pandas as pd

    table = [
        {
            **choice(entry),
            "seeds": entry.seeds,
            "drift": entry.drift,
            "ci_low": entry.low,
            "ci_high": entry.high,
            **_found(entry),
        }
        for entry in summaries
    ]
    return without_nan(pd.DataFrame(table))


def choice(entry: Row | Summary | Shift) -> dict[str, object]:
    """The columns that name a choice."""
    doses = {dose.axis: dose.label if dose.number is None else dose.value for dose in entry.doses}
    return {"series": entry.series, "algorithm": entry.algorithm, **doses}


def _found(entry: Row | Summary) -> dict[str, float]:
    """What a cell or a choice came to, beside its drift."""
    rates = {"noise": entry.noise, "topics_moved": entry.topics_moved, "unscored_rate": entry.unscored_rate}
    return rates | dict(zip((stance.value for stance in STANCES), entry.mix, strict=True))


def without_nan(table: pd.DataFrame) -> pd.DataFrame:
    """NaN as None: JSON has no NaN."""
    # `astype` first: a column of floats would turn None back into NaN.
    return table.astype(object).where(table.notna(), None)


SUMMARY_COLUMNS = ("cells", "seeds", "drift [95 % interval]", "noise", "topics moved", "mix", "unscored")


def summary_rows(summaries: Sequence[Summary]) -> list[list[str]]:
    """The summary as text, for the terminal and the report."""
    return [
        [
            entry.name,
            str(entry.seeds),
            with_interval(entry.drift, np.array([entry.low, entry.high])),
            f"{entry.noise:.3f}",
            f"{entry.topics_moved:.1f}",
            " / ".join(f"{share:.2f}" for share in entry.mix),
            f"{entry.unscored_rate:.3f}",
        ]
        for entry in summaries
    ]


def lines(summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """The summaries of each line of a figure or table over the first axis: of a series with its further doses."""
    by_line: dict[str, list[Summary]] = {}
    for entry in summaries:
        rest = [f"{dose.axis} {dose.label}" for dose in entry.doses[1:]]
        by_line.setdefault(", ".join([entry.series, *rest]), []).append(entry)
    return by_line


def crossed(summaries: Sequence[Summary]) -> tuple[list[str], list[list[str]]]:
    """Column titles and rows of a table of drift with its interval: lines down, doses of the first axis across.

    Nothing where there is no axis. What failed, or was not run, is left empty.
    """
    doses = list(dict.fromkeys((entry.doses[0].axis, entry.doses[0].label) for entry in summaries if entry.doses))
    if not doses:
        return [], []
    rows = []
    for name, own in lines(summaries).items():
        shown = {
            (entry.doses[0].axis, entry.doses[0].label): with_interval(entry.drift, np.array([entry.low, entry.high]))
            for entry in own
        }
        rows.append([name, *(shown.get(dose, "") for dose in doses)])
    return ["drift [95 % interval]", *(" ".join(dose) for dose in doses)], rows
