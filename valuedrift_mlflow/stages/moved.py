"""A training that cannot move its weights is refused before its first step, one that does not move them after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from valuedrift_mlflow.inputs.errors import InputError, problem


class MustMove(TrainerCallback):
    """Looks whether what should train can train, and whether it moved.

    Only a step says something whose learning rate and whose gradient are not zero (a warm-up starts at a rate of zero,
    a group of equal rewards has no gradient): the first such one must move a weight. What a process holds no part of
    is not looked at.
    """

    def __init__(self, stage: str) -> None:
        """``stage`` is named in the error."""
        self.stage = stage
        self._before: list[torch.Tensor] | None = None
        self._moved = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Raises InputError where no weight of the model is trainable."""
        if not _trainable(model):
            found = f"0 of {sum(1 for _ in model.parameters())} tensors can be trained"
            raise InputError(problem(f"{self.stage} model", found, "a model with weights that train", _MEND))

    # Here and not where a step begins or ends: gradients are
    # whole only now, and the Trainer has zeroed them at its end.
    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Remember the weights where this step must move them."""
        optimizer = kwargs.get("optimizer")
        rates = [group["lr"] for group in optimizer.param_groups] if optimizer is not None else [0.0]
        if self._moved or max(rates) == 0:
            return
        weights = _trainable(model)
        if any(weight.grad is not None and bool(weight.grad.any()) for weight in weights):
            self._before = [_trace(weight) for weight in weights]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Raises InputError where the step moved no weight."""
        if self._before is None:
            return
        pairs = zip(self._before, _trainable(model), strict=True)
        self._moved = any(not torch.equal(before, _trace(weight)) for before, weight in pairs)
        self._before = None
        if not self._moved:
            found = f"step {state.global_step} moved no weight"
            raise InputError(problem(f"{self.stage} model", found, "a step that moves weights", _SMALL))


_MEND = "give a model whose weights are not frozen, or adapters (lora.rank)"
_SMALL = "raise the learning rate, or train in 32 bits: smaller updates are rounded away"


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad and _local(weight).numel()]


def _local(weight: torch.Tensor) -> torch.Tensor:
    """The part of a split weight that this process holds."""
    part: torch.Tensor = weight.to_local() if hasattr(weight, "to_local") else weight
    return part.detach()


def _trace(weight: torch.Tensor) -> torch.Tensor:
    """What tells a weight from what it was without a copy of it: its sum and that of its squares, in 64 bits."""
    part = _local(weight).double()
    return torch.stack([part.sum(), part.square().sum()])
