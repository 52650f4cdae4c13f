"""What the cells of an ablation come to: means and intervals over the seeds, tables, and the paper's directions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics.intervals import with_interval

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.05
HARDLY = 0.25  # a drift below this share of the one at the largest dose counts as "hardly"
SHUFFLES = 9999  # of the doses, in the test for a trend


@dataclass(frozen=True)
class Dose:
    """One value of an axis."""

    key: str
    axis: str  # what figures, tables and metrics call the axis
    value: Any
    label: str

    @property
    def number(self) -> float | None:
        """The value where it is a number."""
        return None if isinstance(self.value, bool) or not isinstance(self.value, int | float) else float(self.value)


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
    side, because the noise of sampling the responses is in both. With one seed it holds for that seed only.

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


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """One summary for each choice with a cell that did not fail, in the order of the cells."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if not row.reason:
            groups.setdefault(cell_name(row.series, row.doses), []).append(row)
    summaries = []
    for own in groups.values():
        mean, low, high = over_seeds([row.drift for row in own], [row.interval for row in own])
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
            **_choice(row),
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
    return _without_nan(pd.DataFrame(table))


def summary_table(summaries: Sequence[Summary]) -> pd.DataFrame:
    """One row for each choice, means over its seeds: the table ``ablation_summary.json``."""
    import pandas as pd

    table = [
        {
            **_choice(entry),
            "seeds": entry.seeds,
            "drift": entry.drift,
            "ci_low": entry.low,
            "ci_high": entry.high,
            **_found(entry),
        }
        for entry in summaries
    ]
    return _without_nan(pd.DataFrame(table))


def _choice(entry: Row | Summary) -> dict[str, Any]:
    doses = {dose.axis: dose.label if dose.number is None else dose.value for dose in entry.doses}
    return {"series": entry.series, "algorithm": entry.algorithm, **doses}


def _found(entry: Row | Summary) -> dict[str, float]:
    """What a cell or a choice came to, beside its drift."""
    rates = {"noise": entry.noise, "topics_moved": entry.topics_moved, "unscored_rate": entry.unscored_rate}
    return rates | dict(zip((stance.value for stance in STANCES), entry.mix, strict=True))


def _without_nan(table: pd.DataFrame) -> pd.DataFrame:
    """NaN as None: JSON has no NaN."""
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
    found: dict[str, list[Summary]] = {}
    for entry in summaries:
        rest = [f"{dose.axis} {dose.label}" for dose in entry.doses[1:]]
        found.setdefault(", ".join([entry.series, *rest]), []).append(entry)
    return found


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


# The paper's directions beside ours ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Direction:
    """A direction that the paper reports, and what the cells say of it."""

    paper: str
    here: list[str]  # one line for each algorithm or comparison, with its numbers
    agrees: list[bool | None] = field(default_factory=list)  # of each line; None: cannot be told

    @property
    def verdict(self) -> str:
        """In words, from the lines."""
        told = [agrees for agrees in self.agrees if agrees is not None]
        if not told:
            return "cannot be told from these cells"
        word = "as in the paper" if all(told) else "differs from the paper" if not any(told) else "in part"
        unclear = len(self.agrees) - len(told)
        known, rest = (" where it can be told", f", {unclear} cannot be told") if unclear else ("", "")
        return f"{word}{known} ({sum(told)} of {len(self.agrees)}{rest})"


def directions(rows: Sequence[Row]) -> list[Direction]:
    """Those of the paper's directions that these cells can speak to (arXiv 2510.26707, as its readers report them)."""
    good = [row for row in rows if math.isfinite(row.drift) and len(row.doses) == 1 and row.doses[0].number is not None]
    found: list[Direction] = []
    by_gap = _by_series([row for row in good if row.doses[0].axis == "gap"])
    if by_gap:
        found.append(
            _direction(
                "Pairs without a value gap hardly move the stances.",
                {series: _hardly_moves(own) for series, own in by_gap.items()},
            )
        )
        found.append(_trend_direction("Drift grows with the value gap.", by_gap, rising=True))
        order = _order_direction(by_gap)
        found += [order] if order.here else []
    by_beta = _by_series([row for row in good if row.doses[0].axis == "beta" and row.algorithm == "ppo"])
    if by_beta:
        found.append(_trend_direction("PPO drifts less with a larger beta.", by_beta, rising=False))
    return found


def _by_series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.series, []).append(row)
    return groups


def _direction(paper: str, lines: Mapping[str, tuple[str, bool | None]]) -> Direction:
    return Direction(
        paper, [f"{series}: {line}" for series, (line, _) in lines.items()], [agrees for _, agrees in lines.values()]
    )


def _at(rows: Sequence[Row], choose: Callable[[Any], float]) -> Summary:
    """The summary at the smallest (``min``) or the largest (``max``) dose."""
    dose = choose(row.doses[0].number for row in rows)
    return summarise([row for row in rows if row.doses[0].number == dose])[0]


