"""Supervised fine-tuning: cross-entropy on the answers (TRL's SFTTrainer)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from valuedrift_mlflow.stages import Job, common_arguments, lora_config
from valuedrift_mlflow.stages.lengths import fit

if TYPE_CHECKING:
    from trl import SFTTrainer


def build(job: Job) -> SFTTrainer:
    """A trainer whose loss is the mean negative log-likelihood of the answers' tokens, in nats."""
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(
        model=job.model,
        args=SFTConfig(**common_arguments(job), completion_only_loss=True),
        train_dataset=fit(job),
        processing_class=job.tokenizer,
        peft_config=lora_config(job.stage),
        callbacks=list(job.callbacks),
    )
