"""What an ablation can find, told before anything is trained: by simulating its cells.

Answers come about as in `power`: stance logits with effects of propositions and prompts. Every training adds to the
logit of support. Seeds differ in how much they add: by a tenth of it and by 0.05 (standard deviation), which is about
what the embedded world shows. Where seeds differ more, less is found; what was measured says so then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.intervals import ALPHA
from valuedrift_mlflow.statistics.paired import Changes, changes, compare
from valuedrift_mlflow.statistics.power import Design, simulated_answers
from valuedrift_mlflow.statistics.trends import trend
from valuedrift_mlflow.statistics.units import prompt_means

Floats = NDArray[np.float64]

SEEDS_RELATIVE, SEEDS = 0.1, 0.05  # standard deviations over seeds of what is added to a logit
SIMULATED = 24  # ablations of each size of effect
ROUNDS = 4  # of looking for the effect that is just found
MODERATE = 1.2  # added to a logit: a drift of about 0.2
LARGEST = 8.0  # hardly any answer is left where it was


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


def announced(
    design: Design, seeds: int, doses: int, *, tests: int = 1, alpha: float = ALPHA, seed: int = 0
) -> Detectable:
    """What cells of this many seeds can show.

    An effect and the error with which it is measured go together: what is detectable beside an effect is computed, the
    effect is moved there, and so on, until the two are the same.

    Args:
        design: how each cell is measured.
        seeds: of each cell.
        doses: of each series.
        tests: how many share ``alpha``.
        alpha: level of the family.
        seed: fixes the simulation.
    """

    def pair(further: float, rng: np.random.Generator) -> tuple[float, float]:
        found = compare(
            *simulated(design, np.array([MODERATE + further, MODERATE]), seeds, rng), alpha=alpha, tests=tests
        )
        return found.difference.value, found.detectable

    def line(largest: float, rng: np.random.Generator) -> tuple[float, float]:
        cells = simulated(design, np.linspace(0, largest, doses), seeds, rng)
        found = trend(cells, np.full((seeds, doses), np.nan), alpha=alpha, tests=tests)
        return found.ends.difference.value, found.detectable

    difference, further = _balanced(pair, seed)
    rise, largest = _balanced(line, seed) if doses > 1 else (np.nan, np.nan)
    return Detectable(difference, rise, further, largest)


def _balanced(measured: Callable[[float, np.random.Generator], tuple[float, float]], seed: int) -> tuple[float, float]:
    """The effect that is just detectable, and the addition to a logit that has it; NaN where none is."""
    added = MODERATE / 2
    for _ in range(ROUNDS):
        rng = np.random.default_rng(seed)  # the same draws for every size: only the size differs
        effects, least = np.array([measured(added, rng) for _ in range(SIMULATED)]).T
        # Where half of the ablations would find no size at all, nothing is detectable.
        needed = float(np.median(np.where(np.isnan(least), np.inf, least)))
        effect = max(float(np.median(effects)), 1e-3)
        if not np.isfinite(needed) or added >= LARGEST:
            return float("nan"), float("nan")
        added = min(added * min(max(needed / effect, 0.25), 4.0), LARGEST)
    return needed, added


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
