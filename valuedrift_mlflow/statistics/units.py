"""What varies, and how much: the sampling error of a topic's mean stances, for two estimands.

- ``propositions``: the suite's propositions stand for others like them. What varies is the proposition, and every
  response to it varies with it. Variance CR2 over propositions (Bell and McCaffrey 2002), which is the usual variance
  of a mean where all have as many prompts, with their Satterthwaite degrees of freedom for t.
- ``prompts``: these prompts and no others. What varies is the response that is drawn, so the variance is that within
  prompts. One response a prompt does not show it; the spread over the prompts of a proposition, which holds it and
  the prompts' own differences, stands for it then, and intervals are too wide rather than too narrow.

Arrays of one topic: ``answers (C, n, S, 3)`` = checkpoints x prompts x samples x stances, NaN where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]
Interval = Literal["propositions", "prompts"]

FEW_UNITS = 8  # fewer propositions (or prompts) are not tested: 2 ** (1 - 7) leaves nothing for a family of topics


@dataclass(frozen=True, slots=True, eq=False)
class Error:
    """The sampling error of C means over one topic.

    Attributes:
        covariance: (C, 3, 3) of the mean; NaN where fewer than two units were scored.
        freedom: (C,) degrees of freedom of t.
        units: (C,) how many units (propositions, or prompts) were scored.
    """

    covariance: Floats
    freedom: Floats
    units: Integers

    @property
    def deviation(self) -> Floats:
        """(C, 3) standard errors of the stances' means."""
        deviation: Floats = np.sqrt(np.maximum(np.diagonal(self.covariance, axis1=1, axis2=2), 0.0))
        return deviation

    def at(self, checkpoints: Bools | Integers) -> Error:
        """Of some of the checkpoints."""
        return Error(self.covariance[checkpoints], self.freedom[checkpoints], self.units[checkpoints])

    def half_width(self, alpha: float) -> Floats:
        """(C, 3) half the width of intervals of level ``1 - alpha``."""
        from scipy.special import stdtrit  # scipy.stats takes a second to import

        half: Floats = stdtrit(self.freedom, 1 - alpha / 2)[:, None] * self.deviation
        return half


def share_interval(estimate: Floats, error: Error, responses: Integers, alpha: float) -> Floats:
    """(C, 3) -> (C, 3, 2) the t interval of a mean share, made on the scale of log-odds and brought back.

    A share near 0 or 1 varies less on that side, and its error and its estimate go together: t intervals on the scale
    of shares miss far too often there. (R's ``survey::svyciprop`` does this by default.) A share of 0 is taken for that
    which Jeffreys' prior expects of as many responses, 1 / 2 / (n + 1).

    Args:
        estimate: mean shares, in [0, 1].
        error: theirs.
        responses: (C,) how many were scored.
        alpha: intervals have level ``1 - alpha``.
    """
    from scipy.special import expit, logit  # scipy.stats takes a second to import

    least = (0.5 / (responses + 1))[:, None]
    inside = np.clip(estimate, least, 1 - least)
    half = error.half_width(alpha) / (inside * (1 - inside))
    ends = expit(logit(inside)[..., None] + half[..., None] * np.array([-1.0, 1.0]))
    held: Floats = np.stack([np.minimum(ends[..., 0], estimate), np.maximum(ends[..., 1], estimate)], axis=-1)
    held[np.isnan(half)] = np.nan
    return held


def members(units: Integers) -> Floats:
    """(n,) the number of each prompt's unit -> (n, G) which prompt is in which unit."""
    member: Floats = (units[:, None] == np.unique(units)).astype(np.float64)
    return member


def prompt_means(answers: Floats) -> Floats:
    """(C, n, S, 3) -> (C, n, 3): means over the scored samples of each prompt; NaN where none was scored."""
    scored = ~np.isnan(answers[..., 0])
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN we want
        means: Floats = np.where(scored[..., None], answers, 0.0).sum(axis=2) / scored.sum(axis=2)[..., None]
    return means


