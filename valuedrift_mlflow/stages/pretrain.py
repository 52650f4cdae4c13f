"""Training of the small embedded base model from random weights: the loss of the stage ``sft``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from valuedrift_mlflow.stages.job import common_arguments
from valuedrift_mlflow.stages.lengths import fit
from valuedrift_mlflow.stages.stage import Job, Stage

if TYPE_CHECKING:
    from valuedrift_mlflow.stages.pretrain_trainer import PretrainTrainer


class Pretrain(Stage):
    """Training of the small embedded base model on a balanced corpus."""

    kind = "sft"
    purpose = "Train the embedded base model."
    about = "trains the small embedded base model"
    example = '--set "pretrain.max_steps=100"'
    flags = ()  # it starts from noise, on a corpus of its own

    configured_by = "trl:SFTConfig"
    taken: ClassVar[Mapping[str, str]] = {
        "completion_only_loss": "the answers' tokens alone are learned",
        "assistant_only_loss": "the answers' tokens alone are learned",
        "loss_type": "it has a loss of its own",
    }
    algorithm: Literal["pretrain"]
    # The embedded model is small and starts from noise: rates near 1e-3 are usual at this size (GPT-2, nanoGPT).
    learning_rate: float = Field(3e-3, gt=0, description="peak learning rate of AdamW")

    def build(self, job: Job) -> PretrainTrainer:
        """A trainer for the embedded base model."""
        from trl import SFTConfig

        from valuedrift_mlflow.stages.pretrain_trainer import PretrainTrainer

        arguments = SFTConfig(
            **{
                "train_sampling_strategy": "group_by_length",  # padding costs a small model a third of its time
                "adam_beta2": 0.98,  # a run of a few hundred steps is too short for the usual memory of a thousand
                **common_arguments(job),
            },
            completion_only_loss=True,
        )
        return PretrainTrainer(
            model=job.model,
            args=arguments,
            train_dataset=fit(job),
            processing_class=job.tokenizer,
            callbacks=list(job.callbacks),
        )
