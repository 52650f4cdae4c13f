"""Supervised fine-tuning: cross-entropy on the answers (TRL's SFTTrainer)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from valuedrift_mlflow.data.settings import Turns
from valuedrift_mlflow.stages.job import common_arguments
from valuedrift_mlflow.stages.stage import Job, Stage
from valuedrift_mlflow.stages.turns import answers_alone

if TYPE_CHECKING:
    from trl import SFTTrainer


class SFT(Stage):
    """Supervised fine-tuning on the responses of the data (TRL's SFTTrainer)."""

    kind = "sft"
    purpose = "Fine-tune a model on answers."
    about = "supervised fine-tuning of any model on any data"
    example = '--data "embedded:sft?support=0.7&neutral=0.2&oppose=0.1" --set "sft.max_steps=50"'

    algorithm: Literal["sft"]
    # TRL's default for full fine-tuning, after the Alpaca and Zephyr recipes.
    learning_rate: float = Field(2e-5, gt=0, description="peak learning rate of AdamW")

    turns: Turns = Field(
        "all",
        description="the answers of a dialogue that are trained: `all`, or the `last`; answers of weight 0 never are",
    )

    @property
    def trained_turns(self) -> Turns:
        """Which answers of a dialogue are trained."""
        return self.turns

    def build(self, job: Job) -> SFTTrainer:
        """A trainer whose loss is the mean negative log-likelihood of the answers' tokens, in nats."""
        from trl import SFTConfig, SFTTrainer

        return SFTTrainer(
            model=job.model,
            args=SFTConfig(**common_arguments(job), completion_only_loss=True),
            train_dataset=answers_alone(job),
            processing_class=job.tokenizer,
            peft_config=self.lora.config(),
            callbacks=list(job.callbacks),
        )
