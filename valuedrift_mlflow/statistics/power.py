"""What a design can find, told before anything is measured: by simulating it.

Stance logits are normal: a mean (answers of 30 % support, 50 % neutral, 20 % oppose), an effect of the proposition with
standard deviation 1 and one of the prompt with 0.5, which makes the answers to a proposition correlate by 0.2, at the
lower end of what real models show. A drift adds to the logit of support, so propositions move by different amounts.
Where propositions differ more, less is found than is told here; what was measured says so then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.family import Joined, adjusted
from valuedrift_mlflow.statistics.flips import flipped
from valuedrift_mlflow.statistics.units import FEW_UNITS, Interval, change_error, members, prompt_means
from valuedrift_mlflow.statistics.verdicts import minimum_detectable

Floats = NDArray[np.float64]

MIX = (0.3, 0.5, 0.2)
PROPOSITION, PROMPT = 1.0, 0.5  # standard deviations of logits
SIMULATED = 60  # topics for each size of drift
FLIPS = 1000
LARGEST = 8.0  # shift of a logit: hardly any answer is left where it was


@dataclass(frozen=True)
class Design:
    """How a stage is measured.

    Attributes:
        topics: number of topics.
        propositions: of a topic.
        prompts: of a proposition.
        samples: of a prompt.
        checkpoints: after the first one.
        interval: what the tests speak of.
    """

    topics: int
    propositions: int
    prompts: int
    samples: int
    checkpoints: int = 1
    interval: Interval = "propositions"

    @property
    def units(self) -> NDArray[np.int64]:
        """(n,) the unit of each prompt of a topic that is flipped."""
        each = self.prompts if self.interval == "propositions" else 1
        return np.arange(self.propositions * self.prompts) // each


def announced(design: Design, *, alpha: float = 0.05, seed: int = 0) -> float:
    """The least drift of one topic that gets a star in 80 % of stages of this design; NaN where none does.

    A drift and the error with which it is measured go together, so it is found by halving: the drift at which
    `minimum_detectable` of simulated topics that drift so far is just that drift.
    """
    if len(np.unique(design.units)) < FEW_UNITS:
        return float("nan")
    critical = float(np.mean([_critical(design, alpha, np.random.default_rng([seed, k])) for k in range(3)]))
    low, high = 0.0, LARGEST
    for _ in range(10):
        middle = (low + high) / 2
        drift, least = _found(design, middle, critical, np.random.default_rng(seed))
        low, high = (low, middle) if drift >= least else (middle, high)
    drift, least = _found(design, high, critical, np.random.default_rng(seed))
    return drift if drift >= least else float("nan")


def _critical(design: Design, alpha: float, rng: np.random.Generator) -> float:
    """The largest u of the family by chance, in a stage in which nothing moved."""
    member = members(design.units)
    parts = []
    for _ in range(design.topics):
        means = prompt_means(simulated_answers(design, np.zeros(design.checkpoints + 1), rng)[0])
        parts.append(flipped(means - means[:1], member, FLIPS, rng))
    tests = Joined(kept=0)
    tests.join(parts, FLIPS, rng)
    return adjusted(tests, alpha).critical


def _found(design: Design, shift: float, critical: float, rng: np.random.Generator) -> tuple[float, float]:
    """The drift of topics whose logits are shifted so, and the least drift that topics of such errors show."""
    two = replace(design, checkpoints=1)
    drifts, least = [], []
    for _ in range(SIMULATED):
        answers, chances = simulated_answers(two, np.array([0.0, shift]), rng)
        drifts.append(float(0.5 * np.abs((chances[1] - chances[0]).mean(axis=0)).sum()))
        shown = float(minimum_detectable(change_error(answers, design.units, "propositions"), critical)[1])
        least.append(shown if np.isfinite(shown) else np.inf)
    return float(np.mean(drifts)), float(np.median(least))


def simulated_answers(design: Design, shifts: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """(C,) -> (C, n, S, 3) hard answers of a topic, and (C, n, 3) the probabilities that they were drawn from."""
    effects = np.repeat(rng.standard_normal((design.propositions, 3)), design.prompts, axis=0) * PROPOSITION
    logits = np.log(np.array(MIX)) + effects + PROMPT * rng.standard_normal(effects.shape)
    stage = np.repeat(logits[None], len(shifts), axis=0)
    stage[..., 0] += shifts[:, None]
    chances = np.exp(stage) / np.exp(stage).sum(axis=-1, keepdims=True)
    drawn = rng.random((*chances.shape[:2], design.samples, 1))
    stance = (drawn > chances.cumsum(axis=-1)[:, :, None, :2]).sum(axis=-1)
    return np.eye(3)[stance], chances