def _hardly_moves(rows: Sequence[Row]) -> tuple[str, bool | None]:
    """Whether the smallest dose moves hardly anything next to the largest dose."""
    least, most = _at(rows, min), _at(rows, max)
    numbers = f"drift {least.drift:.3f} [{least.low:.3f}, {least.high:.3f}] at {least.doses[0].label}"
    if not math.isfinite(least.low):
        return f"{numbers}: no interval", None
    share = max(0.0, least.drift - least.noise) / max(most.drift - most.noise, 1e-9)
    compared = f"{numbers}, above noise {share:.0%} of the drift at {most.doses[0].label}"
    if share < HARDLY:
        return f"{compared}: hardly moves", True
    if least.low <= 0:
        return f"{compared}, but it may be noise alone: cannot be told", None
    return f"{compared}: moves", False


def _trend_direction(paper: str, groups: Mapping[str, list[Row]], *, rising: bool) -> Direction:
    """A trend of drift with dose for each series, tested with the false discovery rate held over the series."""
    from scipy.stats import false_discovery_control

    trends = {series: trend(_numbers(own), [row.drift for row in own]) for series, own in groups.items()}
    tested = {series: p for series, (_, p) in trends.items() if math.isfinite(p)}
    adjusted = dict(zip(tested, false_discovery_control(list(tested.values())), strict=True)) if tested else {}
    lines: dict[str, tuple[str, bool | None]] = {}
    for series, (correlation, _) in trends.items():
        least, most = _at(groups[series], min), _at(groups[series], max)
        numbers = f"{least.drift:.3f} at {least.doses[0].label}, {most.drift:.3f} at {most.doses[0].label}"
        p = adjusted.get(series, math.nan)
        if not p <= ALPHA:
            lines[series] = (f"{numbers}: no trend shown" + (f" (p {p:.3f})" if math.isfinite(p) else ""), None)
        else:
            word = "grows" if correlation > 0 else "falls"
            lines[series] = (
                f"{numbers}: {word} (rank correlation {correlation:.2f}, p {p:.3f})",
                (correlation > 0) is rising,
            )
    return _direction(paper, lines)


def _numbers(rows: Sequence[Row]) -> list[float]:
    return [row.doses[0].number or 0.0 for row in rows]


def trend(doses: Sequence[float], drifts: Sequence[float]) -> tuple[float, float]:
    """Spearman's rank correlation of drift with dose over cells, and the p value of shuffling the doses (two-sided).

    (NaN, NaN) where all doses or all drifts are equal.

    >>> correlation, p = trend([0, 0, 0, 1, 1, 1, 2, 2, 2], [0.1, 0.12, 0.11, 0.3, 0.28, 0.31, 0.6, 0.62, 0.61])
    >>> round(correlation, 2), p < 0.01
    (0.95, True)
    """
    from scipy.stats import permutation_test, rankdata

    x, y = rankdata(doses), rankdata(drifts)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan, math.nan
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    result = permutation_test(
        (y,),
        lambda shuffled, axis: np.sum(x * shuffled, axis=axis) / scale,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=SHUFFLES,
        rng=np.random.default_rng(0),
    )
    return float(result.statistic), float(result.pvalue)


def _order_direction(groups: Mapping[str, list[Row]]) -> Direction:
    """DPO before SimPO before PPO at the largest gap: Welch's test over the seeds, one for each neighbouring pair."""
    lines: dict[str, tuple[str, bool | None]] = {}
    for more, less in (("dpo", "simpo"), ("simpo", "ppo")):
        if more not in groups or less not in groups:
            continue
        a, b = (_largest(groups[series]) for series in (more, less))
        words, shown, agrees = _compare(a, b)
        lines[f"{more} and {less}"] = (f"{np.mean(a):.3f} and {np.mean(b):.3f}: {more} {words} {less}{shown}", agrees)
    return _direction("At a large value gap DPO moves the stances most, SimPO less, PPO hardly.", lines)


def _largest(rows: Sequence[Row]) -> list[float]:
    dose = max(_numbers(rows))
    return [row.drift for row in rows if row.doses[0].number == dose]


def _compare(a: Sequence[float], b: Sequence[float]) -> tuple[str, str, bool | None]:
    """In words how ``a`` relates to ``b``, the p value in words, and whether it is more (None: cannot be told)."""
    from scipy.stats import ttest_ind

    p = float(ttest_ind(a, b, equal_var=False).pvalue) if min(len(a), len(b)) > 1 else math.nan
    shown = f" (p {p:.3f})" if math.isfinite(p) else ""
    if not p <= ALPHA:
        return "cannot be told from", shown, None
    more = float(np.mean(a)) > float(np.mean(b))
    return "moves more than" if more else "moves less than", shown, more
