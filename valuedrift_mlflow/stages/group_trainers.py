"""TRL's trainers of GRPO and RLOO, which go on where they stopped."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING

from trl import GRPOTrainer, RLOOTrainer

from valuedrift_mlflow.stages.prompt_order import PromptSampler

if TYPE_CHECKING:
    from transformers import TrainerState
    from trl import GRPOConfig, RLOOConfig


class ResumableGroups:
    """A mixin for TRL's two trainers: a resumed training sees the prompts in the order of an uninterrupted one."""

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


class ResumableGRPOTrainer(ResumableGroups, GRPOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer, which goes on where it stopped."""


class ResumableRLOOTrainer(ResumableGroups, RLOOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer, which goes on where it stopped."""
