"""How far stances moved, as a distance: its interval, its noise, and the drift of single propositions.

Of three changes that sum to 0 the largest is the total variation. Noise in any direction adds to it, so neither a
percentile nor a t interval covers near 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.units import FEW_UNITS, Error, members, prompt_means

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

DRAWS = 1000  # of the errors, for the interval of a total variation
HELD = 2**22  # squares under exchanges held at a time
HALVINGS = 12  # of the range of a total variation: its ends are found to 1 / 4096


@dataclass(frozen=True, slots=True, eq=False)
class ErrorDraws:
    """Errors of one topic's changes, drawn from their estimated law.

    Attributes:
        normal: (R, C, 3) normal ones; one draw of the noise serves all checkpoints. NaN where the error is unknown.
        scale: (R, C) what makes them multivariate t, as the errors' size is an estimate.
    """

    normal: Floats
    scale: Floats

    @property
    def t(self) -> Floats:
        """(R, C, 3) multivariate t."""
        return self.normal * self.scale[..., None]

    def at(self, checkpoints: NDArray[np.bool_]) -> ErrorDraws:
        """Of some of the checkpoints."""
        return ErrorDraws(self.normal[:, checkpoints], self.scale[:, checkpoints])


def error_draws(error: Error, rng: np.random.Generator) -> ErrorDraws:
    """1,000 draws of the errors of one topic's changes. What is drawn of a checkpoint does not depend on the others."""
    covariance = np.nan_to_num(error.covariance)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]  # (C, 3, 3)
    draws: Floats = np.einsum("cst,rt->rcs", root, rng.standard_normal((DRAWS, 3)))
    draws -= draws.mean(axis=-1, keepdims=True)  # changes of shares sum to 0
    draws[:, np.isnan(error.covariance).any(axis=(1, 2)) | np.isnan(error.freedom)] = np.nan
    return ErrorDraws(draws, _scales(error.freedom, seed_from(rng)))


def seed_from(rng: np.random.Generator) -> int:
    """A seed for what is drawn anew several times."""
    return int(rng.integers(2**63))


def _scales(freedom: Floats, seed: int) -> Floats:
    """(C,) -> (R, C) what makes a normal deviate one of t."""
    scales = np.empty((DRAWS, len(freedom)))
    for checkpoint, known in enumerate(np.nan_to_num(freedom, nan=1.0).tolist()):
        chances = np.random.default_rng(seed)  # of every checkpoint anew
        scales[:, checkpoint] = np.sqrt(known / chances.chisquare(max(known, 1.0), DRAWS))
    return scales


def joint_draws(topics: Sequence[ErrorDraws], errors: Sequence[Error], seed: int) -> Floats:
    """(R, C, T, 3) errors of several topics, for a mean over them.

    Each topic's error is an estimate of few degrees of freedom, but their mean's is one of many: so all are scaled as
    one t with the freedom that Welch and Satterthwaite give to the mean.
    """
    variances = np.stack([np.trace(error.covariance, axis1=1, axis2=2) for error in errors])
    with np.errstate(invalid="ignore", divide="ignore"):
        own = variances**2 / np.stack([error.freedom for error in errors])
        freedom = np.where(variances.sum(axis=0) > 0, variances.sum(axis=0) ** 2 / own.sum(axis=0), 1.0)
    joint: Floats = np.stack([one.normal for one in topics], axis=2) * _scales(freedom, seed)[..., None, None]
    return joint