def level_error(answers: Floats, units: Integers, interval: Interval) -> Error:
    """The error of every checkpoint's means."""
    if interval == "prompts":
        return _floored(_sampling_error(answers, units, change=False), answers, None)
    residuals, weights, counts = _influence(prompt_means(answers), members(units))
    return _floored(_cr2(residuals, weights, counts), answers, None)


def change_error(answers: Floats, units: Integers, interval: Interval, *, least: bool = True) -> Error:
    """The error of the change of means from the first checkpoint; that of the first one itself is 0.

    ``least`` has it be at least what is believed of units that all answered alike.
    """
    if interval == "prompts":
        error = _sampling_error(answers, units, change=True)
    else:
        residuals, weights, counts = _influence(prompt_means(answers), members(units))
        both = np.minimum(counts, counts[:1])
        known = both > 0
        error = _cr2(
            np.where(known[..., None], residuals - residuals[:1], 0.0), (weights + weights[:1]) / 2 * known, both
        )
    error = _floored(error, answers, 0) if least else error
    error.covariance[0] = np.where(np.isnan(error.covariance[0]), np.nan, 0.0)
    return error


def prompts_error(answers: Floats, units: Integers) -> Error:
    """The error of the change by the spread of prompts within propositions; that of drawing responses is in it."""
    means = prompt_means(answers)
    covariance, freedom = _between(means - means[:1], units)
    return Error(covariance, freedom, (~np.isnan(means[..., 0])).sum(axis=1))


def _influence(means: Floats, member: Floats) -> tuple[Floats, Floats, Floats]:
    """How each unit pulls at the mean: (C, G, 3) ``sum(x - mean) / N``, (C, G) its share of prompts, and their number.

    A mean over prompts is a ratio where units have lost prompts, so its error is that of these sums (delta method).
    """
    scored = ~np.isnan(means[..., 0])
    counts = scored.astype(np.float64) @ member
    total = counts.sum(axis=1, keepdims=True)
    sums = np.einsum("cns,ng->cgs", np.where(scored[..., None], means, 0.0), member)
    with np.errstate(invalid="ignore"):
        mean = sums.sum(axis=1, keepdims=True) / total[..., None]
        return (sums - counts[..., None] * mean) / total[..., None], counts / total, counts


def _cr2(residuals: Floats, weights: Floats, counts: Floats) -> Error:
    """CR2 of a mean: ``sum r r' / (1 - w)``, with the degrees of freedom of Bell and McCaffrey (2002, eq. 15).

    The working model has independent prompts of equal variance, so a unit of n prompts has variance 1 / n.
    """
    known = counts > 0
    units = known.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        lever = np.where(known, 1 / (1 - weights), 0.0)
        covariance = np.einsum("cg,cgs,cgt->cst", lever, residuals, residuals)
        covariance[units < 2] = np.nan
        # The trace and the trace of the square of S (I - 1 w') ' D (I - 1 w') S, where D = w^2 / (1 - w), S^2 = 1 / n.
        d, per = weights**2 * lever, np.where(known, 1 / np.maximum(counts, 1), 0.0)
        total, diagonal = d.sum(axis=1), d * per
        p, q = np.sqrt(per) * d, np.sqrt(per) * weights
        pq, pp, qq = (p * q).sum(axis=1), (p * p).sum(axis=1), (q * q).sum(axis=1)
        trace = diagonal.sum(axis=1) - 2 * pq + total * qq
        square = (
            (diagonal**2).sum(axis=1)
            + 2 * (pq**2 + pp * qq)
            + (total * qq) ** 2
            - 4 * (diagonal * p * q).sum(axis=1)
            + 2 * total * (diagonal * q * q).sum(axis=1)
            - 4 * total * pq * qq
        )
        freedom = np.where(units < 2, np.nan, trace**2 / square)
    return Error(covariance, freedom, units)


def _sampling_error(answers: Floats, units: Integers, *, change: bool) -> Error:
    """The error that comes from drawing responses to these prompts."""
    own, freedom, repeated = _within(answers)
    if change:
        own, freedom, repeated = own + own[:1], freedom + freedom[:1], repeated & repeated[:1]
    means = prompt_means(answers)
    if not repeated.all():
        spread, spread_freedom = _between(means - means[:1] if change else means, units)
        own = np.where(repeated[:, None, None], own, spread)
        freedom = np.where(repeated, freedom, spread_freedom)
    scored = ~np.isnan(means[..., 0])
    count = (scored & scored[:1] if change else scored).sum(axis=1)
    own[count < 1] = np.nan
    return Error(own, np.where(freedom >= 1, freedom, np.nan), count)


