"""TRL's trainers of GRPO and RLOO, which go on where they stopped and read a response as it was sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from trl import GRPOTrainer, RLOOTrainer

from valuedrift_mlflow.models.generation import takes_positions
from valuedrift_mlflow.stages.prompt_order import PromptSampler

if TYPE_CHECKING:
    from transformers import TrainerState
    from trl import GRPOConfig, RLOOConfig


class ResumableGroups:
    """A mixin for TRL's two trainers: a resumed training sees the prompts in the order of an uninterrupted one.

    And padding takes no positions. TRL pads prompts on the left and passes no position ids; a model with learned
    positions (GPT-2, GPT-Neo) would then read other log-probabilities than those it sampled with, by the longest prompt
    of the batch.
    """

    accelerator: Any
    args: GRPOConfig | RLOOConfig
    num_generations: int
    state: TrainerState
    train_dataset: Sized

    def _get_train_sampler(self, dataset: Sized | None = None) -> PromptSampler:
        args = self.args
        return PromptSampler(
            self.train_dataset if dataset is None else dataset,
            responses=self.num_generations,
            batch_size=args.generation_batch_size // self.num_generations,
            repeats=args.steps_per_generation,
            updates=args.steps_per_generation // args.gradient_accumulation_steps,
            seed=args.seed,
            step=lambda: self.state.global_step,
        )

    def _get_per_token_logps_and_entropies(
        self, model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        with own_positions(self.accelerator.unwrap_model(model), attention_mask):
            per_token: Any = super()  # TRL's method, of either trainer
            return per_token._get_per_token_logps_and_entropies(model, input_ids, attention_mask, *args, **kwargs)


@contextmanager
def own_positions(model: nn.Module, attention: torch.Tensor) -> Iterator[None]:
    """Let a model count positions from its rows' first tokens, in the forward passes within.

    Args:
        model: one that takes no position ids is left alone.
        attention: 1 at tokens, 0 at padding, shape (n, L); the passes take its rows in order, some at a time.
    """
    if not takes_positions(model):
        yield
        return
    # Padding on the left takes no positions; there the sum is 0, and -1 is none.
    positions = (attention.cumsum(dim=1) - 1).clamp(min=0)
    row = 0

    def add(
        _: nn.Module, args: tuple[object, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[object, ...], dict[str, Any]]:
        nonlocal row
        count = len(kwargs["input_ids"])
        kwargs["position_ids"], row = positions[row : row + count], row + count
        return args, kwargs

    # On the outermost: PEFT calls the forward of what it wraps, past its hooks.
    hook = model.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


class ResumableGRPOTrainer(ResumableGroups, GRPOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer, which goes on where it stopped."""


class ResumableRLOOTrainer(ResumableGroups, RLOOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer, which goes on where it stopped."""