def allowance(changes: Floats, errors: Sequence[Error], alpha: float) -> Floats:
    """(C, T, 3) -> (C,) how far the mean over topics of the total variation may lie above what was measured.

    With ``s`` the sign of each true change, ``TV = sum(s d) / 2``, and what is measured is at least ``sum(s d_measured)
    / 2``. So TV exceeds it at most by an error along s, which for three changes that sum to 0 is the error of a single
    stance. The one that could be largest stands for it: ``|change| + t error`` (an intersection-union test; Berger
    1982). Topics are independent; their freedom is Welch and Satterthwaite's.
    """
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    variances, freedom = np.empty(changes.shape[:2]), np.empty(changes.shape[:2])
    for t, error in enumerate(errors):
        reach = np.abs(changes[:, t]) + error.half_width(alpha)
        chosen = np.argmax(np.nan_to_num(reach, nan=-1.0), axis=-1)
        variances[:, t] = np.take_along_axis(error.deviation, chosen[:, None], axis=1)[:, 0] ** 2
        freedom[:, t] = error.freedom
    total = variances.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        joint = np.where(total > 0, total**2 / (variances**2 / freedom).sum(axis=1), 1.0)
    far: Floats = stdtrit(joint, 1 - alpha / 2) * np.sqrt(total) / len(errors)
    return far


def least_favourable(changes: Floats, errors: Sequence[Error], alpha: float) -> Floats:
    """(C, T, 3) -> (C, T, 3) the changes of equal total variation from which noise adds most to it.

    Noise adds most where two stances change alike and the third does not: the larger of two is then measured. Where
    the least of the three changes may be 0, it is taken to be (as moments that may bind are; Andrews and Soares 2010).
    """
    half = np.stack([error.half_width(alpha) for error in errors], axis=1)
    small, middle, large = np.moveaxis(np.argsort(np.abs(changes), axis=-1), -1, 0)[..., None]
    most = np.take_along_axis(changes, large, axis=-1)
    tied = np.zeros_like(changes)
    np.put_along_axis(tied, large, most, axis=-1)
    np.put_along_axis(tied, middle, -most, axis=-1)
    in_doubt = np.abs(np.take_along_axis(changes, small, axis=-1)) <= np.take_along_axis(half, small, axis=-1)
    return np.where(in_doubt, tied, changes)


def least_added(changes: Floats, errors: Sequence[Error], draws: Floats, far: Floats, alpha: float) -> Floats:
    """(C, T, 3), T, (R, C, T, 3), (C,) -> (C,) what noise adds to the mean total variation of topics at the least.

    Each topic's distance is measured too large, and a mean over topics does not average that out. Noise adds the less
    the further topics moved, and least where one stance stands against two. So what it adds if they had all moved as
    far as the upper end allows, in that manner wherever their own is in doubt, is in the estimate for certain.
    """
    half = np.stack([error.half_width(alpha) for error in errors], axis=1)
    middle, large = np.moveaxis(np.argsort(np.abs(changes), axis=-1)[..., 1:], -1, 0)[..., None]
    most = np.take_along_axis(changes, large, axis=-1)
    apart = np.repeat(-most / 2, 3, axis=-1)
    np.put_along_axis(apart, large, most, axis=-1)
    second = np.abs(np.take_along_axis(changes, middle, axis=-1))
    in_doubt = second - np.abs(most) / 2 <= np.take_along_axis(half, middle, axis=-1)
    measured = 0.5 * np.abs(changes).sum(axis=-1).mean(axis=1)
    furthest = measured + far
    grown = np.where(in_doubt, apart, changes) * (furthest / np.maximum(measured, 1e-12))[:, None, None]
    seen = _half_sum((grown + draws).astype(np.float32)).mean(axis=-1).mean(axis=0)
    added: Floats = np.clip(seen - furthest, 0.0, far)
    return added


