"""When a stance arrives in the course of a stage, and how far it goes beyond where it ends.

Three rules for the time. The paper's as its readers report it, and the share of the change, are read off single
checkpoints (`drift_time`): noise decides which one is first. `arrivals` fits a curve that only goes on in the
direction of the change (isotonic regression; Barlow et al. 1972) and reads the time to 50 % and to 90 % of the change
off it, with intervals of a bootstrap over propositions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.family import Joined, adjusted
from valuedrift_mlflow.statistics.flips import Flipped, flipped
from valuedrift_mlflow.statistics.intervals import drawn_counts, quantile
from valuedrift_mlflow.statistics.units import (
    FEW_UNITS,
    Error,
    Interval,
    change_error,
    level_error,
    members,
    prompt_means,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]
DriftTimeRule = Literal["extreme_interval", "share_of_change"]

ARRIVED = 0.95  # share of the final change that counts as all of it, under the rule "share_of_change"
SHARES = (0.5, 0.9)  # of the change, whose times are read off the isotonic fit
DRAWS = 1000  # bootstrap resamples of a topic's curves
SPLITS = 200  # of a topic's units into halves, for the overshoot
ROUNDING = 1e-9  # differences smaller than this are floating-point noise, not stance


def drift_time(
    probability: Floats, interval: Floats, steps: NDArray[np.integer], rule: DriftTimeRule = "extreme_interval"
) -> Floats:
    """The fraction of a stage after which a stance probability has arrived, in [0, 1].

    It is ``(step of arrival - first step) / (last step - first step)``. Arrival is, by rule:

    - ``extreme_interval``: the first checkpoint whose probability lies inside the interval of the extreme one: of
      the highest if the probability rose over the stage, of the lowest if it fell. (The paper's rule, as its
      readers report it; how the paper computes the interval is not known.) It is 0 where the probability begins
      inside that interval, and early where the interval is wide next to the change.
    - ``share_of_change``: the first checkpoint with at least 95 % of the change that the last one has. It needs no
      interval, but follows the noise of the last checkpoint.

    Args:
        probability: (C, ...) over the checkpoints.
        interval: (C, ..., 2) their intervals.
        steps: (C,) increasing.
        rule: One of the two above.

    Returns:
        (...), NaN where the last probability equals the first, or either is NaN.

    >>> probability = np.array([0.2, 0.5, 0.78, 0.8])
    >>> interval = probability[:, None] + np.array([-0.1, 0.1])
    >>> float(drift_time(probability, interval, np.array([0, 10, 20, 40])))
    0.5
    """
    change = probability - probability[0]
    direction = np.where(np.abs(change[-1]) > ROUNDING, np.sign(change[-1]), np.nan)
    if rule == "share_of_change":
        arrived = change * direction >= ARRIVED * np.abs(change[-1]) - ROUNDING
    else:
        candidates = np.where(np.isnan(interval[..., 0] * direction), -np.inf, probability * direction)
        extreme = np.argmax(candidates, axis=0)[None, ..., None]
        low, high = np.moveaxis(np.take_along_axis(interval, extreme, axis=0)[0], -1, 0)
        arrived = (probability >= low - ROUNDING) & (probability <= high + ROUNDING)
    defined = arrived.any(axis=0) & ~np.isnan(direction)
    elapsed = steps[np.argmax(arrived, axis=0)] - steps[0]
    return np.where(defined, elapsed / max(int(steps[-1] - steps[0]), 1), np.nan)


def isotonic(curves: Floats) -> Floats:
    """(R, C) -> (R, C) the least-squares fit to each curve among those that never fall.

    By the min-max formula ``fit[k] = max over i <= k of min over j >= k of mean(curve[i..j])`` (Barlow et al. 1972),
    for all curves at once: `scipy.optimize.isotonic_regression`, which agrees, takes one curve a call.

    >>> isotonic(np.array([[0.0, 3.0, 1.0, 4.0]])).tolist()
    [[0.0, 2.0, 2.0, 4.0]]
    """
    sums = np.concatenate([np.zeros((len(curves), 1)), curves.cumsum(axis=1)], axis=1)
    number = curves.shape[1]
    fit = np.full(curves.shape, -np.inf)
    for start in range(number):
        means = (sums[:, start + 1 :] - sums[:, start : start + 1]) / np.arange(1, number - start + 1)
        least = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        np.maximum(fit[:, start:], least, out=fit[:, start:])
    return fit


def arrival_times(curves: Floats, elapsed: Floats, share: float) -> Floats:
    """The time at which the isotonic fit of each curve has this share of the change that the last checkpoint has.

    The change is that of the curve itself: the end of an isotonic fit is the largest mean of any last stretch, which
    noise alone makes larger. The fit is joined by straight lines between checkpoints.

    Args:
        curves: (R, C) turned so that the change is upwards.
        elapsed: (C,) rising from 0 to 1.
        share: of the change, in (0, 1).

    Returns:
        (R,) in [0, 1]; NaN where a curve ends no higher than it begins.

    >>> arrival_times(np.array([[0.0, 0.4, 0.3, 0.7, 1.0]]), np.array([0, 0.1, 0.2, 0.6, 1.0]), 0.5).round(3).tolist()
    [0.371]
    """
    return _times(isotonic(curves), curves, elapsed, share)


def _times(fit: Floats, curves: Floats, elapsed: Floats, share: float) -> Floats:
    change = curves[:, -1] - curves[:, 0]
    level = curves[:, 0] + share * change
    reached = fit >= level[:, None] - ROUNDING
    after = np.where(reached.any(axis=1), np.argmax(reached, axis=1), curves.shape[1] - 1)
    before, row = np.maximum(after - 1, 0), np.arange(len(curves))
    rise = fit[row, after] - fit[row, before]
    part = np.clip((level - fit[row, before]) / np.where(rise > ROUNDING, rise, 1.0), 0.0, 1.0)
    part = np.where(rise > ROUNDING, part, 1.0)
    times: Floats = elapsed[before] + part * (elapsed[after] - elapsed[before])
    return np.where(change > ROUNDING, times, np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """How the stances of one topic came to where they ended. NaN where a stance did not move, or cannot be told.

    Attributes:
        arrival: (3, 2) the fraction of the stage after which 50 % and 90 % of the change had come, in [0, 1].
        arrival_ci: (3, 2, 2) their intervals.
        overshoot: (3,) how far a stance went beyond its final value on the way there, noise taken off; in [0, 1].
        overshoot_ci: (3, 2) its interval.
        excess: sign flips of the changes from the last checkpoint; None where no stance moved.
    """

    arrival: Floats
    arrival_ci: Floats
    overshoot: Floats
    overshoot_ci: Floats
    excess: Flipped | None


def unmoved() -> Course:
    """Of a topic in which nothing moved."""
    pair = (3, len(SHARES))
    return Course(
        arrival=np.full(pair, np.nan),
        arrival_ci=np.full((*pair, 2), np.nan),
        overshoot=np.full(3, np.nan),
        overshoot_ci=np.full((3, 2), np.nan),
        excess=None,
    )


def course(
    answers: Floats,
    units: Integers,
    interval: Interval,
    direction: Floats,
    elapsed: Floats,
    flips: int,
    rng: np.random.Generator,
    alpha: float,
) -> Course:
    """How the stances of a topic came to where they ended.

    **Times** are those of `arrival_times`. Their intervals are percentiles over 1,000 resamples of whole propositions,
    as far out as a t interval of as many units is wider than a normal one of their plain variance (Hesterberg 2015,
    section 4.1.3). For ``prompts``, over draws of the sampling error at each checkpoint.

    **Overshoot** is the largest excess over the final value. The largest of many is noise for the most part, so its
    place is looked for in one half of the units and its size is read in the other, over 200 halvings: where there is
    none that is 0 on average, where there is one it is nearly all of it. The interval's lower end is the largest that
    all checkpoints' lower ends have to show (at the max-T value of the sign flips), its upper end the largest of their
    upper ends (which hold the one that matters).

    Args:
        answers: (C, n, S, 3) of the topic.
        units: (n,) the proposition of each prompt.
        interval: what varies.
        direction: (3,) where each stance went, 1 or -1; NaN where it did not move.
        elapsed: (C,) rising from 0 to 1.
        flips: how many to draw.
        rng: draws them.
        alpha: intervals have level ``1 - alpha``.
    """
    means = prompt_means(answers)
    scored = (~np.isnan(means[..., 0])).sum(axis=1) > 0
    moved = np.flatnonzero(~np.isnan(direction)).tolist()
    if not moved or scored.sum() < 3 or not (scored[0] and scored[-1]):
        return unmoved()
    found = unmoved()
    curves, freedom = _curves(answers[scored], units, interval, rng)
    member = members(units if interval == "propositions" else np.arange(len(units)))
    changes = means - means[-1:]
    excess = flipped(changes, member, flips, rng)
    error = change_error(answers[::-1], units, interval)  # from the last checkpoint, which comes first
    error = Error(error.covariance[::-1], error.freedom[::-1], error.units[::-1])
    size = _halved_excess(means, member, direction, rng)
    mean = topic_mean(means)
    for s in moved:
        found.arrival[s], found.arrival_ci[s] = _arrival(curves[..., s] * direction[s], elapsed[scored], freedom, alpha)
        over = (mean - mean[-1])[:, s] * direction[s]
        found.overshoot[s], found.overshoot_ci[s] = _overshoot(over, s, size[s], error, excess, alpha)
    # What the first checkpoint lies away from the last one is the change itself.
    figure = np.where(np.isnan(direction), np.nan, excess.figure)
    figure[[0, -1]] = np.nan
    return replace(found, excess=replace(excess, figure=figure))


def topic_mean(means: Floats) -> Floats:
    """(C, n, 3) -> (C, 3) over the scored prompts; NaN where none was."""
    scored = ~np.isnan(means[..., :1])
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN we want
        mean: Floats = np.where(scored, means, 0.0).sum(axis=1) / scored.sum(axis=1)
    return mean


def _unit_sums(means: Floats, member: Floats) -> tuple[Floats, Floats]:
    """(C, n, 3), (n, G) -> (G, C, 3) sums over each unit's scored prompts, and (G, C) how many there were."""
    known = ~np.isnan(means[..., 0])
    sums: Floats = np.einsum("cns,ng->gcs", np.where(known[..., None], means, 0.0), member)
    return sums, (known.astype(np.float64) @ member).T


