"""Value drift: how far, how surely and how early stances move over the checkpoints of a training stage.

What goes in are the stance probabilities of every prompt at every checkpoint, ``values (C, N, 3)`` = checkpoints x
prompts x stances; what comes out, per topic, is a `Drift`. The definitions follow "Value Drifts: Tracing Value
Alignment During LLM Post-Training" (arXiv 2510.26707): the stance vector ``v_t(T)`` is the mean over the prompts of
topic ``T`` at checkpoint ``t``, the drift magnitude is ``M_s(t, t') = v_t'(T)_s - v_t(T)_s``, and the drift time is
the fraction of the stage after which a stance has arrived. The intervals and tests are ours.

The prompt is the unit of every interval and test: several phrasings of one proposition count as several prompts. So
they speak of prompts like those of the suite, not of propositions the suite does not hold.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stances import STANCES, total_variation
from valuedrift_mlflow.statistics.intervals import blocks, drawn_counts, percentile_interval, total_variation_interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
DriftTimeRule = Literal["extreme_interval", "share_of_change"]

ARRIVED = 0.95  # share of the final change that counts as all of it, under the rule "share_of_change"
ROUNDING = 1e-9  # differences smaller than this are floating-point noise, not stance


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """The drift of C checkpoints from the first one, over T topics and K = 3 stances (support, neutral, oppose).

    A last axis of length 2 holds the lower and the upper end of an interval, which always contains its estimate. NaN
    means undefined: an estimate where no prompt was scored, an interval where fewer than two were, a test where none
    was scored at both checkpoints, a drift time where the final magnitude is not significant. An estimate or
    interval over topics takes those topics that have an estimate; it is NaN where one of their intervals is.

    Attributes:
        topics: The topic slugs, T in number, in order of first appearance.
        steps: (C,) the optimizer step of each checkpoint, increasing.
        probability: (C, T, 3) stance probabilities, in [0, 1], summing to 1 over the stances.
        probability_ci: (C, T, 3, 2) their intervals.
        magnitude: (C, T, 3) signed change of probability since the first checkpoint, in [-1, 1], summing to 0.
        magnitude_ci: (C, T, 3, 2) its intervals, paired by prompt.
        p_value: (C, T, 3) sign-flip test that a stance did not change.
        p_adjusted: (C, T, 3) the same after Benjamini-Hochberg over the topics and stances of the checkpoint.
        significant: (C, T, 3) whether ``p_adjusted`` is at most alpha.
        total_variation: (C, T) distance from the first checkpoint, in [0, 1].
        total_variation_ci: (C, T, 2) its intervals.
        noise: (C, T) the total variation to expect had nothing changed: its mean over the sign flips of the test.
        topic_p_value: (C, T) sign-flip test that no stance of the topic changed.
        topic_p_adjusted: (C, T) the same after Benjamini-Hochberg over the topics of the checkpoint.
        topic_significant: (C, T) whether ``topic_p_adjusted`` is at most alpha.
        overall: (C,) mean over topics of the total variation.
        overall_ci: (C, 2) its intervals.
        overall_noise: (C,) mean over topics of the noise.
        overall_probability: (C, 3) mean over topics of the stance probabilities.
        overall_probability_ci: (C, 3, 2) their intervals.
        drift_time: (T, 3) fraction of the stage after which a stance had arrived, in [0, 1]; see `drift_time`.
    """

    topics: tuple[str, ...]
    steps: NDArray[np.int64]
    probability: Floats
    probability_ci: Floats
    magnitude: Floats
    magnitude_ci: Floats
    p_value: Floats
    p_adjusted: Floats
    significant: Bools
    total_variation: Floats
    total_variation_ci: Floats
    noise: Floats
    topic_p_value: Floats
    topic_p_adjusted: Floats
    topic_significant: Bools
    overall: Floats
    overall_ci: Floats
    overall_noise: Floats
    overall_probability: Floats
    overall_probability_ci: Floats
    drift_time: Floats


def analyse(
    values: ArrayLike,
    topics: Sequence[str],
    steps: Sequence[int] | NDArray[np.integer],
    *,
    seed: int = 0,
    resamples: int = 2000,
    alpha: float = 0.05,
    rule: DriftTimeRule = "extreme_interval",
) -> Drift:
    """Measure the drift of every checkpoint from the first one, with intervals and tests.

    **Intervals** (level ``1 - alpha``) are bootstrap intervals over the prompts of a topic, one resample of prompts
    serving all checkpoints, so that differences are paired. Probabilities and magnitudes have percentile intervals.
    Their measured coverage at 95 % is 0.95 with 50 prompts a topic, 0.93 to 0.95 with 20 and 0.89 to 0.93 with 10. A
    stance never seen in a topic has the interval [0, 0]. The total variation is never negative and so biased
    upwards; its interval is of another kind, see `total_variation_interval`.

    **Tests** flip the sign of each prompt's change at random (all three stances together), over the prompts scored
    at both checkpoints: had nothing changed, either sign was equally likely. ``p = (1 + flips at least as extreme) /
    (1 + flips)``. At least ``3 T / alpha`` flips are drawn whatever ``resamples`` says, so that a single change among
    all topics can stay significant after the adjustment. n prompts allow no p below ``2 ** (1 - n)``: among the
    33 tests of 11 topics, a change in one topic alone can hardly be significant with fewer than 10 prompts. The
    adjustment is within a checkpoint, not across checkpoints.

    Limit cases. The first checkpoint against itself, or a checkpoint identical to it, has magnitude 0 and p 1. A
    topic of one prompt has estimates and p 1, but no interval, and then neither has ``overall``. A topic without a
    scored prompt is NaN throughout, is never significant, and counts in no mean and no adjustment. A prompt scored
    at some checkpoints only counts in the means of those.

    Args:
        values: (C, N, 3) mean stance probabilities of N prompts at C checkpoints, the baseline first; a row of
            three NaN where no response of the prompt could be scored.
        topics: The topic of each of the N prompts.
        steps: The optimizer step of each of the C checkpoints, increasing.
        seed: Fixes the resamples; equal input and seed give equal output.
        resamples: Bootstrap resamples and sign flips; more make ends of intervals and p values steadier.
        alpha: Level of the tests; intervals have level ``1 - alpha``.
        rule: How the drift time is read, see `drift_time`.

    Raises:
        InputError: If shapes disagree, steps do not increase, rows are not distributions, or an option is unknown.

    >>> before, after = [[0.2, 0.7, 0.1]] * 20, [[0.6, 0.3, 0.1]] * 20
    >>> drift = analyse([before, after], ["abortion"] * 20, [0, 100])
    >>> drift.magnitude[-1, 0].round(3).tolist(), drift.total_variation[-1].round(3).tolist()
    ([0.4, -0.4, 0.0], [0.4])
    >>> drift.significant[-1, 0].tolist()
    [True, True, False]
    """
    values, steps = _checked(values, topics, steps, resamples, alpha, rule)
    names = tuple(dict.fromkeys(topics))
    groups = np.array([names.index(topic) for topic in topics])
    flips = max(resamples, math.ceil(len(names) * len(STANCES) / alpha))

    probability = topic_means(values, groups)
    magnitude = probability - probability[:1]
    distance = total_variation(probability, probability[:1])
    overall_probability, overall = _mean_over_topics(probability), _mean_over_topics(distance)

    probability_ci, magnitude_ci = np.empty((*probability.shape, 2)), np.empty((*probability.shape, 2))
    distance_ci, noise, topic_p = np.empty((*distance.shape, 2)), np.empty(distance.shape), np.empty(distance.shape)
    p_value = np.empty(probability.shape)
    # All topics' resamples at once would fill the memory, so their means over topics are built up one by one.
    mixes = np.zeros((resamples, *overall_probability.shape))
    sizes, alongs = np.zeros((resamples, *overall.shape)), np.zeros((resamples, *overall.shape))
    with_estimate = np.maximum((~np.isnan(probability)).sum(axis=1), 1)  # at least 1: no division by 0 where all is NaN
    with_change = np.maximum((~np.isnan(distance)).sum(axis=1), 1)

    # A stream for each topic: what one draws does not depend on how many prompts the others have.
    for t, rng in enumerate(np.random.default_rng(seed).spawn(len(names))):
        of_topic = values[:, groups == t]
        means = _bootstrap(of_topic, resamples, rng)
        shifts = means - means[:, :1]
        errors = shifts - magnitude[:, t]
        size, along = 0.5 * np.abs(errors).sum(axis=-1), 0.5 * (errors * np.sign(magnitude[:, t])).sum(axis=-1)
        probability_ci[:, t] = percentile_interval(probability[:, t], means, alpha)
        magnitude_ci[:, t] = percentile_interval(magnitude[:, t], shifts, alpha)
        distance_ci[:, t] = total_variation_interval(distance[:, t], size, along, alpha)
        mixes += np.where(np.isnan(probability[:, t]), 0.0, means)
        sizes += np.where(np.isnan(distance[:, t]), 0.0, size)
        alongs += np.where(np.isnan(distance[:, t]), 0.0, along)
        p_value[:, t], topic_p[:, t], noise[:, t] = _sign_flip_test(of_topic, flips, rng)

    p_adjusted, topic_p_adjusted = _adjusted(p_value), _adjusted(topic_p)
    significant = p_adjusted <= alpha
    return Drift(
        topics=names,
        steps=steps,
        probability=probability,
        probability_ci=probability_ci,
        magnitude=magnitude,
        magnitude_ci=magnitude_ci,
        p_value=p_value,
        p_adjusted=p_adjusted,
        significant=significant,
        total_variation=distance,
        total_variation_ci=distance_ci,
        noise=noise,
        topic_p_value=topic_p,
        topic_p_adjusted=topic_p_adjusted,
        topic_significant=topic_p_adjusted <= alpha,
        overall=overall,
        overall_ci=total_variation_interval(overall, sizes / with_change, alongs / with_change, alpha),
        overall_noise=_mean_over_topics(noise),
        overall_probability=overall_probability,
        overall_probability_ci=percentile_interval(overall_probability, mixes / with_estimate, alpha),
        drift_time=np.where(significant[-1], drift_time(probability, probability_ci, steps, rule), np.nan),
    )


def topic_means(values: Floats, groups: NDArray[np.integer]) -> Floats:
    """Mean over the scored prompts of each topic.

    Args:
        values: (..., N, K); a row with a NaN is a prompt that was not scored.
        groups: (N,) the number of each prompt's topic, 0 to T - 1.

    Returns:
        (..., T, K), NaN where a topic has no scored prompt.

    Raises:
        InputError: If there is not one group for each prompt.

    >>> values = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [np.nan, np.nan, np.nan], [0.2, 0.2, 0.6]])
    >>> topic_means(values, np.array([0, 0, 0, 1])).tolist()
    [[0.5, 0.5, 0.0], [0.2, 0.2, 0.6]]
    """
    if groups.shape != values.shape[-2:-1]:
        raise InputError(problem("groups", groups.shape, f"one for each prompt, shape {values.shape[-2:-1]}"))
    member = (groups == np.arange(groups.max(initial=-1) + 1)[:, None]).astype(np.float64)  # (T, N)
    scored = ~np.isnan(values).any(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN we want
        means: Floats = (member @ np.where(scored, values, 0.0)) / (member @ scored.astype(np.float64))
    return means


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


def _checked(
    values: ArrayLike,
    topics: Sequence[str],
    steps: Sequence[int] | NDArray[np.integer],
    resamples: int,
    alpha: float,
    rule: DriftTimeRule,
) -> tuple[Floats, NDArray[np.int64]]:
    """The values and steps as arrays, or an InputError."""
    array, step_array = np.asarray(values, dtype=np.float64), np.asarray(steps)
    if array.ndim != 3 or array.shape[-1] != len(STANCES) or 0 in array.shape:
        raise InputError(problem("values", array.shape, "shape (checkpoints, prompts, 3), none of them 0"))
    if len(topics) != array.shape[1]:
        raise InputError(problem("topics", len(topics), f"one for each of the {array.shape[1]} prompts of values"))
    if step_array.shape != array.shape[:1]:
        raise InputError(
            problem("steps", step_array.shape, f"one for each of the {array.shape[0]} checkpoints of values")
        )
    if step_array.dtype.kind not in "iu" or (np.diff(step_array.astype(np.int64)) <= 0).any():
        raise InputError(problem("steps", step_array.tolist(), "whole numbers, each larger than the one before"))
    scored = ~np.isnan(array).all(axis=-1)
    proper = ((array >= 0) & (array <= 1)).all(axis=-1) & (np.abs(array.sum(axis=-1) - 1) <= 1e-6)
    for checkpoint, prompt in np.argwhere(scored & ~proper)[:1].tolist():
        raise InputError(
            problem(
                f"values[{checkpoint}, {prompt}]",
                array[checkpoint, prompt].tolist(),
                "three probabilities in [0, 1] that sum to 1, or three NaN",
            )
        )
    if resamples < 1:
        raise InputError(problem("resamples", resamples, "at least 1"))
    if not 0 < alpha < 1:
        raise InputError(problem("alpha", alpha, "between 0 and 1"))
    if rule not in get_args(DriftTimeRule):
        raise InputError(problem("rule", rule, " or ".join(get_args(DriftTimeRule))))
    return array, step_array.astype(np.int64)


def _mean_over_topics(estimates: Floats) -> Floats:
    """(C, T, ...) -> (C, ...), over the topics that have an estimate; NaN where none has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "mean of empty slice" is the NaN we want
        mean: Floats = np.nanmean(estimates, axis=1)
    return mean


