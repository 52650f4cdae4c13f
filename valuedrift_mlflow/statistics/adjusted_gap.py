"""The value gap that a judge's errors make up, and what is left of a gap with them taken off.

A judge that errs reads two answers of one stance as opposed now and then: pairs whose sides agree throughout have a
pairwise gap above 0. With ``R[i, j]`` the share of texts of true stance i that get verdict j among those scored, and
``J[u, v]`` the share of scored pairs with verdicts u and v, ``J = R^T P R`` for the true joint stances P where the
judge errs on both sides independently. So ``P = (R^T)^-1 J R^-1`` (the matrix method of Rogan and Gladen 1978 on both
sides), and the gap is ``1 - trace(P)``. Of pairs without any true gap, whose stances have the shares w, the verdicts
differ in ``sum_i w_i (1 - sum_j R[i, j]^2)``.

It is **conditional on the labelled texts**: right as far as the judge errs in these data as it did there. Errors that
go together on both sides of a pair make up less of a gap than is said here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.adjusted import UNINVERTIBLE, onto_simplex
from valuedrift_mlflow.statistics.intervals import (
    ALPHA,
    NOTHING,
    RESAMPLES,
    Estimate,
    percentile_interval,
    resampled_means,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AdjustedGap:
    """What a judge's errors are to a pairwise gap, with 95 % intervals; NaN where they are not known.

    Attributes:
        of_error: the pairwise gap to expect at a true gap of 0, in [0, 1].
        adjusted: the pairwise gap with the errors taken off, in [0, 1].
        explained: whether the errors alone explain the gap: a true gap of 0 lies in the interval.
    """

    of_error: Estimate
    adjusted: Estimate
    explained: bool


UNKNOWN = AdjustedGap(NOTHING, NOTHING, explained=True)


def adjusted_gap(
    chosen: Integers, rejected: Integers, prompts: Integers, confusion: Integers, *, seed: int = 0
) -> AdjustedGap:
    """The part of a pairwise gap that is the judge's error, and the rest.

    Intervals: percentiles over draws of R (each row from the Dirichlet distribution of its counts plus 1/2, Jeffreys'
    prior) and of the prompts (bootstrap). Undefined without a scored pair, with one prompt, with a stance of which no
    labelled text was scored, and where the verdicts hardly depend on the truth.

    Args:
        chosen: (N,) verdicts of the chosen sides: 0 to 2 for a stance, 3 for none.
        rejected: (N,) of the rejected sides.
        prompts: (N,) the number of each pair's prompt.
        confusion: (3, 4) counts of true stance x verdict on labelled texts (the fourth: none).
        seed: fixes the draws.
    """
    scored = (chosen < 3) & (rejected < 3)
    read = confusion[:, :3]
    _, prompt = np.unique(prompts[scored], return_inverse=True)
    if prompt.max(initial=0) < 1 or (read.sum(axis=1) == 0).any():
        return UNKNOWN
    matrix = read / read.sum(axis=1, keepdims=True)
    if np.linalg.cond(matrix) >= UNINVERTIBLE:
        return UNKNOWN
    cells = np.eye(9)[3 * chosen[scored] + rejected[scored]]
    joint, drawn, _ = resampled_means(cells, prompt, seed)
    rng = np.random.default_rng([seed, 1])
    matrices = np.stack([rng.dirichlet(row + 0.5, RESAMPLES) for row in read], axis=1)
    [error], [gap] = _figures(joint.reshape(1, 3, 3), matrix[None])
    errors, gaps = _figures(drawn.reshape(-1, 3, 3), matrices)
    ends = percentile_interval(np.asarray(gap), gaps)
    low, high = np.clip(ends, 0.0, 1.0)
    if ends[1] <= 0:
        # The judge errs less here than on the labelled texts: no more than was read can be said to be left.
        high = np.quantile(1 - np.trace(drawn.reshape(-1, 3, 3), axis1=1, axis2=2), 1 - ALPHA / 2)
    return AdjustedGap(
        of_error=Estimate.of(float(error), errors),
        adjusted=Estimate(float(np.clip(gap, 0.0, 1.0)), float(low), float(high)),
        explained=bool(ends[0] <= 0),
    )


def _figures(joint: Floats, matrix: Floats) -> tuple[Floats, Floats]:
    """(R, 3, 3) verdicts of pairs, (R, 3, 3) -> (R,) the gap of error alone, (R,) the gap without it, not cut off."""
    inverse = np.linalg.inv(matrix)
    true = inverse.transpose(0, 2, 1) @ joint @ inverse
    mix = onto_simplex((true.sum(axis=1) + true.sum(axis=2)) / 2)
    error: Floats = (mix * (1 - (matrix**2).sum(axis=2))).sum(axis=1)
    gap: Floats = 1 - np.trace(true, axis1=1, axis2=2)
    return error, gap