def _weighted(weights: Floats, sums: Floats, counts: Floats) -> Floats:
    """(R, G), (G, C, 3), (G, C) -> (R, C, 3) the means of units so weighted; NaN where none of them was scored."""
    with np.errstate(invalid="ignore", divide="ignore"):
        total = (weights @ sums.reshape(len(sums), -1)).reshape(len(weights), *sums.shape[1:])
        means: Floats = total / (weights @ counts)[..., None]
    return means


def _curves(answers: Floats, units: Integers, interval: Interval, rng: np.random.Generator) -> tuple[Floats, float]:
    """(1 + R, C, 3) the topic's means, as observed and resampled, and the degrees of freedom of their spread."""
    means = prompt_means(answers)
    observed = topic_mean(means)[None]
    if interval == "prompts":
        error = level_error(answers, units, "prompts")  # responses at different checkpoints are drawn independently
        drawn = observed + error.deviation * rng.standard_normal((DRAWS, *observed.shape[1:]))
        return np.concatenate([observed, drawn]), float(error.freedom.min())
    sums, counts = _unit_sums(means, members(units))
    drawn = _weighted(drawn_counts(len(sums), DRAWS, rng), sums, counts)
    return np.concatenate([observed, drawn]), float(change_error(answers, units, interval).freedom[-1])


