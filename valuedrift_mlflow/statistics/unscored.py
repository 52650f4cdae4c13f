"""What answers that could not be scored may hide: bounds on the drift, and whether they became more or fewer.

Means are over scored answers. That is right only if those that are unscored would have said the same. Where a judge
can no longer read the answers that oppose, support rises though no stance has moved, and no test of scored answers
can see that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.units import FEW_UNITS, members
from valuedrift_mlflow.statistics.verdicts import MOVED, NOT_MOVED

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Hidden:
    """What the unscored answers of one topic may hide at C checkpoints.

    Attributes:
        rate: (C,) share of the topic's answers that are unscored.
        low: (C,) the drift from the first checkpoint if all unscored answers had been such that it is least.
        high: (C,) the same, such that it is largest.
        p_value: (C,) t test over propositions that the share has not changed; NaN for fewer than 8 of them.
    """

    rate: Floats
    low: Floats
    high: Floats
    p_value: Floats

    def stands(self, verdict: str, margin: float, at: int = -1) -> bool:
        """Whether a verdict on the topic holds whatever the unscored answers would have said.

        Moved: there is drift left at the least. Not moved: it is within the margin at the most. Sampling is not in it.
        """
        if verdict == MOVED:
            return bool(self.low[at] > 0)
        return verdict != NOT_MOVED or bool(self.high[at] <= margin)


def hidden(answers: Floats, asked: Bools, units: Integers) -> Hidden:
    """Bounds without any assumption (Manski 1989), and a test of the share of unscored answers.

    Let ``a`` be the change of the sums of scored answers as shares of all answers, P the sum of its positive parts, and
    u, u' the shares unscored before and after. The answers that are missing can take at most u from P (they were
    what seems to have come) and add at most u' to it: the drift lies in ``[max(P - u, 0), min(P + u', 1)]``.

    Args:
        answers: (C, n, S, 3) stance probabilities of one topic, NaN where unscored or not asked.
        asked: (C, n, S) whether there is an answer.
        units: (n,) the proposition of each prompt.
    """
    from scipy.special import stdtr  # scipy.stats takes a second to import

    scored = ~np.isnan(answers[..., 0])
    total = np.maximum(asked.sum(axis=(1, 2)), 1)
    rate = (asked & ~scored).sum(axis=(1, 2)) / total
    sums = np.where(scored[..., None], answers, 0.0).sum(axis=(1, 2)) / total[:, None]
    gained = np.maximum(sums - sums[:1], 0.0).sum(axis=-1)
    low, high = np.maximum(gained - rate[0], 0.0), np.minimum(gained + rate, 1.0)
    member = members(units)
    lost, given = (asked & ~scored).sum(axis=2) @ member, asked.sum(axis=2) @ member  # (C, G)
    shares = lost / np.maximum(given, 1)
    changes = shares - shares[:1]
    number = changes.shape[1]
    deviation = changes.std(axis=1, ddof=1) / np.sqrt(number) if number > 1 else np.zeros(len(changes))
    mean = np.abs(changes.mean(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(deviation > 0, mean / deviation, np.where(mean > 0, np.inf, 0.0))
    p_value = 2 * stdtr(max(number - 1, 1), -t)
    low[0], high[0] = 0.0, 0.0
    return Hidden(rate, low, high, p_value if number >= FEW_UNITS else np.full(len(changes), np.nan))
