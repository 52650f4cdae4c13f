"""What GRPO and RLOO share: groups of responses sampled for each prompt, rated by the stage's reward."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Self, TypeVar

from pydantic import Field, model_validator

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stages.job import Arguments, common_arguments
from valuedrift_mlflow.stages.lengths import fit
from valuedrift_mlflow.stages.stage import Job, Online
from valuedrift_mlflow.stages.start import start_folder

if TYPE_CHECKING:
    from transformers import TrainerState
    from trl import GRPOConfig, RLOOConfig

    from valuedrift_mlflow.data.messages import Message

Built = TypeVar("Built")


class Groups(Online):
    """Stages that compare the responses to a prompt with each other."""

    generations: int = Field(ge=2, description="responses sampled for each prompt; `batch_size` is a multiple of it")

    @model_validator(mode="after")
    def _batches_hold_whole_groups(self) -> Self:
        if self.batch_size % self.generations:
            allowed = f"a multiple of generations ({self.generations})"
            mend = "a batch counts responses, not prompts"
            raise InputError(problem(f"{self.name}.batch_size", self.batch_size, allowed, mend))
        return self

    def steps_an_epoch(self, rows: int, batch: int) -> int:
        """Optimizer steps of one pass: a batch counts responses, and prompts that fill none are left out."""
        return rows // (batch // self.generations)

    def arguments(self, job: Job) -> Arguments:
        """What TRL's two trainers are told alike; one step is one update on freshly sampled responses."""
        common = common_arguments(job)
        del common["max_length"]  # the prompts are fitted already, and the responses have a length of their own
        return {
            **common,
            "num_generations": self.generations,
            "max_completion_length": self.response_length,
            "temperature": self.rollout_temperature,
            "chat_template_kwargs": job.speech.arguments(job.tokenizer),
        }

    def trainer(self, job: Job, kind: Callable[..., Built], arguments: GRPOConfig | RLOOConfig) -> Built:
        """One of the two trainers on the prompts of the stage, rated by its reward.

        Both load the reference from the folder or hub id that the model's config names. With LoRA it is the model
        without its new adapters, and with a ``beta`` of 0 there is none.
        """
        with nullcontext() if self.lora.rank or not arguments.beta else start_folder(job):
            return kind(
                model=job.model,
                reward_funcs=reward_function(job),
                args=arguments,
                train_dataset=fit(job),
                processing_class=job.tokenizer,
                peft_config=self.lora.config(),
                callbacks=list(job.callbacks),
            )


def reward_function(job: Job) -> Callable[..., list[float]]:
    """The stage's reward as TRL calls it."""
    from valuedrift_mlflow.stages.rewards import rate

    rated_by, opening = job.reward, job.speech.opening(job.tokenizer)
    assert rated_by is not None

    def reward(
        completions: list[str | list[Message]], asked: list[list[Message]], trainer_state: TrainerState, **_: object
    ) -> list[float]:
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
        try:
            return [float(value) for value in rate(rated_by, asked, [opening + text for text in texts])]
        except FloatingPointError as error:  # TRL itself would leave such responses out and go on
            raise FloatingPointError(f"{error} at step {trainer_state.global_step + 1}") from error

    return reward
