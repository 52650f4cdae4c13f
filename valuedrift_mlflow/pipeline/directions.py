"""The directions that the paper reports, beside what the cells of an ablation say of them.

Every line is a claim with a p value, and all lines of an ablation are one family: Holm's method (1979) adjusts for
their number, so that a false claim anywhere has the level of one. A line that is not significant says nothing: neither
"differs" nor "is the same". What would have been found with 80 % power stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from valuedrift_mlflow.pipeline.ablation_summary import ALPHA, Row, Summary, summarise
from valuedrift_mlflow.statistics.axes import holm
from valuedrift_mlflow.statistics.intervals import Estimate
from valuedrift_mlflow.statistics.paired import Changes, compare, ratio
from valuedrift_mlflow.statistics.trends import trend

if TYPE_CHECKING:
    import pandas as pd

HARDLY = 0.25  # a drift below this share of the one at the largest dose counts as "hardly"
AGREES, DIFFERS, CANNOT_TELL = "agrees", "differs", "cannot tell"


@dataclass(frozen=True)
class Line:
    """What the cells of one series, or of two, say of a direction.

    Attributes:
        name: the series, or both.
        numbers: the drifts that it rests on, in words.
        figure: what ``estimate`` is.
        estimate: with its 95 % interval; NaN where there is none.
        p_value: of this line alone; NaN where it cannot be tested.
        agrees: whether it agrees with the paper, were it significant.
        shown: what it says where it is significant, in words.
        unshown: what it says where it is not.
        detectable: the least ``estimate`` that is found with 80 % power in the family; NaN where none is.
        found: the same in words; empty where none is.
        seeds: how many it rests on.
        p_adjusted: after Holm's method over all lines of the ablation.
    """

    name: str
    numbers: str
    figure: str
    estimate: Estimate
    p_value: float
    agrees: bool
    shown: str
    unshown: str
    detectable: float
    found: str
    seeds: int
    p_adjusted: float = math.nan

    @property
    def told(self) -> bool | None:
        """Whether the line agrees with the paper; None: cannot be told."""
        # Not `p > ALPHA`: a NaN, where nothing can be tested, has to come out here too.
        return self.agrees if self.p_adjusted <= ALPHA else None

    @property
    def verdict(self) -> str:
        """In a word."""
        return {True: AGREES, False: DIFFERS, None: CANNOT_TELL}[self.told]

    def __str__(self) -> str:
        """``dpo: 0.030 at 0, 0.710 at 1: grows by 0.680 [0.600, 0.760] (adjusted p 0.004; 0.09 would be found)``."""
        about = [f"adjusted p {_p(self.p_adjusted)}"] if math.isfinite(self.p_adjusted) else []
        about += [self.found] if self.found else []
        said = self.unshown if self.told is None else self.shown
        return f"{self.name}: {self.numbers}: {said}" + (f" ({'; '.join(about)})" if about else "")


def _p(p_value: float) -> str:
    return "below 0.001" if p_value < 0.001 else f"{p_value:.3f}"


@dataclass(frozen=True)
class Direction:
    """A direction that the paper reports, and what the cells say of it."""

    paper: str
    lines: list[Line] = field(default_factory=list)  # one for each algorithm or comparison

    @property
    def here(self) -> list[str]:
        """The lines in words, with their numbers."""
        return [str(line) for line in self.lines]

    @property
    def agrees(self) -> list[bool | None]:
        """What each line says; None: cannot be told."""
        return [line.told for line in self.lines]

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


# A line for which the number of tests that share the level is still to come.
_Unmade = Callable[[int], Line]


def directions(rows: Sequence[Row]) -> list[Direction]:
    """Those of the paper's directions that these cells can speak to (arXiv 2510.26707, as its readers report them)."""
    unmade = _unmade(rows)
    tests = sum(len(lines) for lines in unmade.values())
    reported = [Direction(paper, [make(tests) for make in lines]) for paper, lines in unmade.items()]
    adjusted = iter(holm(np.array([line.p_value for entry in reported for line in entry.lines])).tolist())
    return [
        replace(entry, lines=[replace(line, p_adjusted=next(adjusted)) for line in entry.lines]) for entry in reported
    ]


