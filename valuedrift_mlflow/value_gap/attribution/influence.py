"""The influence of every row on every quantity: rate x (gradient of the row's loss) . (gradient of the quantity).

With i a row, q a quantity, p a point of the training (its start or a checkpoint) and theta_p the weights there:

    influence(i, q) = - sum over p of w(i, p) * < D(g), grad q(theta_p) >,    g = grad loss_i(theta_p)

w(i, p) is what the rates of the row's own steps near p come to (``exposure``), with what clipping left of the gradient
and the row's share of its batch. This is TracIn (Pruthi et al. 2020, eq. 1) on the steps that the row was in, where
SGD has D(g) = g. For Adam it is LESS's (Xia et al. 2024, section 3.1):

    D(g) = g / (sqrt(v + c * (s * g)^2) + eps)

with v Adam's second moment at p, estimated from steps of the training near it, and c the weight that a step's own
square has in it: v need not have seen a token that this row alone has. s is the row's share of its step. Where v is
large beside a single row's square, influences add up to the first-order change of q. Positive moves towards support
(or the + end of an axis).

``cosine`` divides each inner product by the norms of D(g) and of grad q, as LESS does to weigh long and short answers
alike. It ranks; such influences add up to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.value_gap.attribution.exposure import Exposure, Optimizer
from valuedrift_mlflow.value_gap.attribution.gradients import RowGradients
from valuedrift_mlflow.value_gap.attribution.quantities import Measure, Quantity
from valuedrift_mlflow.value_gap.attribution.sketch import Sketch

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]
Progress = Callable[[int], None]
_FEWEST, _MOST = 4, 16  # steps of the training whose gradients tell Adam's second moment near a point


@dataclass(frozen=True)
class Influences:
    """Influences in nats of log-odds.

    Attributes:
        scores: shape (N, Q, P), of each row, quantity and point.
        values: the quantities at the points, shape (P, Q).
        points: the steps of the points.
        order_error: largest difference between a step's loss as it was logged and as it is had again; NaN unknown.
    """

    scores: Floats
    values: Floats
    points: tuple[int, ...]
    order_error: float


@dataclass(frozen=True)
class Clipped:
    """What the run says of its steps: the loss of each (by its number, from 1), and at which norm it clips."""

    losses: Mapping[int, float]
    longest: float


class SecondMoment:
    """Adam's v at each point in turn, from the squared gradients of steps near it (Kingma and Ba 2015, algorithm 1)."""

    def __init__(self, decay: float) -> None:
        """Nothing has been seen yet."""
        self._decay, self._weight, self._step = decay, 0.0, 0
        self._sum: list[torch.Tensor] = []
        self._last: list[torch.Tensor] = []

    def at(self, step: int, squares: list[torch.Tensor]) -> list[torch.Tensor]:
        """What v is at a step, bias-corrected, with mean squared gradients ``squares`` there; steps come in order."""
        if not self._sum:
            self._sum, self._last, self._step = [0 * one for one in squares], squares, step
            return squares
        kept = self._decay ** (step - self._step)
        self._weight = kept * self._weight + 1 - kept
        for total, before, now in zip(self._sum, self._last, squares, strict=True):
            total.mul_(kept).add_((before + now) / 2, alpha=1 - kept)
        self._last, self._step = squares, step
        return [total / self._weight for total in self._sum]


