"""Simple preference optimisation (TRL's CPOTrainer with the SimPO loss and without CPO's likelihood term).

Loss of one pair (Meng et al. 2024, eq. 6): -log sigmoid(beta * (log pi(y_c|x) / |y_c| - log pi(y_r|x) / |y_r|) -
gamma), with gamma = ``gamma_beta_ratio`` * beta. There is no reference.
"""

from __future__ import annotations

from typing import Any

from trl.experimental.cpo import CPOConfig, CPOTrainer

from valuedrift_mlflow.recipe import SimPO
from valuedrift_mlflow.stages import Job, common_arguments, lora_config
from valuedrift_mlflow.stages.tokens import tokenized_pairs


class SimPOTrainer(CPOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer on pairs that are tokens already."""

    @staticmethod
    def tokenize_row(feature: dict[str, Any]) -> dict[str, Any]:
        """The row as it is."""
        return feature


def build(job: Job) -> SimPOTrainer:
    """A trainer without a reference model."""
    assert isinstance(job.stage, SimPO)
    arguments = CPOConfig(
        **common_arguments(job),
        loss_type="simpo",
        cpo_alpha=0.0,  # TRL's default of 1 is another algorithm, CPO-SimPO
        beta=job.stage.beta,
        simpo_gamma=job.stage.gamma_beta_ratio * job.stage.beta,
        remove_unused_columns=False,
    )
    return SimPOTrainer(
        model=job.model,
        args=arguments,
        train_dataset=tokenized_pairs(job),
        processing_class=job.tokenizer,
        peft_config=lora_config(job.stage),
        callbacks=list(job.callbacks),
    )
