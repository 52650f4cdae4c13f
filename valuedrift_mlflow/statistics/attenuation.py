"""How much of a true drift a judge shows, from its verdicts on labelled texts.

Let ``R[i, j]`` be the mean share of stance j in a judge's verdicts on the texts of true stance i that it scores. Where
texts of stance a become texts of stance b, the measured means move from ``R[a]`` to ``R[b]``. What of that lies along
the true move is::

    shown(a, b) = (R[b, b] - R[a, b] + R[a, a] - R[b, a]) / 2

1 for a judge that is always right, 0 for one whose verdicts do not depend on the truth, below 0 for one that reads
stances the wrong way round. It is linear in R, so it is not biased where texts are few, as a distance would be. The
mean over the three pairs of stances is ``(trace(R) - 1) / 2``, Youden's index (1950) for three classes. A partial move
shows in proportion as far as the judge scores texts of all stances equally often.

All of it is conditional on the labelled texts: another kind of text is read otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.clustered import clustered
from valuedrift_mlflow.statistics.intervals import NOTHING, Estimate

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PAIRS = tuple(combinations(range(3), 2))  # support and neutral, support and oppose, neutral and oppose
FEWEST_TEXTS = 5  # scored ones of each stance: how fewer are read says too little of that stance


@dataclass(frozen=True, slots=True)
class Attenuation:
    """The share of a true drift that a judge shows, with 95 % intervals over propositions.

    Attributes:
        overall: mean over the three pairs of stances, in [-0.5, 1]; NaN unless all three are known.
        pairs: of each of `PAIRS`, in [-1, 1]; NaN where one of its stances has fewer than `FEWEST_TEXTS`.
        texts: labelled texts of support, neutral and oppose that the judge scored.
    """

    overall: Estimate
    pairs: tuple[Estimate, ...]
    texts: tuple[int, ...]

    @property
    def known(self) -> bool:
        """Whether enough texts of all three stances were read."""
        return math.isfinite(self.overall.value)


def attenuation(truth: Integers, verdicts: Floats, clusters: Integers) -> Attenuation:
    """How much of a true drift a judge shows.

    Args:
        truth: (n,) 0 to 2, the stance that people read in each labelled text.
        verdicts: (n, 3) the judge's stances of each; NaN where it left the text unscored.
        clusters: (n,) the number of each text's proposition.

    A judge that reads a quarter of support as opposition, and the reverse, shows half of a move between the two:

    >>> truth, clusters = np.repeat([0, 1, 2], 40), np.tile(np.arange(10), 12)
    >>> said = truth.copy()
    >>> said[:10], said[80:90] = 2, 0
    >>> found = attenuation(truth, np.eye(3)[said], clusters)
    >>> [round(own.value, 3) for own in found.pairs], round(found.overall.value, 3)
    ([0.875, 0.5, 0.875], 0.75)
    """
    scored = np.isfinite(verdicts).all(axis=1)
    truth, verdicts = truth[scored], verdicts[scored]
    _, cluster = np.unique(clusters[scored], return_inverse=True)
    number = int(cluster.max(initial=-1)) + 1
    sums, counts = np.zeros((number, 3, 3)), np.zeros((number, 3))
    np.add.at(sums, (cluster, truth), verdicts)
    np.add.at(counts, (cluster, truth), 1)
    texts = counts.sum(axis=0).astype(int)
    known = [pair for pair in PAIRS if min(texts[list(pair)]) >= FEWEST_TEXTS]
    pairs = tuple(_over(sums, counts, [pair]) if pair in known else NOTHING for pair in PAIRS)
    overall = _over(sums, counts, list(PAIRS)) if len(known) == len(PAIRS) else NOTHING
    return Attenuation(overall, pairs, tuple(texts.tolist()))


def _over(sums: Floats, counts: Floats, pairs: list[tuple[int, int]]) -> Estimate:
    """The mean over some pairs, with its interval over clusters: of (G, 3, 3) and (G, 3)."""
    involved = sorted({stance for pair in pairs for stance in pair})
    whole, total = sums.sum(axis=0), counts.sum(axis=0)
    value = _shown(whole[None], total[None], pairs)[0]
    own = counts[:, involved].sum(axis=1)
    # A proposition of other stances alone changes nothing here, and would count as one that agrees.
    some = own > 0
    without = _shown(whole - sums[some], total - counts[some], pairs)
    return clustered(float(value), without, own[some], (-1.0, 1.0))


def _shown(sums: Floats, counts: Floats, pairs: list[tuple[int, int]]) -> Floats:
    """(R, 3, 3), (R, 3) -> (R,): what is shown, mean over the pairs; NaN where a stance has no text."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = sums / counts[..., None]
    each = [0.5 * (rows[:, b, b] - rows[:, a, b] + rows[:, a, a] - rows[:, b, a]) for a, b in pairs]
    mean: Floats = np.mean(each, axis=0)
    return mean


def undone(drift: float, shown: Estimate) -> Estimate:
    """The true drift that a measured one stands for, and its range by that of what is shown; NaN where too uncertain.

    >>> str(undone(0.13, Estimate(0.5, 0.4, 0.65)))
    '0.260 [0.200, 0.325]'
    """
    if not shown.low > _LEAST:
        return Estimate(math.nan, math.nan, math.nan)
    return Estimate(*(min(drift / share, 1.0) for share in (shown.value, shown.high, shown.low)))


_LEAST = 0.1  # of which less is shown for all that is known: divided by it, anything could be meant