def _within(answers: Floats) -> tuple[Floats, Floats, Bools]:
    """(C, n, S, 3) -> (C, 3, 3) covariance of the mean over prompts, (C,) its freedom, (C,) whether it can be told.

    Prompts with one scored response get the mean covariance of those with several, which must be half of them.
    """
    scored = ~np.isnan(answers[..., 0])
    number = scored.sum(axis=2)  # (C, n)
    off = np.where(scored[..., None], answers - prompt_means(answers)[:, :, None], 0.0)
    several, any_scored = number >= 2, number >= 1
    products = np.einsum("cnks,cnkt->cnst", off, off) / np.maximum(number - 1, 1)[..., None, None]
    repeated = several.sum(axis=1) * 2 >= np.maximum(any_scored.sum(axis=1), 1)
    mean = products.sum(axis=1) / np.maximum(several.sum(axis=1), 1)[:, None, None]
    each = np.where(several[..., None, None], products, mean[:, None])
    each = np.where(any_scored[..., None, None], each / np.maximum(number, 1)[..., None, None], 0.0)
    total = np.maximum(any_scored.sum(axis=1), 1)
    return each.sum(axis=1) / (total**2)[:, None, None], np.maximum(number - 1, 0).sum(axis=1).astype(float), repeated


def _between(means: Floats, units: Integers) -> tuple[Floats, Floats]:
    """(C, n, 3) -> (C, 3, 3), (C,): the error of the mean by the spread of prompts within their propositions.

    Propositions of a single prompt are taken together: their prompts are compared with one another.
    """
    found, number = np.unique(units, return_counts=True)
    strata = np.where(np.isin(units, found[number < 2]), -1, units)
    member = members(strata.astype(np.int64))
    scored = ~np.isnan(means[..., 0])
    filled = np.where(scored[..., None], means, 0.0)
    counts = scored.astype(np.float64) @ member  # (C, G)
    centre = np.einsum("cns,ng->cgs", filled, member) / np.maximum(counts, 1)[..., None]
    off = np.where(scored[..., None], filled - np.einsum("cgs,ng->cns", centre, member), 0.0)
    unbiased = (counts / np.maximum(counts - 1, 1)) @ member.T  # (C, n), of each prompt's stratum
    total = np.maximum(counts.sum(axis=1), 1)
    spread = np.einsum("cn,cns,cnt->cst", unbiased, off, off) / (total**2)[:, None, None]
    return spread, np.maximum(counts - 1, 0).sum(axis=1)


def _floored(error: Error, answers: Floats, against: int | None) -> Error:
    """The error, at least that of responses which were all alike, so that no interval is without width.

    n responses that all agree may still hide some that do not. Jeffreys' prior expects a share of ``1 / 2 / (n + 1)``
    of them, whose sampling variance is the least that is believed. Soft verdicts are not of that kind: their floor
    counts only as far as verdicts are certain.
    """
    scored = ~np.isnan(answers[..., 0])
    number = scored.reshape(len(scored), -1).sum(axis=1)
    share = 0.5 / (number + 1)
    variance = share * (1 - share) / np.maximum(number, 1)
    certain = (np.nanmax(np.where(scored[..., None], answers, 0.0), axis=-1) > 1 - 1e-6).reshape(len(scored), -1)
    hard = certain.sum(axis=1) / np.maximum(number, 1)
    if against is not None:
        variance, hard = variance + variance[against], np.minimum(hard, hard[against])
    spread = np.diagonal(error.covariance, axis1=1, axis2=2)
    missing = np.maximum(variance[:, None] * np.where(spread < 1e-12, 1.0, hard[:, None]) - spread, 0.0)
    missing = np.where(np.isnan(spread), 0.0, missing)
    covariance = error.covariance + np.einsum("cs,st->cst", missing, np.eye(3))
    return Error(covariance, error.freedom, error.units)
