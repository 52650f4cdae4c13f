"""What an ablation can find, told before anything is trained: by simulating its cells.

Answers come about as in `power`: stance logits with effects of propositions and prompts. Every training adds to the
logit of support. Seeds differ in how much they add: by a tenth of it and by 0.05 (standard deviation), which is about
what the embedded world shows. Where seeds differ more, less is found; what was measured says so then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.crossed import Crossed
from valuedrift_mlflow.statistics.intervals import ALPHA
from valuedrift_mlflow.statistics.paired import Changes, Contributions, changes, contributions, root
from valuedrift_mlflow.statistics.power import Design, simulated_answers
from valuedrift_mlflow.statistics.trends import linear
from valuedrift_mlflow.statistics.units import prompt_means
from valuedrift_mlflow.statistics.verdicts import POWER

Floats = NDArray[np.float64]

SEEDS_RELATIVE, SEEDS = 0.1, 0.05  # standard deviations over seeds of what is added to a logit
SIMULATED = 60  # ablations of each size of effect
HALVINGS = 4  # of the range in which the effect lies that is found in 80 % of them
MODERATE = 1.2  # added to a logit: a drift of about 0.2
SMALLEST, LARGEST = 0.1, 7.0  # of what is looked at; beyond the second hardly any answer is left where it was


@dataclass(frozen=True)
class Detectable:
    """The least differences of drift above noise that are found with 80 % power; NaN where none is.

    Attributes:
        difference: of a cell from one that drifts by about 0.2.
        rise: from no drift at the smallest dose to the largest one; NaN of fewer than two doses.
        further: what is added to a logit, beyond `MODERATE`, for that difference.
        largest: what is added to a logit at the largest dose, for that rise.
    """

    difference: float
    rise: float
    further: float
    largest: float


@cache
def announced(
    design: Design, seeds: int, doses: int, *, tests: int = 1, alpha: float = ALPHA, seed: int = 0
) -> Detectable:
    """What cells of this many seeds can show.

    Ablations of rising effects are simulated and tested, until 80 % of them are significant at ``alpha / tests``.

    Args:
        design: how each cell is measured.
        seeds: of each cell.
        doses: of each series.
        tests: how many share ``alpha``.
        alpha: level of the family.
        seed: fixes the simulation.
    """

    def pair(further: float, rng: np.random.Generator) -> tuple[float, float]:
        both = contributions(simulated(design, np.array([MODERATE + further, MODERATE]), seeds, rng))
        return _tested(both, None if both is None else both.combined((1, -1)), 0)

    def line(largest: float, rng: np.random.Generator) -> tuple[float, float]:
        both = contributions(simulated(design, np.linspace(0, largest, doses), seeds, rng))
        return _tested(both, None if both is None else linear(both), -1)

    difference, further = _found(pair, alpha / tests, seed)
    rise, largest = _found(line, alpha / tests, seed) if doses > 1 else (np.nan, np.nan)
    return Detectable(difference, rise, further, largest)


def _tested(both: Contributions | None, found: Crossed | None, larger: int) -> tuple[float, float]:
    """The p value, and the drift of the larger cell less that of the other end."""
    if both is None or found is None:
        return np.nan, np.nan
    squares = both.squares.mean(axis=1)
    return found.p_value, root(squares[larger]) - root(squares[-1 - larger])


def _found(
    tested: Callable[[float, np.random.Generator], tuple[float, float]], level: float, seed: int
) -> tuple[float, float]:
    """The effect that is found in 80 % of ablations, and the addition to a logit that has it; NaN where none is."""

    def at(added: float) -> tuple[float, float]:
        rng = np.random.default_rng(seed)  # the same draws for every size: only the size differs
        p_values, effects = np.array([tested(added, rng) for _ in range(SIMULATED)]).T
        return float((p_values <= level).mean()), float(np.median(effects))

    low, high = 0.0, SMALLEST
    while at(high)[0] < POWER:
        low, high = high, 2 * high
        if high > LARGEST:
            return float("nan"), float("nan")
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle)[0] < POWER else (low, middle)
    return at(high)[1], high


def simulated(design: Design, shifts: Floats, seeds: int, rng: np.random.Generator) -> list[list[Changes]]:
    """The changes of C cells of S seeds that start from one model, measured once.

    Args:
        design: how each cell is measured; its checkpoints do not matter.
        shifts: (C,) what the trainings of a cell add to the logit of support.
        seeds: S.
        rng: draws them.
    """
    spread = SEEDS_RELATIVE * np.abs(shifts[:, None]) + np.where(shifts[:, None] == 0, 0.0, SEEDS)
    added = shifts[:, None] + spread * rng.standard_normal((len(shifts), seeds))
    design = replace(design, interval="propositions")
    stages = [
        prompt_means(simulated_answers(design, np.concatenate([[0.0], added.ravel()]), rng)[0])
        for _ in range(design.topics)
    ]
    means = np.concatenate(stages, axis=1)  # (1 + C S, N, 3)
    each = design.propositions * design.prompts
    topics = np.repeat(np.arange(design.topics), each)
    units = np.concatenate([design.units + t * design.propositions for t in range(design.topics)])
    runs = [changes(means[0], end, units, topics) for end in means[1:]]
    return [runs[start : start + seeds] for start in range(0, len(runs), seeds)]