def mean_interval(changes: Floats, draws: Floats, far: Floats, alpha: float) -> Floats:
    """(C, T, 3), (R, C, T, 3), (C,) -> (C, 2): the interval of the mean over topics of the total variation.

    The upper end is the estimate and what it may be too small by (``far``). The lower end is the least distance that a
    test does not reject. The test of "the distance is x" draws what would be measured if the changes
    (`least_favourable` ones) were shrunk to that distance, with errors as drawn, and rejects where no more than a share
    of them reaches what was measured: the share of alpha that upper ends leave, which miss x less often the more of the
    distance is noise. So the interval takes the bias of the distance into account, covers 0 as often as anything else,
    and always holds the estimate.
    """
    estimate = 0.5 * np.abs(changes).sum(axis=-1).mean(axis=1)  # (C,)
    noise_drawn = draws.astype(np.float32)  # twice as fast, and a distance of 1e-7 is none
    unit = changes / np.maximum(estimate, 1e-12)[:, None, None]
    # The end lies between `out`, which is rejected (or is 0), and the estimate, which is not.
    out, kept = np.zeros(len(changes)), estimate.copy()
    for halving in range(HALVINGS + 1):
        middle = (out + kept) / 2 if halving else out
        moved = (unit * middle[:, None, None]).astype(np.float32)
        measured = _half_sum(moved + noise_drawn).mean(axis=-1)
        missed = np.minimum((measured + far < middle).mean(axis=0), alpha / 2)
        gone = (measured >= estimate - 1e-7).mean(axis=0) <= alpha - missed
        if not halving:
            kept = np.where(gone, kept, 0.0)  # 0 itself is not rejected
        out, kept = np.where(gone, middle, out), np.where(gone, kept, middle)
    ends: Floats = np.stack([kept, np.minimum(estimate + far, 1.0)], axis=-1)
    ends[np.isnan(draws).any(axis=(0, 2, 3)) | np.isnan(far)] = np.nan
    return ends


