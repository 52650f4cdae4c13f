"""The directions that the paper reports, beside what the cells of an ablation say of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from valuedrift_mlflow.pipeline.ablation_summary import ALPHA, Row, Summary, summarise
from valuedrift_mlflow.statistics.distance import above

HARDLY = 0.25  # a drift below this share of the one at the largest dose counts as "hardly"
# scipy counts the data themselves as one more shuffle: the smallest p value is then 1 in 10,000.
SHUFFLES = 9999  # of the doses, in the test for a trend


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
    # One numeric axis: where several are crossed, the trend over one would hold what the others do.
    good = [row for row in rows if math.isfinite(row.drift) and len(row.doses) == 1 and row.doses[0].number is not None]
    reported: list[Direction] = []
    by_gap = _by_series([row for row in good if row.doses[0].axis == "gap"])
    if by_gap:
        reported.append(
            _direction(
                "Pairs without a value gap hardly move the stances.",
                {series: _hardly_moves(own) for series, own in by_gap.items()},
            )
        )
        reported.append(_trend_direction("Drift grows with the value gap.", by_gap, rising=True))
        order = _order_direction(by_gap)
        reported += [order] if order.here else []
    by_beta = _by_series([row for row in good if row.doses[0].axis == "beta" and row.algorithm == "ppo"])
    if by_beta:
        reported.append(_trend_direction("PPO drifts less with a larger beta.", by_beta, rising=False))
    return reported


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
    # Above noise on both sides: drift is never negative, so noise alone would make up a part of either.
    beyond = [float(above(np.asarray(one.drift), np.asarray(one.noise))) for one in (least, most)]
    share = beyond[0] / max(beyond[1], 1e-9)
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
    # scipy refuses NaN among the p values.
    tested = {series: p for series, (_, p) in trends.items() if math.isfinite(p)}
    adjusted = dict(zip(tested, false_discovery_control(list(tested.values())), strict=True)) if tested else {}
    lines: dict[str, tuple[str, bool | None]] = {}
    for series, (correlation, _) in trends.items():
        least, most = _at(groups[series], min), _at(groups[series], max)
        numbers = f"{least.drift:.3f} at {least.doses[0].label}, {most.drift:.3f} at {most.doses[0].label}"
        p = adjusted.get(series, math.nan)
        # Not `p > ALPHA`: a NaN, where nothing can be tested, has to come out here too.
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

    # Spearman's correlation is Pearson's of the ranks; equal values share their mean rank.
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
        rng=np.random.default_rng(0),  # the same cells always have the same p value
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
    # As above, NaN too: one seed has no variance to test by.
    if not p <= ALPHA:
        return "cannot be told from", shown, None
    more = float(np.mean(a)) > float(np.mean(b))
    return "moves more than" if more else "moves less than", shown, more