@dataclass
class Attribution:
    """What all points have in common: rows, quantities, and how the optimizer and the projection treat gradients."""

    rows: RowGradients
    measure: Measure
    quantities: Sequence[Quantity]
    exposed: Exposure
    optimizer: Optimizer
    clipped: Clipped
    sketch: Sketch | None = None
    cosine: bool = False

    def run(self, points: Iterator[int], progress: Progress) -> Influences:
        """Influences over the points; asking ``points`` for the next one puts its weights in place.

        ``progress`` is told how many rows were done.
        """
        scores: list[Floats] = []
        values: list[list[float]] = []
        steps: list[int] = []
        errors: list[float] = []
        moment = None if self.optimizer.decay is None else SecondMoment(self.optimizer.decay)
        with self.rows.evaluating():
            for number, step in enumerate(points):
                adam = None
                if moment is not None:
                    squares, error = self._squares(step)
                    errors.append(error)
                    adam = Scaling(moment.at(step, squares), self.optimizer.newest(step), self.optimizer.epsilon)
                value, directions = self._directions(step)
                values.append(value)
                steps.append(step)
                scores.append(self._point(number, directions, adam, progress))
        known = [error for error in errors if not np.isnan(error)]
        return Influences(np.stack(scores, 2), np.array(values), tuple(steps), max(known, default=float("nan")))

    def _squares(self, step: int) -> tuple[list[torch.Tensor], float]:
        """Mean squared gradients of steps near a point, clipped; how far the next step's loss is from its log."""
        steps = max(self.exposed.step_of) + 1
        many = min(_MOST, max(_FEWEST, steps // (2 * self.exposed.weights.shape[1])))
        first = min(max(0, step - many // 2), max(0, steps - many))
        near = sorted({min(step, steps - 1), *range(first, min(first + many, steps))})
        squares, error = [weight.new_zeros(weight.numel()) for weight in self.rows.weights], float("nan")
        for one in near:
            loss = self.rows.of_step(self.exposed.batches_of(one))
            if one == step and one + 1 in self.clipped.losses:
                error = abs(loss - self.clipped.losses[one + 1])
            gradient = list(self.rows.flat())
            norm = float(sum(float(part.square().sum()) for part in gradient)) ** 0.5
            left = min(1.0, self.clipped.longest / (norm + 1e-6)) if self.clipped.longest else 1.0
            for total, part in zip(squares, gradient, strict=True):
                total.add_((part * left).square(), alpha=1 / len(near))
        return squares, error

    def _directions(self, step: int) -> tuple[list[float], list[torch.Tensor]]:
        """The quantities' values, and their gradients: (Q, n) a tensor, or (Q, K) once where they are projected."""
        import torch

        values: list[float] = []
        found: list[list[torch.Tensor]] = []
        for quantity in self.quantities:
            self.rows.clear()
            values.append(self.measure.backward(self.rows.model, quantity, step))
            # Copied: the next quantity's gradient takes their place.
            parts = [part.float().clone() for part in self.rows.flat()]
            found.append(parts if self.sketch is None else [self.sketch(parts)])
        return values, [torch.stack(same) for same in zip(*found, strict=True)]

    def _point(self, number: int, directions: list[torch.Tensor], adam: Scaling | None, progress: Progress) -> Floats:
        """The influences of all rows at a point, shape (N, Q)."""
        import torch

        weights, lengths = self.exposed.weights[:, number], _lengths(directions)
        scores = np.zeros((len(weights), len(self.quantities)))
        for row in np.flatnonzero(weights).tolist():
            self.rows.of_row(row)
            with torch.no_grad():
                moved = (part.float() for part in self.rows.flat())
                parts = list(moved if adam is None else adam(moved, float(self.exposed.shares[row])))
                parts = parts if self.sketch is None else [self.sketch(parts)]
                inner = torch.stack([u @ g for u, g in zip(directions, parts, strict=True)]).double().sum(0)
                if self.cosine:
                    inner = inner / (lengths * _lengths([part[None] for part in parts])).clamp(min=1e-30)
            scores[row] = -weights[row] * inner.cpu().numpy()
            progress(1)
        return scores


@dataclass(frozen=True)
class Scaling:
    """What Adam makes of the gradient of a row.

    Attributes:
        moment: v, tensor by tensor, flat.
        newest: the weight of a step's own square in v.
        epsilon: Adam's.
    """

    moment: Sequence[torch.Tensor]
    newest: float
    epsilon: float

    def __call__(self, gradient: Iterator[torch.Tensor], share: float) -> Iterator[torch.Tensor]:
        """D(g), tensor by tensor, of a row that has this share of its step."""
        for part, moment in zip(gradient, self.moment, strict=True):
            below = moment.addcmul(part, part, value=self.newest * share * share).sqrt_().add_(self.epsilon)
            yield part / below


def _lengths(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Norms of Q gradients that are given tensor by tensor, each (Q, n): shape (Q,)."""
    import torch

    squares = torch.stack([part.double().square().sum(1) for part in parts])
    return squares.sum(0).sqrt()
