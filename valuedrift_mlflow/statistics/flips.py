"""Sign flips of whole units: tests of change that are exact where few units allow it, and one family for a stage.

Had nothing changed, a proposition's change of stances was as likely to be its opposite. So the changes of all
propositions are turned round at random, each with all its prompts, checkpoints and stances together, and the figure
of every topic, checkpoint and stance is recomputed. Propositions that move at random about zero are noise to this test.

Figures are made comparable by their own size: ``u = |sum d| / sqrt(sum d^2)`` over the units' changes d. That is a
monotone function of t, ``t = u sqrt(G - 1) / sqrt(G - u^2)``, but its denominator is the same under every flip. The
adjusted p of a figure is the share of flips in which the largest of the family is at least as large (max-T), stepping
down from the largest one (Westfall and Young 1993, algorithm 2.8): it keeps the family-wise error, and uses that
checkpoints and stances go together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.units import FEW_UNITS

Floats = NDArray[np.float64]

ENUMERATED = 12  # units up to which every sign pattern is looked at: 2 ** 11 of them
ROUNDING = 1e-9  # differences smaller than this are floating-point noise, not stance


@dataclass(frozen=True, slots=True, eq=False)
class Flipped:
    """One topic under the sign flips of its units.

    Attributes:
        figure: (C, 3) u as observed; NaN where fewer than `FEW_UNITS` units were scored, 0 where nothing changed.
        units: (C,) how many units were scored at both checkpoints.
        table: (R, C * 3) u under R flips: all there are, each once, where ``exact``.
        exact: whether the table has every flip.
        p_value: (C, 3) of each stance alone, at the checkpoints that are told of; NaN where no unit was scored.
        topic_p_value: (C,) of the total variation, at the same.
    """

    figure: Floats
    units: NDArray[np.int64]
    table: Floats
    exact: bool
    p_value: Floats
    topic_p_value: Floats


def flipped(
    changes: Floats, member: Floats, flips: int, rng: np.random.Generator, told: NDArray[np.int64] | None = None
) -> Flipped:
    """Turn the units of a topic round.

    Args:
        changes: (C, n, 3) each prompt's change from the first checkpoint, NaN where it was not scored at both.
        member: (n, G) which prompt is in which unit.
        flips: how many flips to draw, where there are too many units to look at all.
        rng: draws them.
        told: the checkpoints whose p values are told, all where they are not given.
    """
    told = np.arange(len(changes)) if told is None else told
    scored = ~np.isnan(changes[..., 0])
    sums = np.einsum("cns,ng->gcs", np.where(scored[..., None], changes, 0.0), member)
    units = ((scored.astype(np.float64) @ member) > 0).sum(axis=1)
    size = np.sqrt((sums**2).sum(axis=0))
    parts = np.divide(sums, size, out=np.zeros_like(sums), where=size > ROUNDING)
    exact = len(sums) <= ENUMERATED
    signs = all_signs(len(sums)) if exact else rng.choice([-1.0, 1.0], (flips, len(sums)))
    table = np.abs(signs @ parts.reshape(len(sums), -1))
    observed = np.abs(parts.sum(axis=0))
    turned, seen = np.take(table.reshape(len(signs), *observed.shape), told, axis=1), observed[told]
    p_value = _share(turned, seen, exact)
    # Total variation of the mean: half the sum of the absolute changes, in any unit of size.
    distances = 0.5 * (turned * size[told]).sum(axis=-1)
    topic_p = _share(distances, 0.5 * (seen * size[told]).sum(axis=-1), exact)
    p_value[units[told] == 0], topic_p[units[told] == 0] = np.nan, np.nan
    figure = np.where((units >= FEW_UNITS)[:, None], observed, np.nan)
    return Flipped(figure, units, table, exact, p_value, topic_p)


def all_signs(units: int) -> Floats:
    """(2 ** (G - 1), G): every sign pattern of G units once, the last unit's sign held (both tails are alike)."""
    patterns = np.arange(2 ** (units - 1))
    bits = (patterns[:, None] >> np.arange(units)) & 1
    return np.where(bits == 1, -1.0, 1.0)


def _share(table: Floats, observed: Floats, exact: bool) -> Floats:
    """(R, ...), (...) -> (...): the share of flips at least as extreme; where they were drawn, observed is one more."""
    extreme = (table >= observed - ROUNDING).sum(axis=0)
    share: Floats = extreme / len(table) if exact else (1 + extreme) / (1 + len(table))
    return share


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """All figures of a stage as one family.

    Attributes:
        p_value: (C, T, 3) adjusted p values, NaN where a figure was not tested.
        critical: the largest u of the family that has probability ``alpha`` where nothing changed; NaN where nothing
            was tested.
        cutoff: (C, T, 3) the u that a figure had to reach for its p to be at most alpha; NaN where it was not tested.
            It falls from the largest figure, where it is ``critical``, as the test steps down.
    """

    p_value: Floats
    critical: float
    cutoff: Floats


def adjusted(
    topics: list[Flipped],
    flips: int,
    rng: np.random.Generator,
    alpha: float,
    told: NDArray[np.int64] | None = None,
) -> Family:
    """Step-down max-T over all checkpoints, topics and stances of a stage.

    Args:
        topics: T topics of C checkpoints.
        flips: R joint flips. A topic whose flips were all looked at gives one of them at random to each.
        rng: draws them.
        alpha: level of the critical values.
        told: the checkpoints that the family is told of, all where they are not given; all are in it.
    """
    observed = np.stack([topic.figure for topic in topics], axis=1)  # (C, T, 3)
    told = np.arange(len(observed)) if told is None else told
    # The first checkpoint, or any equal to it, has nothing that could be turned round: p 1, in no family.
    tested = np.isfinite(observed) & (observed > ROUNDING)
    p_value = np.where(np.isfinite(observed), 1.0, np.nan)
    cutoff = np.full(observed.shape, np.nan)
    if not tested.any():
        return Family(p_value[told], math.nan, cutoff[told])
    # Rows of a topic's table: one flip is the same for all checkpoints and stances.
    rows = [rng.integers(len(t.table), size=flips) if t.exact else np.arange(flips) % len(t.table) for t in topics]
    tables = [np.ascontiguousarray(t.table.T).reshape(*t.figure.shape, -1) for t in topics]  # T of (C, 3, R)
    # (F,) each, from the least figure to the largest.
    topic, checkpoint, stance = np.argwhere(tested.swapaxes(0, 1)).T
    order = np.argsort(observed[checkpoint, topic, stance])
    at = checkpoint[order], topic[order], stance[order]
    rising = observed[at]
    # To find a cut-off takes longer than to count: it is found where it is told, and of the largest.
    wanted = np.isin(at[0], told)
    wanted[-1] = True
    place = math.ceil((1 - alpha) * (flips - 1))
    counts, reach = np.zeros(len(rising), dtype=np.int64), np.full(len(rising), np.nan)
    largest = np.zeros(flips)  # of all figures not above this one; by one figure at a time it stays in the cache
    for number, (c, t, s) in enumerate(zip(*(part.tolist() for part in at), strict=True)):
        np.maximum(largest, tables[t][c, s].take(rows[t]), out=largest)
        counts[number] = np.count_nonzero(largest >= rising[number] - ROUNDING)
        if wanted[number]:
            reach[number] = np.partition(largest.astype(np.float32), place)[place]
    stepped = (1 + counts) / (1 + flips)
    # No figure is surer than a larger one.
    p_value[at] = np.maximum.accumulate(stepped[::-1])[::-1]
    cutoff[at] = reach
    return Family(p_value[told], float(reach[-1]), cutoff[told])
