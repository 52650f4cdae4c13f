"""The gradient of a single row's own loss, by the trainer that trained on it.

The loss is asked of the trainer itself (``compute_loss``), one row at a time: it is the loss that was trained, variant,
reference and all, and no row's result depends on what shares a batch with it. Dropout is off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class RowGradients:
    """Gradients of a trainer's rows with respect to the weights that it trains."""

    def __init__(self, trainer: Any) -> None:  # TRL's trainers have no types
        """``trainer`` is ready to train; its model's weights may be replaced between calls."""
        self._trainer = trainer
        self.model = trainer.model
        self.weights: list[torch.nn.Parameter] = [one for one in self.model.parameters() if one.requires_grad]

    @property
    def sizes(self) -> list[int]:
        """Numbers in each trained tensor."""
        return [weight.numel() for weight in self.weights]

    def __len__(self) -> int:
        return len(self._trainer.train_dataset)

    def tokens(self, row: int) -> float | None:
        """Trained tokens of a row; None where the loss is no mean over tokens."""
        _, count = self._counted([row])
        return None if count is None else float(count)

    def of_row(self, row: int) -> float:
        """Leave the gradient of a row's loss in ``grad`` of the weights, and give the loss.

        The loss is the sum over the row's tokens where a step's loss is a mean over tokens.
        """
        batch, count = self._counted([row])
        loss = self._loss(batch, None if count is None else 1)
        self._clear()
        loss.backward()
        return float(loss.detach())

    def of_step(self, batches: Sequence[Sequence[int]]) -> float:
        """Leave the gradient of a whole step in ``grad``, before clipping, and give the step's loss."""
        self._clear()
        counted = [self._counted(batch) for batch in batches]
        tokens = sum(float(count) for _, count in counted if count is not None)
        total = 0.0
        for batch, count in counted:
            loss = self._loss(batch, None if count is None else max(tokens, 1.0))
            loss = loss if count is not None else loss / len(batches)
            loss.backward()
            total += float(loss.detach())
        return total

    def flat(self) -> Iterator[torch.Tensor]:
        """The gradients that were left, tensor by tensor, flat."""
        for weight in self.weights:
            yield weight.new_zeros(weight.numel()) if weight.grad is None else weight.grad.detach().reshape(-1)

    def clear(self) -> None:
        """Forget the gradients."""
        self._clear()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Without dropout; the model is left as it was."""
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self._clear()
            self.model.train(training)

    def _clear(self) -> None:
        for weight in self.weights:
            weight.grad = None

    def _counted(self, rows: Sequence[int]) -> tuple[dict[str, Any], Any]:
        """A collated batch, and by how many tokens the trainer divides its loss (None: it takes a mean over rows)."""
        collated = self._trainer.data_collator([self._trainer.train_dataset[row] for row in rows])
        # The trainer's own counting: it knows whether its loss is one over tokens.
        [batch], count = self._trainer.get_batch_samples(iter([collated]), 1, self._trainer.args.device)
        return batch, count

    def _loss(self, batch: dict[str, Any], count: float | None) -> torch.Tensor:
        import torch

        inputs = self._trainer._prepare_inputs(batch)
        divided = None if count is None else torch.tensor(float(count), device=self._trainer.args.device)
        loss: torch.Tensor = self._trainer.compute_loss(self.model, inputs, num_items_in_batch=divided)
        self._forget_metrics()
        return loss

    def _forget_metrics(self) -> None:
        # TRL keeps numbers of every call for a log that nobody writes here.
        for name in ("_metrics", "_stored_metrics"):
            kept = getattr(self._trainer, name, None)
            for numbers in kept.values() if isinstance(kept, dict) else ():
                numbers.clear()
