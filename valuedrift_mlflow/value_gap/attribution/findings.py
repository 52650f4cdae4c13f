"""What influences say: which rows come first, how much of the change they explain, how concentrated it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.value_gap.attribution.influence import Influences
from valuedrift_mlflow.value_gap.attribution.quantities import AXIS

Floats = NDArray[np.float64]
TOP = (0.01, 0.05)  # shares of the rows whose part of the change is told


@dataclass(frozen=True)
class Found:
    """What moved one quantity, in nats of log-odds.

    Attributes:
        name: of the quantity.
        change: its measured change over the stage.
        predicted: the sum of all influences: the change to first order.
        explained: by share of the rows (``TOP``), the part of the measured change that the rows with the most influence
            in its direction come to. First-order: it may lie outside of [0, 1]. NaN where nothing changed.
        concentration: Gini coefficient of the rows' absolute influences, 0 (all alike) to 1 (a single row).
    """

    name: str
    change: float
    predicted: float
    explained: dict[float, float]
    concentration: float

    @property
    def direction(self) -> str:
        """Whereto it moved."""
        return towards(self.name, self.change)


def towards(name: str, change: float) -> str:
    """What a change of a quantity is one towards."""
    ends = ("- end", "+ end") if name.startswith(AXIS) else ("oppose", "support")
    return ends[int(change > 0)]


def found(name: str, scores: Floats, change: float) -> Found:
    """What the influences of N rows on one quantity say, of shape (N,); ``change`` is its measured change."""
    pulled = np.sort(scores * np.sign(change or 1.0))[::-1]
    part = {share: float(pulled[: top_rows(len(pulled), share)].sum() / abs(change or math.nan)) for share in TOP}
    return Found(name, change, float(scores.sum()), part, gini(np.abs(scores)))


def top_rows(rows: int, share: float) -> int:
    """How many rows a share of them is, at least one."""
    return max(1, round(share * rows))


def gini(values: Floats) -> float:
    """The Gini coefficient of values of at least 0: 0 where all are alike, 1 - 1/N where one has everything.

    >>> gini(np.array([1.0, 1.0])), gini(np.array([0.0, 0.0, 0.0, 5.0]))
    (0.0, 0.75)
    """
    ordered, count = np.sort(values), len(values)
    total = float(ordered.sum())
    if not total:
        return 0.0
    ranks = np.arange(1, count + 1)
    return float((2 * ranks - count - 1) @ ordered / (count * total))


def pull(influences: Influences, changes: Sequence[float]) -> Floats:
    """How far each row moved all quantities along their measured changes together, shape (N,), in nats."""
    pulled: Floats = influences.scores.sum(2) @ np.sign(np.asarray(changes))
    return pulled


def dropped(pulled: Floats, share: float | None, bound: float | None) -> NDArray[np.int64]:
    """The rows to leave out, the strongest first: a share of all, or those whose pull is above a bound.

    No row is left out that pulled against the change.
    """
    order = np.argsort(-pulled, kind="stable")
    above = order[pulled[order] > (0.0 if bound is None else bound)]
    return above if share is None else above[: top_rows(len(pulled), share)]
