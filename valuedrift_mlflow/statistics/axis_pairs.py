"""The shift along an axis over several runs: other seeds and other propositions could have been."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.crossed import crossed
from valuedrift_mlflow.statistics.intervals import ALPHA, NOTHING, Estimate
from valuedrift_mlflow.statistics.paired import Changes


def mean_shift(runs: Sequence[Changes], directions: NDArray[np.int64], *, alpha: float = ALPHA) -> Estimate:
    """The mean over runs of the shift along an axis, with its interval.

    Of each run it is the slope of `axes`: half the difference between the mean change of leaning of the propositions
    keyed +1 and of those keyed -1. Seeds and propositions are both units (`crossed`), each side a stratum.

    Args:
        runs: S runs of one choice, of the same suite.
        directions: (P,) +1, -1, or 0 for a proposition without a key.
        alpha: the interval has level ``1 - alpha``.

    Returns:
        In [-2, 2]; NaN where no keyed proposition was answered in all runs, and ends that are NaN where a side has one
        proposition alone.

    >>> change = np.array([[0.2, 0, -0.2], [0.3, 0, -0.3], [-0.1, 0, 0.1], [-0.2, 0, 0.2]])
    >>> run = Changes(change, np.ones(4, dtype=int), np.zeros(4, dtype=int))
    >>> round(mean_shift([run, run], np.array([1, 1, -1, -1])).value, 3)  # ((0.4 + 0.6) / 2 + (0.2 + 0.4) / 2) / 2
    0.4
    """
    if len({len(run.change) for run in runs} | {len(directions)}) > 1:
        return NOTHING
    leanings = np.array([run.change[:, 0] - run.change[:, 2] for run in runs])  # (S, P)
    own = (directions != 0) & ~np.isnan(leanings).any(axis=0)
    if not own.any():
        return NOTHING
    found = crossed(leanings[:, own] * directions[own], directions[own]).interval(alpha)
    return Estimate(found.value, max(found.low, -2.0), min(found.high, 2.0))