def family_size(rows: Sequence[Row]) -> int:
    """How many lines share the level; known from the design alone, as cells count here whatever they came to."""
    return sum(len(lines) for lines in _unmade(rows).values())


def _unmade(rows: Sequence[Row]) -> dict[str, list[_Unmade]]:
    # One numeric axis: where several are crossed, the trend over one would hold what the others do.
    good = [row for row in rows if math.isfinite(row.drift) and len(row.doses) == 1 and row.doses[0].number is not None]
    by_gap = _by_series([row for row in good if row.doses[0].axis == "gap"])
    by_beta = _by_series([row for row in good if row.doses[0].axis == "beta" and row.algorithm == "ppo"])
    lines: dict[str, list[_Unmade]] = {
        "Pairs without a value gap hardly move the stances.": [
            partial(_hardly_moves, series, own) for series, own in by_gap.items()
        ],
        "Drift grows with the value gap.": _trends(by_gap, rising=True),
        "At a large value gap DPO moves the stances most, SimPO less, PPO hardly.": _order(by_gap),
        "PPO drifts less with a larger beta.": _trends(by_beta, rising=False),
    }
    return {paper: own for paper, own in lines.items() if own}


def _by_series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.series, []).append(row)
    return groups


def _trends(groups: Mapping[str, list[Row]], *, rising: bool) -> list[_Unmade]:
    return [partial(_trend, series, own, rising=rising) for series, own in groups.items()]


def _order(by_gap: Mapping[str, list[Row]]) -> list[_Unmade]:
    """DPO before SimPO before PPO at the largest gap that both have."""
    return [
        partial(_compared, more, by_gap[more], less, by_gap[less])
        for more, less in (("dpo", "simpo"), ("simpo", "ppo"))
        if more in by_gap and less in by_gap
    ]


def by_dose(rows: Sequence[Row]) -> dict[float, list[Row]]:
    """The runs at each dose of one numeric axis, doses in rising order."""
    doses = sorted({row.doses[0].number or 0.0 for row in rows})
    return {dose: [row for row in rows if row.doses[0].number == dose] for dose in doses}


def of_same_seeds(cells: Sequence[Sequence[Row]]) -> list[list[Changes]]:
    """What the runs of cells changed, by the seeds that all of them have, in one order; no seed where there is none."""
    known = [{row.seed: row.changes for row in cell if row.changes is not None} for cell in cells]
    seeds = sorted(set.intersection(*(set(cell) for cell in known))) if known else []
    return [[cell[seed] for seed in seeds] for cell in known]


def _hardly_moves(series: str, rows: Sequence[Row], tests: int) -> Line:
    """Whether the smallest dose moves hardly anything next to the largest dose."""
    doses = list(by_dose(rows).values())
    least, most = summarise(doses[0])[0], summarise(doses[-1])[0]
    first, last = of_same_seeds([doses[0], doses[-1]])
    found = ratio(first, last, HARDLY, tests=tests)
    numbers = f"drift {least.drift:.3f} [{least.low:.3f}, {least.high:.3f}] at {least.doses[0].label}"
    share = f"above noise {_percent(found.share)} of the drift at {most.doses[0].label}"
    told = [f"below {found.told_below:.0%}"] if math.isfinite(found.told_below) else []
    told += [f"above {found.told_above:.0%}"] if found.told_above <= 1 else []
    return Line(
        name=series,
        numbers=numbers,
        figure=f"share of the drift at {most.doses[0].label}",
        estimate=found.share,
        p_value=_of_several(found.p_value, found.seeds),
        agrees=found.below,
        shown=f"{share}: {'hardly moves' if found.below else 'moves'}",
        unshown=f"{share}: cannot be told" if math.isfinite(found.share.value) else "cannot be told",
        detectable=found.told_above if found.told_above <= 1 else math.nan,
        found=f"a share {' or '.join(told)} would be found" if told else "",
        seeds=found.seeds,
    )


