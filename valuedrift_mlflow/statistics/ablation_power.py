"""What an ablation can find, told before anything is trained: by simulating its cells.

Answers come about as in `power`: stance logits with effects of propositions and prompts. Every training adds to the
logit of support. Seeds differ in how much they add: by a tenth of it and by 0.05 (standard deviation), which is about
what the embedded world shows. Where seeds differ more, less is found; what was measured says so then.
"""

from __future__ import annotations

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
SIMULATED = 24  # ablations
MODERATE = 1.2  # added to a logit: a drift of about 0.2


@dataclass(frozen=True)
class Detectable:
    """The least differences of drift above noise that are found with 80 % power; NaN where none is.

    Attributes:
        difference: between two cells that drift by about 0.2.
        rise: from no drift at the smallest dose to the largest one; NaN of fewer than two doses.
    """

    difference: float
    rise: float


def announced(
    design: Design, seeds: int, doses: int, *, tests: int = 1, alpha: float = ALPHA, seed: int = 0
) -> Detectable:
    """What cells of this many seeds can show.

    Args:
        design: how each cell is measured.
        seeds: of each cell.
        doses: of each series.
        tests: how many share ``alpha``.
        alpha: level of the family.
        seed: fixes the simulation.
    """
    rng = np.random.default_rng(seed)
    differences, rises = [], []
    for _ in range(SIMULATED):
        pair = simulated(design, np.full(2, MODERATE), seeds, rng)
        differences.append(compare(*pair, alpha=alpha, tests=tests).detectable)
        if doses > 1:
            line = simulated(design, np.linspace(0, MODERATE, doses), seeds, rng)
            rises.append(trend(line, np.full((seeds, doses), np.nan), alpha=alpha, tests=tests).detectable)
    return Detectable(_middle(differences), _middle(rises))


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


def _middle(values: list[float]) -> float:
    """The median, where what is never found counts as largest; NaN where half is never found."""
    middle = float(np.median(np.where(np.isnan(values), np.inf, values))) if values else np.inf
    return middle if np.isfinite(middle) else float("nan")