def _half_sum(changes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., 3) -> (...) the total variation. Three slices are much faster than a sum over a short axis."""
    sizes = np.abs(changes)
    half: NDArray[np.float32] = (sizes[..., 0] + sizes[..., 1] + sizes[..., 2]) * np.float32(0.5)
    return half


def noise(error: Error) -> Floats:
    """(C,) the total variation to expect of sampling alone: half the sum of ``E |e| = sqrt(2 / pi) sd``."""
    expected: Floats = 0.5 * np.sqrt(2 / np.pi) * error.deviation.sum(axis=-1)
    return expected


def above(distance: Floats, floor: Floats) -> Floats:
    """What of a distance is left above the noise: errors add to it in quadrature, so they are taken off so.

    >>> float(above(np.array(0.05), np.array(0.03)).round(3))
    0.04
    """
    left: Floats = np.sqrt(np.maximum(distance**2 - floor**2, 0.0))
    return left


@dataclass(frozen=True, slots=True, eq=False)
class Within:
    """How far single propositions moved, by checkpoint.

    Attributes:
        square: (C,) mean over propositions of half the squared distance, unbiased: it may be below 0.
        p_value: (C,) of "no prompt's answers changed"; NaN where too few answers could be exchanged.
    """

    square: Floats
    p_value: Floats

    @property
    def distance(self) -> Floats:
        """(C,) the root of the square, in [0, 1]: a total variation where probability moves between two stances."""
        return rooted(self.square)


def rooted(square: Floats) -> Floats:
    """The root; 0 of what noise has made negative."""
    root: Floats = np.sqrt(np.clip(square, 0.0, 1.0))
    return root


def within(answers: Floats, units: Integers, flips: int, rng: np.random.Generator) -> Within:
    """The mean drift of a proposition from the first checkpoint: it sees moves that cancel in the topic's mean.

    For the mean change ``d`` of a proposition's stances ``|d|^2`` is biased by the variance of d, which is estimated
    from the samples of its prompts and taken off; that is the U-statistic over pairs of different answers. Where
    prompts were asked once, from its prompts, as if they had been drawn (a proposition of one prompt asked once has
    no such figure). Half of it is 1 where all probability goes from one stance to another.

    Test: where nothing changed, a prompt's answers at the two checkpoints could be exchanged. They are, one by one, at
    random, answer k of one with answer k of the other. Where each proposition has one prompt asked once, or fewer than
    8 answers can be exchanged, nothing can be told so.

    Args:
        answers: (C, n, S, 3) of one topic.
        units: (n,) the proposition of each prompt.
        flips: how many exchanges to draw.
        rng: draws them.
    """
    member = members(units)
    means = prompt_means(answers)
    both = ~np.isnan(means[..., 0]) & ~np.isnan(means[:1, :, 0])
    counts = both.astype(np.float64) @ member  # (C, G)
    prompts = np.where(both[..., None], means - means[:1], 0.0)
    change = np.einsum("cns,ng->cgs", prompts, member) / np.maximum(counts, 1)[..., None]
    variance = _variance_of_change(answers, prompts, both, member)  # (C, G)
    known = (counts > 0) & ~np.isnan(variance)
    squares = np.where(known, 0.5 * ((change**2).sum(axis=-1) - np.nan_to_num(variance)), 0.0)
    with np.errstate(invalid="ignore"):
        square = squares.sum(axis=1) / known.sum(axis=1)
    square[0] = np.where(np.isnan(square[0]), np.nan, 0.0)
    return Within(square, _exchange_test(answers, member, flips, rng))


def _variance_of_change(answers: Floats, prompts: Floats, both: NDArray[np.bool_], member: Floats) -> Floats:
    """(C, G) the variance of each proposition's mean change, summed over stances; NaN where it cannot be told."""
    scored = ~np.isnan(answers[..., 0])
    number = scored.sum(axis=2)
    off = np.where(scored[..., None], answers - prompt_means(answers)[:, :, None], 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_mean = (off**2).sum(axis=(2, 3)) / (number - 1) / number  # (C, n); NaN or inf with one answer
        own = np.where(both, of_mean + of_mean[:1], 0.0)
        counts = both.astype(np.float64) @ member
        repeated = ((number >= 2) & (number[:1] >= 2)) | ~both
        sampled = (np.where(repeated, own, 0.0) @ member) / counts**2
        centre = np.einsum("cns,ng->cgs", prompts, member) / np.maximum(counts, 1)[..., None]
        spread = np.where(both, ((prompts - np.einsum("cgs,ng->cns", centre, member)) ** 2).sum(axis=-1), 0.0)
        between = (spread @ member) / (counts - 1) / counts
    by_samples = ((~repeated).astype(np.float64) @ member) == 0
    return np.where(by_samples, sampled, np.where(counts >= 2, between, np.nan))


def _exchange_test(answers: Floats, member: Floats, flips: int, rng: np.random.Generator) -> Floats:
    """(C,) p values: the mean squared change of propositions, had answers been exchanged between checkpoints."""
    scored = ~np.isnan(answers[..., 0]) & ~np.isnan(answers[:1, ..., 0])  # (C, n, S)
    pairs = np.where(scored[..., None], answers - answers[:1], 0.0)
    pairs /= np.maximum(scored.sum(axis=2), 1)[..., None, None]  # a prompt's mean change is the sum of these
    checkpoints, _, samples, _ = pairs.shape
    observed, extreme = np.zeros(checkpoints), np.zeros((flips, checkpoints))
    prompts = np.maximum(scored.any(axis=2).astype(np.float64) @ member, 1)  # (C, G)
    sizes = member.sum(axis=0).astype(int) * samples
    for size in np.unique(sizes[sizes > 1]):  # one answer is turned round, and its proposition with it: no other square
        of_size = np.flatnonzero(sizes == size)
        for some in np.array_split(of_size, max(1, len(of_size) * flips * checkpoints * 3 // HELD)):
            own = np.concatenate([np.flatnonzero(member[:, unit]) for unit in some])
            columns = pairs[:, own].transpose(1, 2, 0, 3).reshape(len(some), size, checkpoints * 3).astype(np.float32)
            columns /= np.repeat(prompts[:, some].T, 3, axis=1)[:, None]
            signs = 1 - 2 * rng.integers(0, 2, (len(some), flips, size), dtype=np.int8).astype(np.float32)
            extreme += ((signs @ columns) ** 2).sum(axis=0).reshape(flips, checkpoints, 3).sum(axis=-1)
            observed += (columns.sum(axis=1) ** 2).sum(axis=0).reshape(checkpoints, 3).sum(axis=-1)
    p_value = (1 + (extreme >= observed * (1 - 1e-5) - 1e-9).sum(axis=0)) / (1 + flips)
    exchanged = (scored.sum(axis=2) @ member)[:, sizes > 1].sum(axis=1)
    return np.where(exchanged >= FEW_UNITS, p_value, np.nan)
