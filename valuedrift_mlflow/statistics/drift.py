"""Value drift: how far, how surely and how early stances move over the checkpoints of a training stage.

What goes in are the stance probabilities of every answer at every checkpoint, ``values (C, N, S, 3)`` = checkpoints x
prompts x samples x stances; what comes out, per topic, is a `Drift`. The definitions follow "Value Drifts: Tracing
Value Alignment During LLM Post-Training" (arXiv 2510.26707): the stance vector ``v_t(T)`` is the mean over the prompts
of topic ``T`` at checkpoint ``t``, the drift magnitude is ``M_s(t, t') = v_t'(T)_s - v_t(T)_s``, and the drift time is
the fraction of the stage after which a stance has arrived. The intervals, tests and verdicts are ours:

- `units`: the error of a mean, for the estimand that ``interval`` names (``propositions`` or ``prompts``);
- `flips`: sign flips of whole units;
- `family`: all of a stage as one family of tests;
- `distance`: the interval of a total variation, its noise, the drift of single propositions;
- `verdicts`: moved, not moved, or cannot tell, and what would have been found;
- `unscored`: which stars what could not be read might undo;
- `selection`: what is left of a starred change, as starred ones overstate it;
- `arrival`: when stances arrived, and how far they went beyond where they ended.

``docs/validity.md`` shows by simulation how far they keep what they promise.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stances import STANCES, total_variation
from valuedrift_mlflow.statistics.arrival import DriftTimeRule as DriftTimeRule
from valuedrift_mlflow.statistics.arrival import courses, drift_time
from valuedrift_mlflow.statistics.checked import checked
from valuedrift_mlflow.statistics.distance import (
    ErrorDraws,
    Within,
    allowance,
    error_draws,
    joint_draws,
    least_added,
    least_favourable,
    mean_interval,
    noise,
    rooted,
    seed_from,
    within,
)
from valuedrift_mlflow.statistics.family import Joined, adjusted
from valuedrift_mlflow.statistics.flips import Flipped, flipped
from valuedrift_mlflow.statistics.stars import Candidate, stars
from valuedrift_mlflow.statistics.units import (
    Error,
    Interval,
    change_error,
    level_error,
    members,
    prompt_means,
    prompts_error,
    share_interval,
)
from valuedrift_mlflow.statistics.unscored import Hidden, changed, hidden
from valuedrift_mlflow.statistics.verdicts import MARGIN, helped, minimum_detectable, verdicts

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
EXCHANGES = 1000  # of answers, for the drift of single propositions


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """The drift of C checkpoints from the first one, over T topics and K = 3 stances (support, neutral, oppose).

    A last axis of length 2 holds the lower and the upper end of an interval, which always contains its estimate. NaN
    means undefined: an estimate where no prompt was scored, an interval where fewer than two units were (propositions,
    or prompts), an adjusted p where fewer than 8 were, a drift time where the final magnitude is not significant. An
    estimate or interval over topics takes those topics that have an estimate; it is NaN where one of their intervals
    is.

    Attributes:
        interval: What intervals and tests speak of: ``propositions`` like these, or these ``prompts``.
        margin: The drift that is too small to matter, by which the verdicts go.
        topics: The topic slugs, T in number, in order of first appearance.
        steps: (C,) the optimizer step of each checkpoint, increasing.
        probability: (C, T, 3) stance probabilities, in [0, 1], summing to 1 over the stances.
        probability_ci: (C, T, 3, 2) their intervals.
        magnitude: (C, T, 3) signed change of probability since the first checkpoint, in [-1, 1], summing to 0.
        magnitude_ci: (C, T, 3, 2) its intervals, paired by prompt.
        p_value: (C, T, 3) sign-flip test that a stance did not change, of this stance alone.
        p_adjusted: (C, T, 3) the same in the family of all checkpoints, topics and stances (max-T).
        significant: (C, T, 3) whether ``p_adjusted`` is at most alpha and the star is not withheld.
        withheld: (C, T, 3) whether it is at most alpha, but the share of unscored answers has changed and they alone
            could undo it; see `unscored`.
        unscored: T, what the unscored answers of each topic may hide.
        unscored_changed: (C, T) whether their share has changed, in the topic or in the stage.
        selected: (C, T, 3) the magnitude, given that it has a star: median-unbiased; NaN without one. See `selection`.
        selected_ci: (C, T, 3, 2) its interval, given the star.
        total_variation: (C, T) distance from the first checkpoint, in [0, 1].
        total_variation_ci: (C, T, 2) its intervals.
        noise: (C, T) the total variation to expect of sampling alone.
        topic_p_value: (C, T) sign-flip test that no stance of the topic changed, of this topic alone.
        topic_p_adjusted: (C, T) the least ``p_adjusted`` of the topic's stances: both are of one family.
        topic_significant: (C, T) whether one of the topic's stances is significant: the star of figures and tables.
        topic_selected: (C, T) the total variation, given the star, by the stance that changed most; NaN without.
        topic_selected_ci: (C, T, 2) its interval, given the star.
        verdict: (C, T) ``moved``, ``not moved`` or ``cannot tell``; see `verdicts`.
        minimum_detectable: (C, T) the least drift that would get a star in 80 % of such stages; NaN where none would.
        helped: (C, T, 3) the same with twice as many propositions, prompts of each, or samples of each.
        within: (C, T) mean drift of a proposition, unbiased before the root, in [0, 1].
        within_p_value: (C, T) exchange test that no prompt's answers changed, of this topic alone.
        overall: (C,) mean over topics of the total variation.
        overall_ci: (C, 2) its intervals.
        overall_noise: (C,) mean over topics of the noise.
        overall_within: (C,) root of the mean over topics of the squared drift of a proposition.
        overall_probability: (C, 3) mean over topics of the stance probabilities.
        overall_probability_ci: (C, 3, 2) their intervals.
        drift_time: (T, 3) fraction of the stage after which a stance had arrived, in [0, 1]; see `drift_time`.
        arrival: (T, 3, 2) fraction of the stage after which 50 % and 90 % of the change had come; see `arrival`.
        arrival_ci: (T, 3, 2, 2) their intervals.
        overshoot: (T, 3) how far a stance that moved went beyond its final value on the way, noise taken off.
        overshoot_ci: (T, 3, 2) its interval.
        overshoot_p: (T, 3) sign-flip test that it did not, in the family of all stances that moved.
    """

    interval: Interval
    margin: float
    topics: tuple[str, ...]
    steps: NDArray[np.int64]
    probability: Floats
    probability_ci: Floats
    magnitude: Floats
    magnitude_ci: Floats
    p_value: Floats
    p_adjusted: Floats
    significant: Bools
    withheld: Bools
    unscored: tuple[Hidden, ...]
    unscored_changed: Bools
    selected: Floats
    selected_ci: Floats
    total_variation: Floats
    total_variation_ci: Floats
    noise: Floats
    topic_p_value: Floats
    topic_p_adjusted: Floats
    topic_significant: Bools
    topic_selected: Floats
    topic_selected_ci: Floats
    verdict: NDArray[np.str_]
    minimum_detectable: Floats
    helped: Floats
    within: Floats
    within_p_value: Floats
    overall: Floats
    overall_ci: Floats
    overall_noise: Floats
    overall_within: Floats
    overall_probability: Floats
    overall_probability_ci: Floats
    drift_time: Floats
    arrival: Floats
    arrival_ci: Floats
    overshoot: Floats
    overshoot_ci: Floats
    overshoot_p: Floats


def analyse(
    values: ArrayLike,
    topics: Sequence[str],
    steps: Sequence[int] | NDArray[np.integer],
    *,
    propositions: Sequence[str] | None = None,
    interval: Interval = "propositions",
    margin: float = MARGIN,
    seed: int = 0,
    resamples: int = 2000,
    alpha: float = 0.05,
    rule: DriftTimeRule = "extreme_interval",
    asked: ArrayLike | None = None,
    with_course: bool = True,
    earlier: Joined | None = None,
) -> Drift:
    """Measure the drift of every checkpoint from the first one, with intervals and tests.

    **Intervals** (level ``1 - alpha``) are t intervals of the estimand that ``interval`` names, see `units`; those of
    stances are made on the scale of log-odds. That of the total variation, which is never negative and so biased
    upwards, inverts a test: `distance.mean_interval`.

    **Tests** flip the sign of each proposition's changes (with ``interval="prompts"`` of each prompt's), see `flips`.
    Fewer than 8 units are not tested: their verdict is "cannot tell" unless an interval shows it. The exchange test of
    single propositions is `distance.within`.

    Limit cases. The first checkpoint against itself, or a checkpoint identical to it, has magnitude 0 and p 1. A
    topic of one unit has estimates and p 1, but no interval, and then neither has ``overall``. A topic without a
    scored prompt is NaN throughout, is never significant, and counts in no mean and no family. A prompt scored
    at some checkpoints only counts in the means of those.

    Args:
        values: (C, N, S, 3) stance probabilities of S answers to N prompts at C checkpoints, the baseline first; three
            NaN for an answer that was not given or could not be scored. (C, N, 3) is one answer a prompt.
        topics: The topic of each of the N prompts.
        steps: The optimizer step of each of the C checkpoints, increasing.
        propositions: The proposition of each of the N prompts; each prompt is one of its own where they are not given.
        interval: What varies: propositions, or the responses to these prompts.
        margin: The drift that is too small to matter.
        seed: Fixes flips and draws; equal input and seed give equal output.
        resamples: Flips; more make p values steadier.
        alpha: Level of the tests; intervals have level ``1 - alpha``.
        rule: How the drift time is read, see `drift_time`.
        asked: (C, N, S) which answers were given, so that what was not asked is not taken for unscored. Without it,
            all that are NaN are unscored, but for samples of which a checkpoint has none.
        with_course: Also tell when stances arrived and how far they overshot, which takes resamples of its own.
        earlier: Of a stage that grows: what it was tested at before, in the same order and with the same options. The
            checkpoints given here, beside the first, are tested in one family with those, and join them.

    Raises:
        InputError: If shapes disagree, steps do not increase, rows are not distributions, or an option is unknown.

    >>> before, after = [[0.2, 0.7, 0.1]] * 20, [[0.6, 0.3, 0.1]] * 20
    >>> drift = analyse([before, after], ["abortion"] * 20, [0, 100])
    >>> drift.magnitude[-1, 0].round(3).tolist(), drift.total_variation[-1].round(3).tolist()
    ([0.4, -0.4, 0.0], [0.4])
    >>> drift.significant[-1, 0].tolist(), str(drift.verdict[-1, 0])
    ([True, True, False], 'moved')
    """
    values, steps, given = checked(values, topics, steps, propositions, interval, margin, resamples, alpha, rule, asked)
    names = tuple(dict.fromkeys(topics))
    groups = np.array([names.index(topic) for topic in topics])
    of_topics = [groups == t for t in range(len(names))]
    units = np.unique(propositions, return_inverse=True)[1] if propositions is not None else np.arange(len(topics))
    flips = max(resamples, math.ceil(len(names) * len(STANCES) / alpha))

    probability = topic_means(prompt_means(values), groups)
    known = ~np.isnan(probability[..., 0])
    magnitude = probability - probability[:1]
    distance = total_variation(probability, probability[:1])
    # A stream for each topic: what one draws does not depend on how many prompts the others have.
    *streams, family_stream, joint_stream = np.random.default_rng(seed).spawn(len(names) + 2)
    parts = [
        _topic(values[:, own], units[own], interval, flips, rng) for own, rng in zip(of_topics, streams, strict=True)
    ]
    tests = Joined(kept=0) if earlier is None else earlier
    before = max(len(tests), 1)
    tests.join([part.flipped for part in parts], flips, family_stream)
    told = np.concatenate([[0], np.arange(before, len(tests))])
    family = adjusted(tests, alpha, told)
    topic_p_adjusted = _least(family.p_value)

    tested = [
        Candidate(values[:, own], given[:, own], part.member, part.flipped.figure, part.flipped.units, part.change)
        for own, part in zip(of_topics, parts, strict=True)
    ]
    unscored = tuple(hidden(values[:, own], given[:, own], units[own]) for own in of_topics)
    tests.join_unscored(unscored)
    unscored_changed = changed(np.stack(tests.unscored), np.array(tests.unscored_everywhere), alpha)[told]
    starred = stars(tested, family, unscored_changed, magnitude, alpha)
    topic_significant = starred.significant.sum(axis=-1) > 0
    changes = [part.change for part in parts]
    draws = [part.draws for part in parts]
    far = np.stack([allowance(magnitude[:, t, None], [own], alpha) for t, own in enumerate(changes)], 1)
    # Every topic at every checkpoint is one mean of one topic.
    hardest = least_favourable(magnitude, changes, alpha)
    t_draws = np.stack([one.t for one in draws], axis=2)  # (R, C, T, 3)
    cells = mean_interval(hardest.reshape(-1, 1, 3), t_draws.reshape(len(t_draws), -1, 1, 3), far.ravel(), alpha)
    distance_ci = cells.reshape(*distance.shape, 2)
    # What unscored answers could hide counts against "not moved" where their share has changed.
    hideable = np.maximum(np.stack([one.high for one in unscored], axis=1) - distance, 0.0)
    furthest = distance_ci[..., 1] + np.where(unscored_changed, hideable, 0.0)
    noises = np.stack([noise(part.sampling) for part in parts], 1)
    squares = np.stack([part.within.square for part in parts], 1)
    overall_probability = _mean_over_topics(probability)
    responses = np.stack([(~np.isnan(values[:, own][..., 0])).sum(axis=(1, 2)) for own in of_topics], axis=1)
    probability_ci = np.stack(
        [share_interval(probability[:, t], part.level, responses[:, t], alpha) for t, part in enumerate(parts)], 1
    )
    came = courses(
        [(topic.answers, units[own]) for topic, own in zip(tested, of_topics, strict=True)],
        interval,
        starred.significant & with_course,
        magnitude,
        steps,
        flips,
        joint_stream,
        alpha,
    )
    return Drift(
        interval=interval,
        margin=margin,
        topics=names,
        steps=steps,
        probability=probability,
        probability_ci=probability_ci,
        magnitude=magnitude,
        magnitude_ci=np.stack([_t_interval(magnitude[:, t], own, alpha) for t, own in enumerate(changes)], 1),
        p_value=np.stack([part.flipped.p_value for part in parts], 1),
        p_adjusted=family.p_value,
        significant=starred.significant,
        withheld=starred.withheld,
        unscored=unscored,
        unscored_changed=unscored_changed,
        selected=starred.selected,
        selected_ci=starred.selected_ci,
        total_variation=distance,
        total_variation_ci=distance_ci,
        noise=noises,
        topic_p_value=np.stack([part.flipped.topic_p_value for part in parts], 1),
        topic_p_adjusted=topic_p_adjusted,
        topic_significant=topic_significant,
        topic_selected=starred.topic_selected,
        topic_selected_ci=starred.topic_selected_ci,
        verdict=verdicts(topic_significant, furthest, margin),
        minimum_detectable=np.stack([minimum_detectable(part.tested, family.critical) for part in parts], 1),
        helped=np.stack([part.helped(family.critical, interval) for part in parts], 1),
        within=rooted(squares),
        within_p_value=np.stack([part.within.p_value for part in parts], 1),
        overall=_mean_over_topics(distance),
        overall_ci=_overall_interval(magnitude, draws, changes, known, seed_from(joint_stream), alpha),
        overall_noise=_mean_over_topics(noises),
        overall_within=rooted(_mean_over_topics(squares)),
        overall_probability=overall_probability,
        overall_probability_ci=share_interval(
            overall_probability, _mean_error([part.level for part in parts]), responses.sum(axis=1), alpha
        ),
        drift_time=np.where(starred.significant[-1], drift_time(probability, probability_ci, steps, rule), np.nan),
        arrival=came.arrival,
        arrival_ci=came.arrival_ci,
        overshoot=came.overshoot,
        overshoot_ci=came.overshoot_ci,
        overshoot_p=came.overshoot_p,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Topic:
    """What one topic comes to: the errors of its means, their draws, its flips, the drift of its propositions.

    What is drawn of a checkpoint does not depend on which others there are.
    """

    level: Error
    change: Error
    sampling: Error  # of the change, by drawing responses alone
    tested: Error  # of the change, by the units that are flipped
    between: Error  # of the change, by the spread of prompts within propositions
    draws: ErrorDraws
    member: Floats
    flipped: Flipped
    within: Within

    def helped(self, critical: float, interval: Interval) -> Floats:
        """(C, 3) see `verdicts.helped`."""
        return helped(self.tested, self.between, self.sampling, critical, prompts_are_units=interval == "prompts")


def _topic(
    answers: Floats, units: NDArray[np.int64], interval: Interval, flips: int, rng: np.random.Generator
) -> _Topic:
    means = prompt_means(answers)
    turned = units if interval == "propositions" else np.arange(len(units))
    member = members(turned)
    change = change_error(answers, units, interval)
    return _Topic(
        level=level_error(answers, units, interval),
        change=change,
        sampling=change_error(answers, units, "prompts", least=False),
        tested=change if interval == "propositions" else change_error(answers, turned, "propositions"),
        between=prompts_error(answers, units),
        draws=error_draws(change, rng),
        member=member,
        flipped=flipped(means - means[:1], member, flips, rng),
        within=within(answers, units, min(flips, EXCHANGES), rng),
    )


def _t_interval(estimate: Floats, error: Error, alpha: float) -> Floats:
    """(C, 3) changes -> (C, 3, 2)."""
    half = error.half_width(alpha)
    ends = np.clip(np.stack([estimate - half, estimate + half], axis=-1), -1.0, 1.0)
    ends[np.isnan(half)] = np.nan
    return ends


def _mean_error(errors: Sequence[Error]) -> Error:
    """The error of the mean over the topics that have one, which are independent (Welch and Satterthwaite)."""
    covariance = np.stack([error.covariance for error in errors])  # (T, C, 3, 3)
    units = np.stack([error.units for error in errors])
    has = units > 0
    number = np.maximum(has.sum(axis=0), 1)
    total = np.where(has[..., None, None], covariance, 0.0).sum(axis=0)
    traces = np.where(has, np.trace(covariance, axis1=-2, axis2=-1), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        own = np.where(has, traces**2 / np.stack([error.freedom for error in errors]), 0.0)
        freedom = traces.sum(axis=0) ** 2 / own.sum(axis=0)
    return Error(total / (number**2)[:, None, None], freedom, units.sum(axis=0))


def _overall_interval(
    magnitude: Floats, draws: Sequence[ErrorDraws], changes: Sequence[Error], known: Bools, seed: int, alpha: float
) -> Floats:
    """(C, T, 3), T, T, (C, T) -> (C, 2) over the topics that have an estimate at the checkpoint."""
    ends = np.full((len(magnitude), 2), np.nan)
    has = known & known[:1]
    for pattern in np.unique(has, axis=0):
        own = (has == pattern).all(axis=1)
        if pattern.any():
            some = [error.at(own) for error, kept in zip(changes, pattern, strict=True) if kept]
            drawn = joint_draws([one.at(own) for one, kept in zip(draws, pattern, strict=True) if kept], some, seed)
            moved = magnitude[own][:, pattern]
            far = allowance(moved, some, alpha)
            far = far - least_added(moved, some, drawn, far, alpha)
            ends[own] = mean_interval(least_favourable(moved, some, alpha), drawn, far, alpha)
    return ends


def _least(p_value: Floats) -> Floats:
    """(C, T, 3) -> (C, T), NaN where none was tested."""
    least = np.where(np.isnan(p_value), np.inf, p_value).min(axis=-1)
    return np.where(np.isinf(least), np.nan, least)


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


def _mean_over_topics(estimates: Floats) -> Floats:
    """(C, T, ...) -> (C, ...), over the topics that have an estimate; NaN where none has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "mean of empty slice" is the NaN we want
        mean: Floats = np.nanmean(estimates, axis=1)
    return mean
