"""Which row was in which step, and how far a gradient of that step moved the weights by the end.

Everything is as it was: the order of the rows is the sampler's of the trainer with its seed, rates and gradient norms
are those that the run has logged. Points are the steps whose weights are known: the start and the checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Optimizer:
    """What of an optimizer decides how a gradient moves the weights.

    Attributes:
        momentum: beta_1 of Adam, or SGD's momentum; 0 for none.
        decay: beta_2 of Adam; None where the step is not divided by the root of a second moment.
        epsilon: what Adam adds to that root.
    """

    momentum: float
    decay: float | None
    epsilon: float = 0.0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Optimizer | None:
        """From one of torch's groups of parameters; None for an optimizer of another kind than Adam and SGD."""
        if "betas" in settings and "eps" in settings:
            return cls(float(settings["betas"][0]), float(settings["betas"][1]), float(settings["eps"]))
        return cls(float(settings["momentum"]), None) if "momentum" in settings else None

    def newest(self, step: int) -> float:
        """The weight of a gradient's own square in Adam's bias-corrected second moment after so many steps before."""
        return 1.0 if self.decay is None else (1 - self.decay) / (1 - self.decay ** (step + 1))

    @property
    def plain(self) -> Optimizer:
        """The same without the division by the root of the second moment."""
        return Optimizer(self.momentum, None)


def lasting_rates(rates: Sequence[float] | Floats, optimizer: Optimizer) -> Floats:
    """How far a gradient of each step moves the weights by the end of the training, shape (T,).

    A gradient enters the momentum and goes on moving the weights with every later step s:

        Adam:  sum over s >= t of rate_s * (1 - b1) * b1^(s - t) / (1 - b1^s)      (Kingma and Ba 2015, algorithm 1)
        SGD:   sum over s >= t of rate_s * momentum^(s - t)
    """
    rate = np.asarray(rates, dtype=np.float64)
    kept = optimizer.momentum
    if optimizer.decay is not None:
        steps = np.arange(1, len(rate) + 1)
        rate = rate * (1 - kept) / (1 - kept**steps) if kept else rate
    lasting = np.zeros(len(rate) + 1)
    for t in range(len(rate) - 1, -1, -1):
        lasting[t] = rate[t] + kept * lasting[t + 1]
    return lasting[:-1]


def nearness(points: Sequence[int], steps: int) -> Floats:
    """How much each point stands for the weights that each step began with, shape (T, P), rows sum to 1.

    Step t (from 1) begins with the weights of t - 1, which lie linearly between the two points around it; outside of
    all points the nearest one stands for it.
    """
    begun = np.arange(steps)
    return np.stack([np.interp(begun, points, np.eye(len(points))[p]) for p in range(len(points))], axis=1)


@dataclass(frozen=True)
class Exposure:
    """How far each row's own gradient, taken at each point, has moved the weights by the end.

    Attributes:
        weights: shape (N, P), of the gradient of a row's loss as ``gradients.RowGradients`` gives it.
        seen: how often each row was trained on, shape (N,).
        shares: with what factor a row's gradient stood in that of its step, on average, shape (N,).
        batches: the rows of every batch, in the order of the training.
        step_of: the step (from 0) that each batch belongs to.
    """

    weights: Floats
    seen: NDArray[np.int64]
    shares: Floats
    batches: Sequence[Sequence[int]]
    step_of: Sequence[int]

    def batches_of(self, step: int) -> list[Sequence[int]]:
        """The batches of a step, counted from 0."""
        return [batch for batch, own in zip(self.batches, self.step_of, strict=True) if own == step]


def exposure(
    batches: Sequence[Sequence[int]],
    step_of: Sequence[int],
    lasting: Floats,
    clipped: Floats,
    near: Floats,
    rows: int,
    tokens: Floats | None,
) -> Exposure:
    """From the rows of every batch to the exposure of every row.

    Args:
        batches: rows of each batch.
        step_of: the step that each batch is of, from 0.
        lasting: how far a gradient of each step moves the weights, shape (T,).
        clipped: what clipping left of the gradient of each step, shape (T,), in [0, 1].
        near: see ``nearness``, shape (T, P).
        rows: how many rows there are, N.
        tokens: trained tokens of each row where a step's loss is a mean over its tokens; None where it is the mean over
            batches of the mean over rows.
    """
    weights, shares, seen = np.zeros((rows, near.shape[1])), np.zeros(rows), np.zeros(rows, dtype=np.int64)
    count = np.bincount(step_of, minlength=len(lasting))
    total = np.zeros(len(lasting))
    for batch, step in zip(batches, step_of, strict=True):
        total[step] += 0 if tokens is None else tokens[list(batch)].sum()
    for batch, step in zip(batches, step_of, strict=True):
        share = 1 / (len(batch) * count[step]) if tokens is None else 1 / max(total[step], 1)
        share *= clipped[step]
        # Not `weights[batch] +=`, which counts a row that comes twice only once.
        np.add.at(weights, list(batch), share * lasting[step] * near[step])
        np.add.at(shares, list(batch), share)
        np.add.at(seen, list(batch), 1)
    return Exposure(weights, seen, shares / np.maximum(seen, 1), batches, step_of)
