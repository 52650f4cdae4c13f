"""Direct preference optimisation and its variants (TRL's DPOTrainer).

Loss of one pair (Rafailov et al. 2023, eq. 7): -log sigmoid(beta * ((log pi(y_c|x) - log ref(y_c|x)) - (log pi(y_r|x)
- log ref(y_r|x)))). The reference is the model that the stage starts from, so the loss before the first step is ln 2.
``loss_type`` names another loss of the same log-ratios, such as ipo (Azar et al. 2023, eq. 17), which starts at
1 / (4 beta^2).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from valuedrift_mlflow.recipe import DPO
from valuedrift_mlflow.stages import Job, common_arguments, lora_config
from valuedrift_mlflow.stages.lengths import fit

if TYPE_CHECKING:
    from trl import DPOTrainer


def build(job: Job) -> DPOTrainer:
    """A trainer whose reference is a frozen copy of the start, or with LoRA the model without its new adapters."""
    from trl import DPOConfig, DPOTrainer

    assert isinstance(job.stage, DPO)
    adapters = lora_config(job.stage)
    arguments = DPOConfig(
        **common_arguments(job),
        beta=job.stage.beta,
        loss_type=[job.stage.loss_type],
        label_smoothing=job.stage.label_smoothing,
    )
    return DPOTrainer(
        model=job.model,
        ref_model=None if adapters else copy.deepcopy(job.model),
        args=arguments,
        train_dataset=fit(job),
        processing_class=job.tokenizer,
        peft_config=adapters,
        callbacks=list(job.callbacks),
    )