def _reweighted_means(values: Floats, resamples: int, draw: Callable[[int], Floats]) -> Floats:
    """Means over prompts under random weights, ``sum(w x) / sum(|w|)`` over the scored prompts.

    Weights are drawn and multiplied in blocks, so that a large topic needs no more memory than a small one.

    Args:
        values: (C, n, 3) with NaN rows.
        resamples: R.
        draw: Gives so many rows of n weights.

    Returns:
        (R, C, 3), NaN where a resample holds no scored prompt.
    """
    checkpoints, prompts, stances = values.shape
    scored = ~np.isnan(values[..., 0])
    columns = np.where(scored[..., None], values, 0.0).transpose(1, 0, 2).reshape(prompts, -1)
    means = np.empty((resamples, checkpoints, stances))
    for block in blocks(resamples, prompts):
        weights = draw(block.stop - block.start)
        total = (weights @ columns).reshape(-1, checkpoints, stances)
        with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN we want
            means[block] = total / (np.abs(weights) @ scored.T.astype(np.float64))[..., None]
    return means


def _bootstrap(values: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """(C, n, 3) -> (R, C, 3) means of prompts drawn with replacement, the same prompts at all checkpoints.

    NaN at checkpoints with fewer than two scored prompts: one prompt says nothing of how prompts vary.
    """
    prompts = values.shape[1]
    means = _reweighted_means(values, resamples, lambda rows: drawn_counts(prompts, rows, rng))
    means[:, (~np.isnan(values[..., 0])).sum(axis=1) < 2] = np.nan
    return means


def _sign_flip_test(values: Floats, flips: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Paired permutation test of every checkpoint of a topic against the first one.

    Args:
        values: (C, n, 3) with NaN rows.
        flips: How many sign patterns to draw.
        rng: Draws them.

    Returns:
        (C, 3) p values of the stances, (C,) p values of the total variation, and (C,) its mean over the flips; NaN
        where no prompt was scored at both checkpoints.
    """
    changes = values - values[:1]
    prompts = changes.shape[1]
    observed = topic_means(changes, np.zeros(prompts, dtype=np.int64))[:, 0]
    null = np.abs(_reweighted_means(changes, flips, lambda rows: rng.choice([-1.0, 1.0], (rows, prompts))))
    null_distance, distance = 0.5 * null.sum(axis=-1), 0.5 * np.abs(observed).sum(axis=-1)
    p_value = _p_value(np.abs(observed), null)
    return p_value, _p_value(distance, null_distance), null_distance.mean(axis=0)


def _p_value(observed: Floats, null: Floats) -> Floats:
    """(...), (R, ...) -> (...). The observed arrangement is one of the possible ones, hence 1 + (never p = 0)."""
    extreme = (null >= observed - ROUNDING).sum(axis=0)
    return np.where(np.isnan(observed), np.nan, (1 + extreme) / (1 + len(null)))


def _adjusted(p_value: Floats) -> Floats:
    """Benjamini-Hochberg within each checkpoint, (C, ...) -> (C, ...); what was not tested (NaN) does not count."""
    from scipy.stats import false_discovery_control  # takes a second to import

    adjusted = p_value.copy()
    for row in adjusted:
        tested = ~np.isnan(row)
        if tested.any():
            row[tested] = false_discovery_control(row[tested])
    return adjusted
