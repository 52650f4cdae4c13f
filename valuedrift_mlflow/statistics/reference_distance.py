"""How far a model's stances are from a reference (people's, another model's), and whether they came nearer.

The distance of a topic is the total variation between its mean stances and the reference's, over the prompts that the
reference speaks of. Its interval inverts a test, as that of a drift does (`distance.mean_interval`), because noise in
any direction adds to a distance. Where it is known how many people or answers stand behind the reference, their
sampling error is in it; otherwise the reference is taken as exact.

The change of a distance is the difference of two that share a reference. Its standard error leaves out one proposition
after the other; what noise is estimated to add to either distance is allowed for on its side of the interval. Where
propositions do not differ at all, what is believed of such stands in for it (`units.change_error`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.distance import allowance, error_draws, least_favourable, mean_interval
from valuedrift_mlflow.statistics.intervals import ALPHA, NO_SPREAD
from valuedrift_mlflow.statistics.units import Error, Interval, change_error, level_error, members, prompt_means

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A reference for N prompts.

    Attributes:
        stances: (R, 3) distributions, each of a topic, a proposition or a prompt.
        counts: (R,) people or answers behind each; infinite where the distribution is taken as exact.
        row: (N,) which of them a prompt is held against; -1 where none speaks of it.
    """

    stances: Floats
    counts: Floats
    row: Integers


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceDistance:
    """Distances from a reference at C checkpoints for T topics, with 95 % intervals; NaN where nothing was scored.

    Attributes:
        topics: (T,) places of the topics that the reference speaks of.
        distance: (C, T) total variation, in [0, 1].
        interval: (C, T, 2).
        overall: (C,) mean over the topics.
        overall_interval: (C, 2).
        change: (C,) of the overall distance since the first checkpoint, in [-1, 1]; below 0 it came nearer.
        change_interval: (C, 2) over propositions.
    """

    topics: Integers
    distance: Floats
    interval: Floats
    overall: Floats
    overall_interval: Floats
    change: Floats
    change_interval: Floats


def reference_distance(
    answers: Floats, topics: Integers, units: Integers, target: Target, interval: Interval, *, seed: int = 0
) -> ReferenceDistance:
    """The distance of every checkpoint from a reference.

    Args:
        answers: (C, N, S, 3) stances of each response; NaN where there is none.
        topics: (N,) the number of each prompt's topic.
        units: (N,) the number of each prompt's proposition.
        target: the reference.
        interval: what the intervals of distances speak of; those of changes speak of propositions.
        seed: fixes the draws behind the intervals.
    """
    rng = np.random.default_rng(seed)
    held = target.row >= 0
    places = np.unique(topics[held])
    parts = [_Part.of(answers, units, target, (topics == topic) & held, interval) for topic in places.tolist()]
    off = np.stack([part.off for part in parts], axis=1)  # (C, T, 3)
    errors = [part.error for part in parts]
    draws = np.stack([error_draws(error, rng).t for error in errors], axis=2)  # (R, C, T, 3)
    ends = [_ends(off[:, t : t + 1], draws[:, :, t : t + 1], errors[t : t + 1]) for t in range(len(parts))]
    distance = _half(off)
    change, change_interval = _change(parts, off, draws)
    return ReferenceDistance(
        topics=places,
        distance=distance,
        interval=np.stack(ends, axis=1),
        overall=distance.mean(axis=1),
        overall_interval=_ends(off, draws, errors),
        change=change,
        change_interval=change_interval,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One topic.

    (C, 3) stances minus reference, their error, (C, G) the distance without each proposition, (C,) the least variance
    that is believed of its change, and the (3, 3) covariance of the reference's own error.
    """

    off: Floats
    error: Error
    without: Floats
    least: Floats
    of_target: Floats

    @classmethod
    def of(cls, answers: Floats, units: Integers, target: Target, own: NDArray[np.bool_], interval: Interval) -> _Part:
        row = target.row[own]
        wanted = target.stances[row]  # (n, 3)
        share = np.bincount(row, minlength=len(target.stances)) / len(row)
        each = np.einsum("rs,st->rst", target.stances, np.eye(3)) - np.einsum("rs,rt->rst", *(target.stances,) * 2)
        of_target = np.einsum("r,rst->st", share**2 / target.counts, each)
        means = prompt_means(answers[:, own]) - wanted
        scored = ~np.isnan(means[..., 0])
        member = members(units[own])  # (n, G)
        filled = np.where(scored[..., None], means, 0.0)
        total, count = filled.sum(axis=1), scored.sum(axis=1)
        by_unit, of_unit = np.einsum("cns,ng->cgs", filled, member), scored @ member
        with np.errstate(invalid="ignore", divide="ignore"):
            off = total / count[:, None]
            without = (total[:, None] - by_unit) / (count[:, None] - of_unit)[..., None]
        # A constant taken off changes no spread; where prompts have references of their own, each has its own.
        level = level_error(answers[:, own] - (wanted - wanted.mean(axis=0))[:, None], units[own], interval)
        error = Error(level.covariance + of_target, level.freedom, level.units)
        change = change_error(answers[:, own], units[own], "propositions")
        return cls(off, error, _half(without), change.deviation.max(axis=-1) ** 2, of_target)


def _half(off: Floats) -> Floats:
    """(..., 3) -> (...): the total variation."""
    half: Floats = 0.5 * np.abs(off).sum(axis=-1)
    return half


def _ends(off: Floats, draws: Floats, errors: Sequence[Error]) -> Floats:
    """(C, T, 3), (R, C, T, 3) -> (C, 2): the interval of the mean over topics of the distance."""
    hardest = least_favourable(off, errors, ALPHA)
    return mean_interval(hardest, draws, allowance(off, errors, ALPHA), ALPHA)


def _change(parts: Sequence[_Part], off: Floats, draws: Floats) -> tuple[Floats, Floats]:
    """(C,), (C, 2): the change of the mean distance from the first checkpoint, with its interval."""
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    overall = _half(off).mean(axis=1)
    variances, freedom = np.empty(off.shape[:2]), np.empty(len(parts))
    for t, part in enumerate(parts):
        units = part.without.shape[1]
        moved = part.without - part.without[:1]
        spread = ((moved - moved.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) * (units - 1) / units
        spread = np.where(spread < NO_SPREAD**2, part.least, spread)
        # The reference's error moves both distances, and their difference where their signs differ.
        slope = 0.5 * (np.sign(off[:1, t]) - np.sign(off[:, t]))
        variances[:, t] = spread + np.einsum("cs,st,ct->c", slope, part.of_target, slope)
        freedom[t] = units - 1
    total = variances.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        joint = np.where(total > 0, total**2 / (variances**2 / freedom).sum(axis=1), 1.0)
    half = stdtrit(joint, 1 - ALPHA / 2) * np.sqrt(total) / len(parts)
    added = np.maximum((_half(off + draws).mean(axis=0) - _half(off)).mean(axis=1), 0.0)  # (C,) by noise
    change = overall - overall[0]
    ends = np.stack([change - half - added, change + half + added[0]], axis=-1)
    ends[0] = np.where(np.isnan(ends[0]), np.nan, 0.0)
    return change, np.clip(ends, -1.0, 1.0)
