"""Supervised fine-tuning, and pre-training of the embedded base model: cross-entropy on answers (TRL's SFTTrainer)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from valuedrift_mlflow.stages import Job, common_arguments, lora_config
from valuedrift_mlflow.stages.lengths import fit

if TYPE_CHECKING:
    from trl import SFTTrainer


def build(job: Job) -> SFTTrainer:
    """A trainer whose loss is the mean negative log-likelihood of the answers' tokens, in nats."""
    from trl import SFTConfig, SFTTrainer

    extra: dict[str, Any] = {}
    if job.stage.algorithm == "pretrain":
        # Padding costs a small model on a CPU a third of its time; a shorter memory of gradients suits a short run
        # from noise.
        extra = {"train_sampling_strategy": "group_by_length", "adam_beta2": 0.98}
    return SFTTrainer(
        model=job.model,
        args=SFTConfig(**common_arguments(job), completion_only_loss=True, **extra),
        train_dataset=fit(job),
        processing_class=job.tokenizer,
        peft_config=lora_config(job.stage),
        callbacks=list(job.callbacks),
    )
