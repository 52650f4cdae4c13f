"""What GRPO and RLOO share: groups of responses sampled for each prompt, rated by the stage's reward."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from valuedrift_mlflow.prompt_sampler import PromptSampler
from valuedrift_mlflow.recipe import GRPO, RLOO
from valuedrift_mlflow.rewards import rate
from valuedrift_mlflow.stages import Job, common_arguments, lora_config
from valuedrift_mlflow.stages.lengths import fit
from valuedrift_mlflow.stages.start import start_folder

if TYPE_CHECKING:
    from transformers import TrainerState

Built = TypeVar("Built")


class ResumableGroups:
    """A mixin for TRL's two trainers: a resumed training sees the prompts in the order of an uninterrupted one."""

    args: Any
    num_generations: int
    state: TrainerState
    train_dataset: Any

    def _get_train_sampler(self, dataset: Any = None) -> PromptSampler:
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


def group_arguments(job: Job) -> dict[str, Any]:
    """The arguments of TRL's two trainers; one step is one update on freshly sampled responses."""
    assert isinstance(job.stage, GRPO | RLOO)
    common = common_arguments(job)
    del common["max_length"]  # the prompts are fitted already, and the responses have a length of their own
    return {
        **common,
        "beta": job.stage.beta,
        "num_generations": job.stage.generations,
        "max_completion_length": job.stage.response_length,
        "temperature": job.stage.rollout_temperature,
    }


def reference_source(job: Job) -> AbstractContextManager[Any]:
    """Where the trainer finds the reference: both load it from the folder or hub id that the model's config names.

    With LoRA it is the model without its new adapters, and with a ``beta`` of 0 there is none.
    """
    assert isinstance(job.stage, GRPO | RLOO)
    return nullcontext() if job.stage.lora.rank or not job.stage.beta else start_folder(job)


def build_groups(job: Job, trainer: Callable[..., Built], arguments: Any) -> Built:
    """One of the two trainers on the prompts of the stage, rated by its reward."""
    with reference_source(job):
        return trainer(
            model=job.model,
            reward_funcs=reward_function(job),
            args=arguments,
            train_dataset=fit(job),
            processing_class=job.tokenizer,
            peft_config=lora_config(job.stage),
            callbacks=list(job.callbacks),
        )


def reward_function(job: Job) -> Callable[..., list[float]]:
    """The stage's reward as TRL calls it."""
    rated_by = job.reward
    assert rated_by is not None

    def reward(
        completions: list[Any], asked: list[list[dict[str, str]]], trainer_state: TrainerState, **_: Any
    ) -> list[float]:
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
        try:
            return [float(value) for value in rate(rated_by, asked, [text.strip() for text in texts])]
        except FloatingPointError as error:  # TRL itself would leave such responses out and go on
            raise FloatingPointError(f"{error} at step {trainer_state.global_step + 1}") from error

    return reward
