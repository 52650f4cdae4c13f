"""Axis shift: how far stances move along a direction of values, and not only towards agreeing more or less.

The net drift of a topic (`statistics.drift`) compares the topic's mean stances. Where half of the propositions point
one way and half the other, a move of all of them to one side cancels in that mean. Keys undo this: with ``direction``
+1 or -1 of each proposition, ``direction * (P(support) - P(oppose))`` says where an answer lies, in [-1, 1].

**Position.** The leaning of a proposition is the mean over its scored prompts of ``P(support) - P(oppose)``. The
position on an axis is the least-squares slope of the model

    leaning of proposition i = agreement + direction_i * position + rest_i,

which is half the difference between the mean leaning of the propositions keyed +1 and of those keyed -1. It is the mean
of ``direction * leaning`` where as many are keyed +1 as -1, and where all point one way (then agreement cannot be told
from position, and the model has no such term). Where the keys are unequal in number the plain mean would take a part of
every change of agreement for a shift: a model that comes to agree with everything would seem to move.

**Shift.** The same slope of the propositions' changes since the first checkpoint, over those scored at both.

**Intervals** are those of the slope: t over propositions with the pooled variance of the rest, so they speak of other
propositions like these. **Tests** flip the sign of whole propositions' changes beside the common one: had nothing
shifted, either sign was equally likely. All ``2 ** n`` patterns are tried for up to 13 propositions, else 10,000 are
drawn. Fewer than 8 propositions are not tested: they allow no p below ``2 ** (1 - n)``, which leaves nothing for
several axes. Holm's method (1979) adjusts for the axes of a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.statistics.intervals import ALPHA, NO_SPREAD, widened
from valuedrift_mlflow.statistics.units import FEW_UNITS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]

ENUMERATED = 13  # propositions up to which all patterns of signs are tried (8,192)
FLIPS = 9_999  # patterns drawn beyond that, and permutations of the axis that is read off the data
ROUNDING = 1e-9  # differences smaller than this are floating-point noise
DATA = "data"  # name of the axis that is read off the data


@dataclass(frozen=True, slots=True, eq=False)
class AxisShifts:
    """Positions on A axes at C checkpoints, and shifts from the first one. NaN is undefined.

    Attributes:
        axes: the names, A in number.
        steps: (C,) the optimizer step of each checkpoint.
        propositions: (A,) how many propositions are keyed.
        leaning: (C, A) position on the axis, in [-1, 1]; NaN where none of its propositions was scored.
        leaning_ci: (C, A, 2) its interval; NaN where fewer than two propositions (three, keyed both ways) were scored.
        shift: (C, A) change of the position since the first checkpoint, in [-2, 2].
        shift_ci: (C, A, 2) its interval; [0, 0] at the first checkpoint.
        p_value: (C, A) test that nothing moved along the axis; NaN where fewer than 8 propositions were scored at both.
        p_adjusted: (C, A) the same after Holm's method over the axes of the checkpoint.
        significant: (C, A) whether ``p_adjusted`` is at most alpha.
    """

    axes: tuple[str, ...]
    steps: Integers
    propositions: Integers
    leaning: Floats
    leaning_ci: Floats
    shift: Floats
    shift_ci: Floats
    p_value: Floats
    p_adjusted: Floats
    significant: Bools

    def bound(self, at: int = -1) -> float:
        """What no axis has moved further than: the largest end of an interval at one checkpoint; NaN if one has none.

        A margin above this bound is met by every axis, each at level ``1 - alpha`` (an intersection-union test, Berger
        1982, needs no adjustment for their number). So an axis of which little is known cannot pass.
        """
        return float(np.abs(self.shift_ci[at]).max(initial=0.0))


def analyse_axes(
    values: Floats,
    propositions: Integers,
    keyed: Integers,
    axes: Sequence[str],
    steps: Sequence[int],
    *,
    seed: int = 0,
    alpha: float = ALPHA,
) -> AxisShifts:
    """Positions on every axis at every checkpoint, and their shifts from the first one.

    Args:
        values: (C, N, 3) mean stance probabilities of N prompts at C checkpoints; NaN where no response was scored.
        propositions: (N,) the number of each prompt's proposition, 0 to P - 1.
        keyed: (A, P) directions of the propositions: +1, -1, or 0 where an axis has no key for it.
        axes: the names of the A axes.
        steps: the step of each of the C checkpoints.
        seed: fixes the flips where not all are tried.
        alpha: level of the tests; intervals have level ``1 - alpha``.

    Raises:
        InputError: shapes disagree, a direction is none of +1, -1 and 0, or an axis has no key.

    >>> keys = np.array([[1, 1, 1, -1, -1, -1]])
    >>> before, after = np.full((6, 3), 1 / 3), np.array([[0.6, 0.3, 0.1]] * 3 + [[0.1, 0.3, 0.6]] * 3)
    >>> moved = analyse_axes(np.stack([before, after]), np.arange(6), keys, ["abortion"], [0, 10])
    >>> moved.leaning.round(2).tolist(), moved.shift.round(2).tolist()
    ([[0.0], [0.5]], [[0.0], [0.5]])
    """
    _check(values, propositions, keyed, axes, steps)
    leanings = proposition_leanings(values, propositions, keyed.shape[1])
    changes = leanings - leanings[:1]
    shape = len(steps), len(axes)
    leaning, shift, p_value = np.empty(shape), np.empty(shape), np.empty(shape)
    leaning_ci, shift_ci = np.empty((*shape, 2)), np.empty((*shape, 2))
    for a, rng in enumerate(np.random.default_rng(seed).spawn(len(axes))):
        own = keyed[a] != 0
        direction = keyed[a, own].astype(np.float64)
        for c in range(len(steps)):
            leaning[c, a], leaning_ci[c, a] = slope(leanings[c, own], direction, 1.0, alpha)
            shift[c, a], shift_ci[c, a] = slope(changes[c, own], direction, 2.0, alpha)
        shift_ci[0, a] = np.where(np.isnan(shift[0, a]), np.nan, 0.0)  # the first against itself is no estimate
        p_value[:, a] = sign_flips(changes[:, own], direction, rng)
    p_adjusted = np.array([holm(row) for row in p_value])
    counts = np.abs(keyed).sum(axis=1)
    step = np.asarray(steps, dtype=np.int64)
    significant = p_adjusted <= alpha
    return AxisShifts(tuple(axes), step, counts, leaning, leaning_ci, shift, shift_ci, p_value, p_adjusted, significant)


def _check(values: Floats, propositions: Integers, keyed: Integers, axes: Sequence[str], steps: Sequence[int]) -> None:
    shapes = values.shape[0] == len(steps) and values.shape[1:] == (*propositions.shape, 3)
    if not shapes or keyed.ndim != 2 or len(axes) != len(keyed) or propositions.max(initial=-1) >= keyed.shape[-1]:
        found = f"values {values.shape}, propositions {propositions.shape}, keyed {keyed.shape}, {len(axes)} axes"
        raise InputError(problem("axes", found, "values (C, N, 3), propositions (N,), keyed (A, P), A axes, C steps"))
    if not np.isin(keyed, (-1, 0, 1)).all() or not (keyed != 0).any(axis=1).all():
        raise InputError(problem("axes", keyed.tolist(), "directions +1, -1 and 0, and a key for every axis"))


def proposition_leanings(values: Floats, propositions: Integers, count: int) -> Floats:
    """Mean over the scored prompts of each proposition of P(support) - P(oppose).

    Args:
        values: (C, N, 3), NaN where a prompt was not scored.
        propositions: (N,) the number of each prompt's proposition.
        count: P, the number of propositions.

    Returns:
        (C, P), NaN where none of a proposition's prompts was scored.
    """
    leaning = values[..., 0] - values[..., 2]
    member = (propositions[:, None] == np.arange(count)).astype(np.float64)  # (N, P)
    scored = ~np.isnan(leaning)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN we want
        means: Floats = (np.where(scored, leaning, 0.0) @ member) / (scored.astype(np.float64) @ member)
    return means


def slope(values: Floats, direction: Floats, most: float, alpha: float = ALPHA) -> tuple[float, Floats]:
    """Slope of values on direction beside a common term, and its t interval; see the head of this file.

    Values that do not vary at all would have an interval without width. What the propositions that were missed could
    make of the slope stands in for it, as `widened` has it.

    Args:
        values: (n,) of the propositions, NaN where undefined.
        direction: (n,) +1 or -1.
        most: the largest size that a value can have.
        alpha: the interval has level ``1 - alpha``.

    >>> estimate, interval = slope(np.array([0.5, 0.3, -0.2, -0.4]), np.array([1.0, 1.0, -1.0, -1.0]), 1.0)
    >>> round(estimate, 3)  # ((0.5 + 0.3) / 2 - (-0.2 - 0.4) / 2) / 2
    0.35
    """
    from scipy.stats import t  # takes a second to import

    kept = ~np.isnan(values)
    values, direction = values[kept], direction[kept]
    n = len(values)
    if not n:
        return math.nan, np.full(2, np.nan)
    sides = [values[direction == sign] for sign in (1.0, -1.0)]
    weights = balanced_weights(direction)
    estimate = float(weights @ (direction * values))
    groups = [side for side in sides if len(side)]
    degrees = n - len(groups)
    if degrees < 1:
        return estimate, np.full(2, np.nan)
    rest = np.concatenate([side - side.mean() for side in groups])
    if np.abs(rest).max() < NO_SPREAD:
        return estimate, widened(estimate, -most, most, 1 - (alpha / 2) ** (1 / n))
    error = math.sqrt(float(rest @ rest) / degrees * float(weights @ weights))
    width = float(t.ppf(1 - alpha / 2, degrees)) * error
    return estimate, np.clip([estimate - width, estimate + width], -most, most)


def balanced_weights(direction: Floats) -> Floats:
    """(n,) directions -> (n,) weights that sum to 1, one half on either direction where there are both.

    >>> balanced_weights(np.array([1.0, 1.0, 1.0, -1.0])).round(3).tolist()
    [0.167, 0.167, 0.167, 0.5]
    """
    plus, minus = (direction > 0).sum(), (direction < 0).sum()
    if not plus or not minus:
        return np.full(len(direction), 1 / max(len(direction), 1))
    weights: Floats = np.where(direction > 0, 0.5 / plus, 0.5 / minus)
    return weights


def sign_flips(changes: Floats, direction: Floats, rng: np.random.Generator) -> Floats:
    """The p values of the shift by flipping the signs of whole propositions' changes, beside the common one.

    The common change (of agreement) is taken off before the flips and fitted again after each, and slopes are compared
    by their t, as Winkler and others have it for linear models with a nuisance term (NeuroImage 92, 2014, 381-397).
    Without that a large change of agreement, which flips as well, would hide every shift. Where all propositions point
    one way there is no common term, and the changes are flipped as they are.

    Args:
        changes: (C, n) change of each proposition's leaning, NaN where undefined.
        direction: (n,) +1 or -1.
        rng: draws the flips where not all are tried.

    Returns:
        (C,), NaN where fewer than 8 propositions have a change. The pattern that was observed is one of the possible
        ones.
    """
    n = changes.shape[1]
    if n <= ENUMERATED:
        signs: Floats = (1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)).astype(np.float64)
    else:
        signs = np.vstack([np.ones(n), rng.choice([-1.0, 1.0], (FLIPS, n))]).astype(np.float64)
    p_values = np.full(len(changes), np.nan)
    for c, row in enumerate(changes):
        kept = ~np.isnan(row)
        if kept.sum() >= FEW_UNITS:
            squares = _squared_t(signs[:, kept], row[kept], direction[kept])
            p_values[c] = (squares >= squares[0] * (1 - ROUNDING)).mean()
    return p_values


def _squared_t(signs: Floats, changes: Floats, direction: Floats) -> Floats:
    """Squares of the slopes' t, but for a common factor: (R, n) signs, the first all +1, (n,), (n,) -> (R,)."""
    sides = [side for side in (direction > 0, direction < 0) if side.any()]
    beside = changes - (changes.mean() if len(sides) == 2 else 0.0)
    weights = balanced_weights(direction) * direction
    between = sum(side.sum() * (signs[:, side] @ beside[side] / side.sum()) ** 2 for side in sides)
    within = np.maximum(beside @ beside - between, 0.0)
    squared: Floats = (signs @ (weights * beside)) ** 2 / (within + NO_SPREAD)
    return squared


