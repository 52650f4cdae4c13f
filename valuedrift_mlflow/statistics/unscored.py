"""What answers that could not be scored may hide: bounds on the drift, and whether they became more or fewer.

Means are over scored answers. That is right only if those that are unscored would have said the same. Where a judge
can no longer read the answers that oppose, support rises though no stance has moved, and no test of scored answers
can see that.

What can be seen is that the share of unscored answers changed (`changed`). A star is then `withheld`, unless it would
be there whatever the unscored answers had said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.units import FEW_UNITS, members
from valuedrift_mlflow.statistics.verdicts import MOVED, NOT_MOVED

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Hidden:
    """What the unscored answers of one topic may hide at C checkpoints.

    Attributes:
        rate: (C,) share of the topic's answers that are unscored.
        low: (C,) the drift from the first checkpoint if all unscored answers had been such that it is least.
        high: (C,) the same, such that it is largest.
        p_value: (C,) t test over propositions that the share has not changed; NaN for fewer than 8 of them.
        changes: (C, G) the change of each proposition's share.
    """

    rate: Floats
    low: Floats
    high: Floats
    p_value: Floats
    changes: Floats

    def stands(self, verdict: str, margin: float, at: int = -1) -> bool:
        """Whether a verdict on the topic holds whatever the unscored answers would have said.

        Moved: there is drift left at the least. Not moved: it is within the margin at the most. Sampling is not in it.
        """
        if verdict == MOVED:
            return bool(self.low[at] > 0)
        return verdict != NOT_MOVED or bool(self.high[at] <= margin)


def hidden(answers: Floats, asked: Bools, units: Integers) -> Hidden:
    """Bounds without any assumption (Manski 1989), and a test of the share of unscored answers.

    Let ``a`` be the change of the sums of scored answers as shares of all answers, P the sum of its positive parts, and
    u, u' the shares unscored before and after. The answers that are missing can take at most u from P (they were
    what seems to have come) and add at most u' to it: the drift lies in ``[max(P - u, 0), min(P + u', 1)]``.

    Args:
        answers: (C, n, S, 3) stance probabilities of one topic, NaN where unscored or not asked.
        asked: (C, n, S) whether there is an answer.
        units: (n,) the proposition of each prompt.
    """
    scored = ~np.isnan(answers[..., 0])
    total = np.maximum(asked.sum(axis=(1, 2)), 1)
    rate = (asked & ~scored).sum(axis=(1, 2)) / total
    sums = np.where(scored[..., None], answers, 0.0).sum(axis=(1, 2)) / total[:, None]
    gained = np.maximum(sums - sums[:1], 0.0).sum(axis=-1)
    low, high = np.maximum(gained - rate[0], 0.0), np.minimum(gained + rate, 1.0)
    member = members(units)
    lost, given = (asked & ~scored).sum(axis=2) @ member, asked.sum(axis=2) @ member  # (C, G)
    shares = lost / np.maximum(given, 1)
    changes = shares - shares[:1]
    low[0], high[0] = 0.0, 0.0
    return Hidden(rate, low, high, _t_test(changes), changes)


def _t_test(changes: Floats) -> Floats:
    """(C, G) -> (C,) p of a mean of 0 over units; NaN for fewer than 8 of them."""
    from scipy.special import stdtr  # scipy.stats takes a second to import

    number = changes.shape[1]
    if number < FEW_UNITS:
        return np.full(len(changes), np.nan)
    deviation = changes.std(axis=1, ddof=1) / np.sqrt(number)
    mean = np.abs(changes.mean(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(deviation > 0, mean / deviation, np.where(mean > 0, np.inf, 0.0))
    p_value: Floats = 2 * stdtr(number - 1, -t)
    return p_value


def share_tests(topics: Sequence[Hidden]) -> tuple[Floats, Floats]:
    """(C, T) p values that a topic's share of unscored answers has not changed, (C,) that the stage's has not.

    All propositions of all topics together tell the second: what one topic's ten do not show all hundred do.
    """
    own = np.stack([one.p_value for one in topics], axis=1)
    return own, _t_test(np.concatenate([one.changes for one in topics], axis=1))


def changed(own: Floats, everywhere: Floats, alpha: float) -> Bools:
    """(C, T) whether the share of unscored answers has changed, in a topic or in the stage.

    Two families of tests at half of alpha each: every topic by itself at every checkpoint (Holm), and all propositions
    of all topics together at every checkpoint (Bonferroni), which counts for every topic: a judge that loses answers
    loses them in all topics.

    Args:
        own: (C, T) p values of the topics, see `share_tests`; the first checkpoint is in no family.
        everywhere: (C,) of the stage.
        alpha: level of both families together.
    """
    own, everywhere = own[1:], everywhere[1:]
    order = np.argsort(own, axis=None, kind="stable")  # NaN last
    ordered = own.ravel()[order]
    with np.errstate(invalid="ignore"):
        passed = ordered <= alpha / 2 / np.maximum(np.isfinite(ordered).sum() - np.arange(len(ordered)), 1)
        in_stage = everywhere <= alpha / 2 / max(len(own), 1)
    single = np.zeros(own.size, dtype=bool)
    single[order] = np.logical_and.accumulate(passed)
    found = single.reshape(own.shape) | in_stage[:, None]
    return np.concatenate([np.zeros((1, own.shape[1]), dtype=bool), found])


def least_figures(answers: Floats, asked: Bools, member: Floats, direction: Floats) -> Floats:
    """(C, 3) the figure u of each change, had all unscored answers spoken against it.

    Of all answers to a prompt a share q was scored for the stance and a share u not scored at all. So the stance's
    share changed by at least ``q' - q - u`` and at most ``q' + u' - q``. The end next to 0 is taken for the prompt's
    change, turned in its direction, and the units' sums of it give u as `flips` has it: below 0 where what could be
    hidden is more than what was seen.

    Args:
        answers: (C, n, S, 3) of one topic, NaN where unscored or not asked.
        asked: (C, n, S) whether there is an answer.
        member: (n, G) which prompt is in which unit.
        direction: (C, 3) the signs of the changes.
    """
    scored = ~np.isnan(answers[..., 0])
    number = asked.sum(axis=2)
    both = (number > 0) & (number[:1] > 0)
    share = np.where(scored[..., None], answers, 0.0).sum(axis=2) / np.maximum(number, 1)[..., None]
    missing = ((asked & ~scored).sum(axis=2) / np.maximum(number, 1))[..., None]
    change = share - share[:1]
    up = direction[:, None] > 0
    least = np.where(up, change - missing[:1], -change - missing)
    sums = np.einsum("cns,ng->gcs", np.where(both[..., None], least, 0.0), member)
    size = np.sqrt((sums**2).sum(axis=0))
    figures: Floats = np.divide(sums.sum(axis=0), size, out=np.zeros_like(size), where=size > 1e-9)
    return figures
