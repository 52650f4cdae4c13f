"""Kahneman-Tversky optimisation of answers labelled good or bad (TRL's KTOTrainer).

Loss of one answer (Ethayarajh et al. 2024, eq. 7): w * (1 - sigmoid(beta * s * (log pi(y|x) - log ref(y|x) - z))), with
s = 1 and w = ``desirable_weight`` for a good answer, s = -1 and w = ``undesirable_weight`` for a bad one, and z the KL
of policy and reference, estimated in each batch on prompts with the answers of other rows. The reference is the model
that the stage starts from, so the loss before the first step is half of the mean weight.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from valuedrift_mlflow.recipe import KTO
from valuedrift_mlflow.stages import Job, common_arguments, lora_config
from valuedrift_mlflow.stages.lengths import fit

if TYPE_CHECKING:
    from trl import KTOTrainer


def build(job: Job) -> KTOTrainer:
    """A trainer whose reference is a frozen copy of the start, or with LoRA the model without its new adapters."""
    from trl import KTOConfig, KTOTrainer

    assert isinstance(job.stage, KTO)
    adapters = lora_config(job.stage)
    arguments = KTOConfig(
        **common_arguments(job),
        beta=job.stage.beta,
        desirable_weight=job.stage.desirable_weight,
        undesirable_weight=job.stage.undesirable_weight,
    )
    # The trainer keeps the order of the rows and moves each answer on to the next prompt for the KL: the two sides of
    # a pair, one after the other, would give a prompt its own answer.
    return KTOTrainer(
        model=job.model,
        ref_model=None if adapters else copy.deepcopy(job.model),
        args=arguments,
        train_dataset=fit(job).shuffle(seed=job.seed),
        processing_class=job.tokenizer,
        peft_config=adapters,
        callbacks=list(job.callbacks),
    )