def _of_several(p_value: float, seeds: int) -> float:
    """NaN of one seed: that cells differ may be all that seeds differ by."""
    return p_value if seeds > 1 else math.nan


def _percent(share: Estimate) -> str:
    high = f"{share.high:.0%}]" if math.isfinite(share.high) else "no end]"
    return f"{share.value:.0%} [{share.low:.0%}, {high}" if not math.isnan(share.low) else f"{share.value:.0%}"


def _trend(series: str, rows: Sequence[Row], tests: int, *, rising: bool) -> Line:
    """Whether drift rises or falls with the dose, and by how much from the smallest to the largest."""
    cells = by_dose(rows)
    ends = [summarise(own)[0] for own in cells.values()]
    seeds = sorted({row.seed for row in rows})
    drift = {(row.seed, row.doses[0].number): row.drift for row in rows}
    drifts = np.array([[drift.get((seed, dose), math.nan) for dose in cells] for seed in seeds])
    found = trend(of_same_seeds(list(cells.values())), drifts, tests=tests)
    rank = f"rank correlation {found.correlation:.2f}, on these prompts p {_p(found.p_shuffled)}"
    return Line(
        name=series,
        numbers=f"{_at(ends[0])}, {_at(ends[-1])}",
        figure=f"difference of drift above noise, {ends[-1].doses[0].label} less {ends[0].doses[0].label}",
        estimate=found.ends.difference,
        p_value=found.p_value,
        agrees=found.rises is rising,
        shown=f"{'grows' if found.rises else 'falls'}, above noise by {found.ends.difference}; {rank}",
        unshown="no trend shown" + (f"; {rank}" if math.isfinite(found.correlation) else ""),
        detectable=found.detectable,
        found=_least(found.detectable),
        seeds=found.seeds,
    )


def _at(entry: Summary) -> str:
    return f"{entry.drift:.3f} at {entry.doses[0].label}"


def _least(detectable: float) -> str:
    return f"a difference of {detectable:.2f} would be found" if math.isfinite(detectable) else ""


def _compared(more: str, first: Sequence[Row], less: str, second: Sequence[Row], tests: int) -> Line:
    """Whether one series drifts more than another at the largest dose of both, seed by seed."""
    cells = by_dose(first), by_dose(second)
    shared = [dose for dose in cells[0] if dose in cells[1]]
    own = [cell[shared[-1]] if shared else [] for cell in cells]
    found = compare(*of_same_seeds(own), tests=tests)
    means = [float(np.mean([row.drift for row in cell])) if cell else math.nan for cell in own]
    agrees = found.difference.value > 0
    return Line(
        name=f"{more} and {less}",
        numbers=f"{means[0]:.3f} and {means[1]:.3f}",
        figure=f"difference of drift above noise, {more} less {less}",
        estimate=found.difference,
        p_value=_of_several(found.p_value, found.seeds),
        agrees=agrees,
        shown=f"{more} moves {'more' if agrees else 'less'} than {less}, above noise by {found.difference}",
        unshown=f"{more} cannot be told from {less}",
        detectable=found.detectable,
        found=_least(found.detectable),
        seeds=found.seeds,
    )


def directions_table(reported: Sequence[Direction]) -> pd.DataFrame:
    """One row for each line: the table ``ablation_directions.json``. None is undefined, or has no end."""
    import pandas as pd

    rows = [
        {
            "direction": entry.paper,
            "cells": line.name,
            "figure": line.figure,
            "estimate": line.estimate.value,
            "ci_low": line.estimate.low,
            "ci_high": line.estimate.high,
            "p_value": line.p_value,
            "p_adjusted": line.p_adjusted,
            "minimum_detectable": line.detectable,
            "seeds": line.seeds,
            "verdict": line.verdict,
            "words": str(line),
        }
        for entry in reported
        for line in entry.lines
    ]
    frame = pd.DataFrame(rows).astype(object)
    return frame.where(frame.notna() & ~frame.isin([math.inf, -math.inf]), None)
