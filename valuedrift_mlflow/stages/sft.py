"""Supervised fine-tuning: cross-entropy on the answers (TRL's SFTTrainer)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from valuedrift_mlflow.stages.job import common_arguments
from valuedrift_mlflow.stages.lengths import fit
from valuedrift_mlflow.stages.stage import Job, Stage

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

    def build(self, job: Job) -> SFTTrainer:
        """A trainer whose loss is the mean negative log-likelihood of the answers' tokens, in nats."""
        from trl import SFTConfig, SFTTrainer

        return SFTTrainer(
            model=job.model,
            args=SFTConfig(**common_arguments(job), completion_only_loss=True),
            train_dataset=fit(job),
            processing_class=job.tokenizer,
            peft_config=self.lora.config(),
            callbacks=list(job.callbacks),
        )
