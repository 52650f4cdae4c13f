"""All figures of a stage as one family of tests, which grows checkpoint by checkpoint.

The adjusted p of a figure is the share of flips in which the largest of the family is at least as large (max-T),
stepping down from the largest one (Westfall and Young 1993, algorithm 2.8): it keeps the family-wise error, and uses
that checkpoints and stances go together. What a figure is, and a flip, tells `flips`.

A training tells of its newest checkpoint as it goes, tested with all before it. What these are under the flips does not
change any more, so it is kept (`Joined`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.statistics.flips import ROUNDING, Flipped
from valuedrift_mlflow.statistics.unscored import Hidden, share_tests

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Integers = NDArray[np.int64]

KEPT = 2**24  # figures under flips that are kept ready: 64 MB
_SINGLE = 1e-6  # relative: figures under flips are kept in single precision, in which this is noise


class Joined:
    """What has been tested in a stage so far: every checkpoint once, against the first.

    Attributes:
        figures: C of (T, 3) u as observed; of the first checkpoint 0, or NaN where it cannot be tested.
        unscored: C of (T,) p that a topic's share of unscored answers has not changed; see `unscored.share_tests`.
        unscored_everywhere: C of p that the stage's share has not.
    """

    def __init__(self, kept: int = KEPT) -> None:
        """Of a stage that begins. ``kept`` is how many figures under flips may be kept ready for the next time."""
        self.figures: list[Floats] = []
        self.unscored: list[Floats] = []
        self.unscored_everywhere: list[float] = []
        self._kept = kept
        self._turned: list[Sequence[Singles]] = []  # C of T of (3, R): under joint flips, or under the topic's own
        self._rows: list[Integers] = []  # T of (R,): which of a topic's flips goes with each joint one
        self._ready: list[bool] = []  # C: whether they are those under joint flips

    def __len__(self) -> int:
        return len(self.figures)

    def join(self, topics: Sequence[Flipped], flips: int, rng: np.random.Generator) -> None:
        """Add the checkpoints that T topics were turned round at; the first of them is the stage's, and known later on.

        Args:
            topics: T topics, of the stage's first checkpoint and further ones.
            flips: R joint flips. A topic whose flips were all looked at gives one of them at random to each.
            rng: draws them; alike each time.

        Raises:
            InputError: what is known is of other topics or of another number of flips.
        """
        if self.figures and (len(topics), flips) != (len(self._rows), len(self._rows[0])):
            found = f"{len(self._rows)} topics, {len(self._rows[0])} flips"
            raise InputError(problem("earlier", found, f"those of the same stage: {len(topics)} topics, {flips} flips"))
        # Rows of a topic's table: one flip is the same for all checkpoints and stances.
        self._rows = [
            rng.integers(len(t.table), size=flips) if t.exact else np.arange(flips) % len(t.table) for t in topics
        ]
        known = min(len(self), 1)
        figures = np.stack([t.figure[known:] for t in topics], axis=1)  # (C, T, 3)
        singles = [t.table[:, 3 * known :].T.astype(np.float32, order="C").reshape(len(figures), 3, -1) for t in topics]
        for checkpoint, figure in enumerate(figures):
            self.figures.append(figure)
            own = [table[checkpoint] for table in singles]
            ready = self._kept >= len(topics) * 3 * flips
            if ready:
                own = [table.take(rows, axis=1) for table, rows in zip(own, self._rows, strict=True)]
                self._kept -= len(topics) * 3 * flips
            self._turned.append(own)
            self._ready.append(ready)

    def join_unscored(self, topics: Sequence[Hidden]) -> None:
        """Add the tests of their shares of unscored answers, in the same manner."""
        own, everywhere = share_tests(topics)
        start = min(len(self.unscored), 1)
        self.unscored.extend(own[start:])
        self.unscored_everywhere.extend(everywhere[start:].tolist())

    def turned(self, checkpoint: int, topic: int, stance: int) -> Singles:
        """(R,) a figure under the joint flips."""
        own: Singles = self._turned[checkpoint][topic][stance]
        return own if self._ready[checkpoint] else own.take(self._rows[topic])


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """All figures of a stage as one family.

    Attributes:
        p_value: (C, T, 3) adjusted p values, NaN where a figure was not tested.
        critical: the largest u of the family that has probability ``alpha`` where nothing changed; NaN where nothing
            was tested.
        cutoff: (C, T, 3) the u that a figure had to reach for its p to be at most alpha; NaN where it was not tested.
            It falls from the largest figure, where it is ``critical``, as the test steps down.
    """

    p_value: Floats
    critical: float
    cutoff: Floats


def adjusted(tests: Joined, alpha: float, told: Integers | None = None) -> Family:
    """Step-down max-T over all checkpoints, topics and stances of a stage.

    Args:
        tests: of C checkpoints.
        alpha: level of the critical values.
        told: the checkpoints that the family is told of, all where they are not given; all are in it.
    """
    observed = np.stack(tests.figures)  # (C, T, 3)
    told = np.arange(len(observed)) if told is None else told
    # The first checkpoint, or any equal to it, has nothing that could be turned round: p 1, in no family.
    tested = np.isfinite(observed) & (observed > ROUNDING)
    p_value = np.where(np.isfinite(observed), 1.0, np.nan)
    cutoff = np.full(observed.shape, np.nan)
    if not tested.any():
        return Family(p_value[told], math.nan, cutoff[told])
    # (F,) each, from the least figure to the largest.
    topic, checkpoint, stance = np.argwhere(tested.swapaxes(0, 1)).T
    order = np.argsort(observed[checkpoint, topic, stance], kind="stable")
    at = checkpoint[order], topic[order], stance[order]
    rising = observed[at]
    reached = (rising - _SINGLE * np.maximum(rising, 1.0)).tolist()
    # To find a cut-off takes longer than to count: it is found where it is told, and of the largest.
    wanted = np.isin(at[0], told)
    wanted[-1] = True
    least = int(np.argmax(wanted))  # below it nothing is told
    counts, cut = np.zeros(len(rising), dtype=np.int64), np.full(len(rising), np.nan)
    largest: Singles | None = None  # of all figures not above this one; by one figure at a time it stays in the cache
    for number, (c, t, s) in enumerate(zip(*(part.tolist() for part in at), strict=True)):
        turned = tests.turned(c, t, s)
        largest = turned.copy() if largest is None else np.maximum(largest, turned, out=largest)
        if number >= least:
            counts[number] = np.count_nonzero(largest >= reached[number])
        if wanted[number]:
            place = math.ceil((1 - alpha) * (len(largest) - 1))
            cut[number] = np.partition(largest, place)[place]
    assert largest is not None
    # No figure is surer than a larger one.
    stepped = (1 + counts[least:]) / (1 + len(largest))
    p_value[tuple(part[least:] for part in at)] = np.maximum.accumulate(stepped[::-1])[::-1]
    cutoff[at] = cut
    return Family(p_value[told], float(cut[-1]), cutoff[told])