def holm(p_values: Floats) -> Floats:
    """The p values adjusted so that any false claim among them has the level of one (Holm 1979).

    They may have any shape: all are one family. NaN are not tested.

    >>> holm(np.array([0.01, 0.04, np.nan, 0.03])).round(2).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    adjusted = p_values.ravel().copy()
    tested = np.flatnonzero(~np.isnan(adjusted))
    order = tested[np.argsort(adjusted[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * adjusted[order]), 1.0)
    return adjusted.reshape(p_values.shape)


def data_axis(
    halves: Floats, topics: Integers, steps: Sequence[int], *, seed: int = 0, alpha: float = ALPHA
) -> AxisShifts:
    """The shift along the axis that the answers themselves show, for suites without keys.

    The answers to each proposition are split into two halves. What a proposition's leaning has changed by in one half,
    beside the mean change of its topic (which is the net drift's), says by its sign where it points; its change in the
    other half is measured along that sign. So the direction never sees the noise of what it measures: without a change
    the shift is 0 on average, where a direction that is fitted to the same answers always finds one. Both halves take
    both parts, and the two results are averaged. Where halves are too small to tell the signs, the shift comes out too
    small, never too large. It has no position and no ends: it tells that propositions have moved apart, how far, and
    not whereto.

    The test puts the changes of the second half to other propositions of the same topic at random: had nothing moved,
    no proposition's halves would fit together better than those of two.

    Args:
        halves: (C, 2, P) leaning of each proposition in the two halves of its answers, NaN where undefined.
        topics: (P,) the number of each proposition's topic.
        steps: the step of each checkpoint.
        seed: fixes the permutations.
        alpha: level of the tests; intervals (t over propositions) have level ``1 - alpha``.
    """
    count = len(steps)
    shift, p_value = np.full((count, 1), np.nan), np.full((count, 1), np.nan)
    ci, used = np.full((count, 1, 2), np.nan), np.zeros(1, dtype=np.int64)
    for c in range(count):
        changes, own = _beside_topics(halves[c] - halves[0], topics)
        if len(own) < 2:
            continue
        used[0] = len(own)
        along = 0.5 * (np.sign(changes[0]) * changes[1] + np.sign(changes[1]) * changes[0])
        shift[c], ci[c, 0] = slope(along, np.ones(len(along)), 2.0, alpha)
        if len(own) >= FEW_UNITS:
            p_value[c] = _permuted(changes, own, np.random.default_rng([seed, c]))
    ci[0] = np.where(np.isnan(shift[0]), np.nan, 0.0)
    adjusted = np.array([holm(row) for row in p_value])
    unknown = np.full_like(shift, np.nan), np.full_like(ci, np.nan)
    step = np.asarray(steps, dtype=np.int64)
    return AxisShifts((DATA,), step, used, *unknown, shift, ci, p_value, adjusted, adjusted <= alpha)


def _beside_topics(changes: Floats, topics: Integers) -> tuple[Floats, Integers]:
    """(2, P) -> (2, n) without the mean of each topic, and (n,) topics: of propositions with both halves, not alone."""
    kept = ~np.isnan(changes).any(axis=0)
    size = np.bincount(topics[kept], minlength=int(topics.max(initial=0)) + 1)
    kept &= size[topics] > 1
    own = topics[kept]
    centred = changes[:, kept].copy()
    for row in centred:
        row -= (np.bincount(own, row, len(size)) / np.maximum(size, 1))[own]
    return centred, own


def _permuted(changes: Floats, topics: Integers, rng: np.random.Generator) -> float:
    """(2, n), (n,) -> p value of the halves' fit under permutations within topics."""
    observed = float(changes[0] @ changes[1])
    fits = np.zeros(FLIPS)
    for topic in np.unique(topics):
        own = topics == topic
        shuffled = rng.permuted(np.broadcast_to(changes[1, own], (FLIPS, int(own.sum()))), axis=1)
        fits += shuffled @ changes[0, own]
    return (1 + int((fits >= observed - ROUNDING).sum())) / (1 + FLIPS)