def _arrival(curves: Floats, elapsed: Floats, freedom: float, alpha: float) -> tuple[Floats, Floats]:
    """(1 + R, C) of one stance -> (2,) times by `SHARES`, (2, 2) their intervals; NaN where there is no spread."""
    from scipy.special import ndtr, stdtrit  # scipy.stats takes a second to import

    times, ends = np.full(len(SHARES), np.nan), np.full((len(SHARES), 2), np.nan)
    if not np.isfinite(freedom):
        return times, ends
    tail = float(ndtr(-stdtrit(freedom, 1 - alpha / 2) * np.sqrt((freedom + 1) / freedom)))
    whole = curves[~np.isnan(curves).any(axis=1)]
    fit = isotonic(whole)
    for place, share in enumerate(SHARES):
        drawn = _times(fit, whole, elapsed, share)
        low, high = quantile(drawn[1:], [tail, 1 - tail])
        if high - low < ROUNDING:  # all units came alike: when they did is known to the checkpoints around it
            after = int(np.searchsorted(elapsed, drawn[0] - ROUNDING))
            low, high = elapsed[max(after - 1, 0)], elapsed[after]
        times[place], ends[place] = drawn[0], (min(low, drawn[0]), max(high, drawn[0]))
    return times, ends


def _halved_excess(means: Floats, member: Floats, direction: Floats, rng: np.random.Generator) -> Floats:
    """(3,) the excess over the final value at the peak of one half of the units, read in the other half."""
    sums, counts = _unit_sums(means, member)
    if len(sums) < FEW_UNITS:
        return np.full(3, np.nan)
    half = np.argsort(rng.random((SPLITS, len(sums))), axis=1) < len(sums) // 2
    halves = np.concatenate([half, ~half]).astype(np.float64)
    curves = _weighted(halves, sums, counts) * np.nan_to_num(direction)
    over = np.nan_to_num(curves - curves[:, -1:], nan=-np.inf)
    peak = np.roll(np.argmax(over, axis=1), SPLITS, axis=0)  # of the other half
    read = np.take_along_axis(over, peak[:, None], axis=1)[:, 0]
    size: Floats = np.clip(np.where(np.isfinite(read), read, 0.0).mean(axis=0), 0.0, 1.0)
    return size


def _overshoot(
    over: Floats, s: int, size: float, error: Error, excess: Flipped, alpha: float
) -> tuple[float, tuple[float, float]]:
    """The overshoot of stance s and its interval; ``over (C,)`` is its excess over the final value."""
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    units = excess.units.astype(np.float64)
    inner = np.flatnonzero((units >= FEW_UNITS) & ~np.isnan(over))
    inner = inner[(inner > 0) & (inner < len(over) - 1)]
    if np.isnan(size) or not len(inner):
        return np.nan, (np.nan, np.nan)
    units, deviation = units[inner], error.deviation[inner, s]
    table = excess.table.reshape(len(excess.table), -1, 3)[:, inner, s]
    critical = float(np.quantile(table.max(axis=1), 1 - alpha, method="higher"))
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(units > critical**2, critical * np.sqrt(units - 1) / np.sqrt(units - critical**2), np.inf)
    low = np.nan_to_num(over[inner] - t * deviation, nan=-np.inf).max()
    high = (over[inner] + stdtrit(error.freedom[inner], 1 - alpha / 2) * deviation).max()
    return size, (min(max(low, 0.0), size), float(np.clip(max(high, size), 0.0, 1.0)))


@dataclass(frozen=True, slots=True, eq=False)
class Courses:
    """The courses of T topics, stacked: (T, 3, 2), (T, 3, 2, 2), (T, 3), (T, 3, 2) and (T, 3); see `Course`.

    ``overshoot_p`` is that of sign flips, in one family of all stances that moved and all checkpoints between the first
    and the last. NaN where the largest excess is none.
    """

    arrival: Floats
    arrival_ci: Floats
    overshoot: Floats
    overshoot_ci: Floats
    overshoot_p: Floats


def courses(
    topics: Sequence[tuple[Floats, Integers]],
    interval: Interval,
    significant: Bools,
    magnitude: Floats,
    steps: Integers,
    flips: int,
    rng: np.random.Generator,
    alpha: float,
) -> Courses:
    """How the stances of a stage came to where they ended.

    A stance counts where it is significant at the last checkpoint, or was at any: then its direction is that of its
    largest significant change, and it has an overshoot but no time of arrival.

    Args:
        topics: T answers ``(C, n, S, 3)`` with the proposition of each prompt ``(n,)``.
        interval: what varies.
        significant: (C, T, 3) stars.
        magnitude: (C, T, 3) changes.
        steps: (C,) rising.
        flips: how many to draw.
        rng: draws.
        alpha: intervals have level ``1 - alpha``.
    """
    at_end = significant[-1]
    largest = np.argmax(np.where(significant, np.abs(magnitude), -1.0), axis=0)[None]
    direction = np.sign(np.where(at_end, magnitude[-1], np.take_along_axis(magnitude, largest, axis=0)[0]))
    direction[~significant.any(axis=0)] = np.nan
    elapsed = (steps - steps[0]) / max(int(steps[-1] - steps[0]), 1)
    *streams, family = rng.spawn(len(topics) + 1)
    found = [
        course(answers, units, interval, direction[t], elapsed, flips, streams[t], alpha)
        for t, (answers, units) in enumerate(topics)
    ]
    excesses = [one.excess for one in found if one.excess is not None]
    p_value = np.full(at_end.shape, np.nan)
    if excesses:
        moved = [t for t, one in enumerate(found) if one.excess is not None]
        tests = Joined(kept=0)
        tests.join(excesses, flips, family)
        adjusted_p = adjusted(tests, alpha).p_value
        over = np.stack([topic_mean(prompt_means(topics[t][0])) for t in moved], axis=1)
        upwards = (over - over[-1:]) * direction[moved] > 0
        least = np.where(upwards & ~np.isnan(adjusted_p), adjusted_p, np.inf).min(axis=0)
        p_value[moved] = np.where(np.isinf(least), np.nan, least)
    return Courses(
        arrival=np.where(at_end[..., None], np.stack([one.arrival for one in found]), np.nan),
        arrival_ci=np.where(at_end[..., None, None], np.stack([one.arrival_ci for one in found]), np.nan),
        overshoot=np.stack([one.overshoot for one in found]),
        overshoot_ci=np.stack([one.overshoot_ci for one in found]),
        overshoot_p=p_value,
    )
